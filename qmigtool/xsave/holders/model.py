"""An XSAVE area that was found in a file."""

from __future__ import annotations

from dataclasses import dataclass

from qmigtool.xsave.layout import Layout


@dataclass(frozen=True, slots=True)
class FoundArea:
    """An area, and what its file records about it.

    ``layout`` is its layout, ``xcr0`` the components that were enabled; both are None if the file does not record them.
    ``note`` describes where the area was found, and is empty if it is the file itself.
    """

    data: bytes
    layout: Layout | None = None
    xcr0: int | None = None
    note: str = ""
