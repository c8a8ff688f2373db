"""An XSAVE area that was found in a file."""

from __future__ import annotations

from dataclasses import dataclass

from qmigtool.xsave.layout import Layout


@dataclass(frozen=True, slots=True)
class FoundArea:
    """An area, and what its file says of it.

    ``layout`` is where its components lie, ``xcr0`` the components that were enabled, both None where the file does not
    say; ``note`` tells in words where the area was found, and is empty if it is the file itself.
    """

    data: bytes
    layout: Layout | None = None
    xcr0: int | None = None
    note: str = ""
