"""Check that the output can be decoded again. Where a stream has no vmdesc, only a schema describes a body's bytes.

A draft keeps the new shape of a section that edits have changed; the output does not record it. If no known shape fits
the new body, or another one does, a reader of the output finds undecoded bytes or other fields. QEMU may still load the
output, so this is noted and not refused. Without footers, the end of a body is also found by its shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.devices.schema.fit import fit
from qmigtool.errors import UsageError

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft

__all__ = ["check_decoding"]


def check_decoding(draft: Draft) -> None:
    """Note each section of the output that will not be decoded as intended.

    Raises :class:`~qmigtool.errors.UsageError` where a reader could not find its end.
    """
    if draft.stream.vmdesc is not None:
        return
    schema = draft.stream.schema
    machine = draft.configuration.machine if draft.configuration is not None else draft.stream.machine
    for section in draft.sections:
        if section.description is None or not section.touched:
            continue
        header = section.section
        found = fit(schema, header.name or "", header.version_id or 0, section.body, machine)
        if found is not None and found.description == section.description:
            continue
        why = f"{section.label}: " + (
            f"no shape in the schema {schema.name} fits its body as edited"
            if found is None
            else f"another shape in the schema {schema.name} fits its body as edited"
        )
        if not draft.footers:
            raise UsageError(
                f"{why}, and without footers and a vmdesc only its shape shows where it ends",
                expected="--add-footers, or --schema with one learned from streams that have this shape",
            )
        draft.note(
            f"{why}, and the stream has no vmdesc to describe it: qmigtool will "
            f"{'not decode the section' if found is None else 'read other fields there'}; --schema with one learned "
            "from streams that have this shape solves this"
        )
