"""``mshv``: what MSHV takes of the vCPUs."""

from __future__ import annotations

import click

from qmigtool.cli.shared.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={"export": "mshv.export:export_bundle", "import": "mshv.import_:import_bundle"},
    no_args_is_help=False,
)
def mshv() -> None:
    """What MSHV takes of the vCPUs' extended state, as a folder: XSAVE areas in whole pages, XCR0 and MSRs."""
