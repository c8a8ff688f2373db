"""Containers that are recognised and cannot be read."""

from __future__ import annotations

from qmigtool.errors import UnsupportedError
from qmigtool.parsers.container import ContainerKind, Magic
from qmigtool.stream.unwrapped import Unwrapped, Wrapping

__all__ = ["OTHER"]


def _other(found: Unwrapped, magic: Magic, _snapshot: str | None) -> Unwrapped:
    raise UnsupportedError(magic.what, offset=found.start or 0)


OTHER = Wrapping(ContainerKind.OTHER, _other)
