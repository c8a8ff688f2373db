"""``xsave``: the extended state of the vCPUs."""

from __future__ import annotations

import click

from qmigtool.cli.shared.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={
        "check": ("xsave.check:check", "Check which consumers accept an XSAVE area."),
        "convert": ("xsave.convert:convert", "Convert an XSAVE area, standard or compacted."),
        "export": ("xsave.export:export", "Write the XSAVE area of a vCPU to a file."),
        "import": ("xsave.import_:import_area", "Put an XSAVE area into a stream."),
        "layouts": ("xsave.layouts:layouts", "List the XSAVE layouts, or draw one."),
        "table": ("xsave.table:table", "Show which XSAVE components each vCPU has."),
    },
)
def xsave() -> None:
    """Show, export, convert and check XSAVE state."""
