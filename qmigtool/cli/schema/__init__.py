"""``schema``: descriptions of device state."""

from __future__ import annotations

import click

from qmigtool.cli.shared.lazy import LazyGroup


@click.group(cls=LazyGroup, lazy={"learn": "schema.learn:learn", "diff": "schema.diff:diff"}, no_args_is_help=False)
def schema() -> None:
    """Descriptions of device state, for streams that have none."""
