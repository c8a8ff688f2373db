"""The document of a layout, as ``xsave layouts --json`` lists it."""

from __future__ import annotations

from typing import Any

from qmigtool.util.text import hexadecimal
from qmigtool.xsave.components import Format, mask_names
from qmigtool.xsave.convert import default_mask
from qmigtool.xsave.layout import Layout

__all__ = ["layout_document"]


def layout_document(one: Layout, mask: int | None = None) -> dict[str, Any]:
    """Return a layout as ``xsave layouts --json`` lists it: offsets and sizes in bytes, masks as text.

    ``mask`` is the components of the compacted area (default: all user components of the layout).
    """
    if mask is None:
        mask = default_mask(one, Format.COMPACTED)
    compacted = one.compacted_offsets(mask)
    return {
        "name": one.name,
        "title": one.title,
        "source": one.source,
        "xcr0_mask": hexadecimal(one.xcr0_mask),
        "xss_mask": hexadecimal(one.xss_mask),
        "mask": hexadecimal(mask),
        "standard_size": one.standard_size(mask & one.user_mask),
        "compacted_size": one.compacted_size(mask),
        "components": [
            {
                "bit": bit,
                "name": mask_names(1 << bit)[0],
                "supervisor": row.supervisor,
                "size": row.size,
                "standard_offset": None if row.supervisor else row.offset,
                "compacted_offset": compacted.get(bit),
                "align64": row.align64,
            }
            for bit, row in sorted(one.rows.items())
        ],
        "absent": {mask_names(1 << bit)[0]: reason for bit, reason in one.absent.items()},
    }
