"""``schema``: descriptions of device state."""

from __future__ import annotations

import click

from qmigtool.cli.shared.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    lazy={
        "diff": ("schema.diff:diff", "Compare the device state of two QEMU versions."),
        "learn": ("schema.learn:learn", "Learn descriptions from streams with a vmdesc."),
    },
)
def schema() -> None:
    """Compare and learn descriptions of device state."""
