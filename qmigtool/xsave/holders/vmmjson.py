"""XSAVE areas in JSON: the vCPU states of Cloud Hypervisor, and of others that write struct kvm_xsave so.

``"xsave": {"region": [1024 numbers of 32 bits]}`` is KVM's, in standard format; ``"xsave": {"buffer": [4096 bytes]}``
MSHV's, compacted. ``"xcrs": {"xcrs": [{"xcr": 0, "value": ...}]}`` beside it has XCR0. Some keep states as strings of
JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.xsave.components import EXTENDED_OFFSET
from qmigtool.xsave.holders.model import FoundArea
from qmigtool.xsave.nestedjson import find_in, parse

MAX_NUMBERS = 1 << 18


class _State(NamedTuple):
    area: bytes
    xcr0: int | None


def is_json(data: bytes) -> bool:
    """Say whether this begins as a JSON document of text does."""
    return data.lstrip(b" \t\r\n")[:1] in (b"{", b"[") and not data[:64].translate(None, _TEXT)


_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n"


def find_in_json(data: bytes, name: str, choice: str | None) -> FoundArea:
    """Return the area of one vCPU; ``choice`` is its number, from 0, in the order of the document.

    Raises UnsupportedError if there is no area, UsageError if there are several and none is chosen, LimitError if the
    document is too long.
    """
    states = list(find_in(parse(data, name), ("xsave",), _states))
    if not states:
        what = "JSON without an xsave region"
        raise UnsupportedError(f"an XSAVE area in {what}", f"not an XSAVE area: {what}", section=name)
    known = ", ".join(f"{name}#{number}" for number in range(min(len(states), 16)))
    if choice is None and len(states) > 1:
        raise UsageError(f"{name} has the state of {len(states)} vCPUs; name one", expected=known)
    chosen = [number for number in range(len(states)) if choice in (None, str(number))]
    if not chosen:
        raise UsageError(f"no vCPU {choice} in {name}", expected=known)
    number = chosen[0]
    area, xcr0 = states[number]
    return FoundArea(area, None, xcr0, f"the area of vCPU {number} ({len(states)} in this JSON document)")


def _states(part: dict[str, Any] | list[Any]) -> tuple[list[_State], Iterable[Any]]:
    if isinstance(part, list):
        return [], part
    area = _area(part.get("xsave"))
    if area is None:
        return [], part.values()
    return [_State(area, _xcr0(part.get("xcrs")))], (one for key, one in part.items() if key != "xsave")


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
