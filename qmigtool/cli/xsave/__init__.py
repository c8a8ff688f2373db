"""``xsave``: the extended state of the vCPUs."""

from __future__ import annotations

import click

from qmigtool.cli.shared.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={
        "check": "xsave.check:check",
        "convert": "xsave.convert:convert",
        "export": "xsave.export:export",
        "import": "xsave.import_:import_area",
        "layouts": "xsave.layouts:layouts",
        "table": "xsave.table:table",
    },
    no_args_is_help=False,
)
def xsave() -> None:
    """The extended state of the vCPUs: shown, extracted, converted, judged."""
