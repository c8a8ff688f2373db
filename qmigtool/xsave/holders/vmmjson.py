"""XSAVE areas in JSON: the vCPU states of Cloud Hypervisor, and of others with the same struct kvm_xsave.

``"xsave": {"region": [1024 numbers of 32 bits]}`` is KVM's, in standard format; ``"xsave": {"buffer": [4096 bytes]}``
MSHV's, compacted. ``"xcrs": {"xcrs": [{"xcr": 0, "value": ...}]}`` next to it has XCR0. Some store states as strings of
JSON.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.xsave.components import EXTENDED_OFFSET
from qmigtool.xsave.holders.model import FoundArea
from qmigtool.xsave.nestedjson import Part, by_number, find_in, parse

MAX_NUMBERS = 1 << 18


class _State(NamedTuple):
    area: bytes
    xcr0: int | None


def is_json(data: bytes) -> bool:
    """Return whether this begins like a JSON document."""
    return data.lstrip(b" \t\r\n")[:1] in (b"{", b"[") and not data[:64].translate(None, _TEXT)


_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n"


def find_in_json(data: bytes, name: str, choice: str | None) -> FoundArea:
    """Return the area of one vCPU.

    ``choice`` is the decimal key or id above its state (Cloud Hypervisor's ``"snapshots": {"10": ...}``) if every state
    of the document has its own; otherwise its position in the document, from 0, which need not be the vCPU's number.

    Raises UnsupportedError if there is no area, UsageError if there are several and none is selected, XsaveError if an
    object has a key twice, LimitError if the document is too long.
    """
    found = find_in(parse(data, name), ("xsave",), _states)
    if not found:
        what = "JSON without an xsave region"
        raise UnsupportedError(f"an XSAVE area in {what}", f"not an XSAVE area: {what}", section=name)
    numbered = by_number(found)
    states = dict(enumerate(one.what for one in found)) if numbered is None else numbered
    known = ", ".join(f"{name}#{number}" for number in list(states)[:16]) + (", ..." if len(states) > 16 else "")
    if choice is None and len(states) > 1:
        how = "its position in the document, from 0" if numbered is None else "key or id"
        raise UsageError(f"{name} has the state of {len(states)} vCPUs; select one by {how}", expected=known)
    chosen = [number for number in states if choice in (None, str(number))]
    if not chosen:
        raise UsageError(f"no {'area' if numbered is None else 'vCPU'} {choice} in {name}", expected=known)
    area, xcr0 = states[chosen[0]]
    if numbered is None:
        where = f"area {chosen[0]} in the document, from 0 ({len(states)} in this JSON document)"
    else:
        where = f"the area of vCPU {chosen[0]}, by its key or id ({len(states)} in this JSON document)"
    return FoundArea(area, None, xcr0, where)


def _states(part: Part) -> tuple[list[_State], Part]:
    area = _area(part.get("xsave")) if isinstance(part, dict) else None
    if area is None or not isinstance(part, dict):
        return [], part
    return [_State(area, _xcr0(part.get("xcrs")))], {key: one for key, one in part.items() if key != "xsave"}


def _area(xsave: Any) -> bytes | None:
    if not isinstance(xsave, dict):
        return None
    for key, bits in (("region", 32), ("buffer", 8)):
        numbers = xsave.get(key)
        if (
            isinstance(numbers, list)
            and EXTENDED_OFFSET * 8 // bits <= len(numbers) <= MAX_NUMBERS
            and all(type(number) is int and 0 <= number < 1 << bits for number in numbers)
        ):
            extra = xsave.get("extra") if bits == 32 else None
            more = extra if isinstance(extra, list) and all(type(n) is int and 0 <= n < 1 << 32 for n in extra) else []
            return struct.pack(f"<{len(numbers)}{'I' if bits == 32 else 'B'}", *numbers) + struct.pack(
                f"<{len(more)}I", *more
            )
    return None


def _xcr0(xcrs: Any) -> int | None:
    entries = xcrs.get("xcrs") if isinstance(xcrs, dict) else xcrs
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("xcr") == 0 and type(entry.get("value")) is int:
            return int(entry["value"])
    return None
