"""XBZRLE: a page as the difference from its earlier contents (QEMU: ``migration/xbzrle.c``).

Pairs of (ULEB128 bytes unchanged, ULEB128 bytes changed, the changed bytes). Unchanged bytes at the end are left out.
The numbers have one or two bytes, because a page has fewer than 16384. QEMU's encoders (generic, AVX2, AVX-512) may
split the same change differently, so :func:`encode_xbzrle` reproduces pairs and does not invent them.
"""

from __future__ import annotations

from typing import NamedTuple

from qmigtool.errors import StreamError

__all__ = ["XbzrleChange", "apply_xbzrle", "encode_xbzrle", "parse_xbzrle"]

MAX_ULEB = 0x3FFF


class XbzrleChange(NamedTuple):
    """``skip`` bytes unchanged, then ``data``."""

    skip: int
    data: bytes


def parse_xbzrle(raw: bytes, page_size: int, offset: int = 0) -> list[XbzrleChange]:
    """Read the pairs of one record; ``offset`` is its offset in the stream, for messages.

    Raises :class:`~qmigtool.errors.StreamError` if a run is empty or leaves the page or the record.
    """
    changes: list[XbzrleChange] = []
    pos = end = 0
    while pos < len(raw):
        start = pos
        skip, pos = _uleb(raw, pos, offset)
        count, pos = _uleb(raw, pos, offset)
        end += skip + count
        if (not skip and changes) or not count or pos + count > len(raw) or end > page_size:
            raise StreamError(
                f"XBZRLE: {skip} bytes unchanged, {count} changed",
                offset=offset + start,
                section="ram",
                expected=f"runs that stay inside the record and the page of {page_size} bytes",
            )
        changes.append(XbzrleChange(skip, raw[pos : pos + count]))
        pos += count
    return changes


def apply_xbzrle(changes: list[XbzrleChange], page: bytes) -> bytes:
    """Return ``page`` with the changes made."""
    new = bytearray(page)
    at = 0
    for change in changes:
        at += change.skip
        new[at : at + len(change.data)] = change.data
        at += len(change.data)
    return bytes(new)


def encode_xbzrle(changes: list[XbzrleChange]) -> bytes:
    """Write the pairs of one record; undoes :func:`parse_xbzrle`."""
    out = bytearray()
    for change in changes:
        out += _to_uleb(change.skip) + _to_uleb(len(change.data)) + change.data
    return bytes(out)


def _uleb(raw: bytes, pos: int, offset: int) -> tuple[int, int]:
    if pos < len(raw):
        first = raw[pos]
        if not first & 0x80:
            return first, pos + 1
        if pos + 1 < len(raw) and not raw[pos + 1] & 0x80:
            return first & 0x7F | raw[pos + 1] << 7, pos + 2
    raise StreamError("XBZRLE: an invalid length", offset=offset + pos, section="ram", expected="one or two bytes")


def _to_uleb(value: int) -> bytes:
    if not 0 <= value <= MAX_ULEB:
        raise ValueError(f"{value} does not fit two ULEB128 bytes")
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])
