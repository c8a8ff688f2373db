"""``mshv``: what MSHV takes of the vCPUs."""

from __future__ import annotations

import click

from qmigtool.cli.shared.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={
        "export": ("mshv.export:export_bundle", "Write the vCPUs' extended state as MSHV accepts it."),
        "import": ("mshv.import_:import_bundle", "Put a folder of `mshv export` into a stream."),
    },
)
def mshv() -> None:
    """Exchange vCPU state with MSHV as files.

    A folder has the extended state of the vCPUs: XSAVE areas in whole pages, XCR0 and MSRs.
    """
