"""Two memories of the same pages, each in any encoding, and the plainest comparison of them."""

import zlib

from hypothesis import strategies as st

import qmigtool
from tests.support.ramwriter import filled, plain
from tests.support.streamwriter import PAGE, compressed, page, xbzrle, zero

PAGES = 12
SAME, CHANGED, ZEROED, FILLED = "same", "changed", "zeroed", "filled"
ONLY_A, ONLY_B, UNKNOWN = "only_a", "only_b", "unknown"


def kind(one: bytes | None, other: bytes | None) -> str:
    """The class of a page in the plainest way; None is absent."""
    if one is None or other is None:
        return UNKNOWN if one is other else ONLY_B if one is None else ONLY_A
    if one == other:
        return SAME
    nothing = bytes(len(one))
    return FILLED if one == nothing else ZEROED if other == nothing else CHANGED


def of(*records, pages=PAGES):
    return qmigtool.open(plain(*records, pages=pages).finish())


def changed(data, at=100):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


CONTENTS = [bytes(PAGE), filled(1), filled(2), changed(filled(1), PAGE - 1), changed(bytes(PAGE), 0), b"\x55" * PAGE]


HOWS = st.sampled_from(["page", "zero", "compressed", "xbzrle"])


RECORD = st.tuples(st.integers(0, PAGES - 1), st.integers(0, len(CONTENTS) - 1), HOWS)


def record(number, content, how, before):
    addr = number * PAGE
    if how == "zero" and len(set(content)) == 1:
        return zero(addr, "r", content[0])
    if how == "compressed":
        return compressed(addr, zlib.compress(content), "r")
    if how == "xbzrle" and before is not None:
        differ = [i for i in range(PAGE) if before[i] != content[i]]
        if differ:
            first, end = differ[0], differ[-1] + 1
            delta = uleb(first) + uleb(end - first) + content[first:end]
            if len(delta) <= PAGE:
                return xbzrle(addr, delta, "r")
    return page(addr, content, "r")


def uleb(value):
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])


def memory(records):
    """(records on the wire, page number -> content or None)"""
    content = dict.fromkeys(range(PAGES))
    out = []
    for number, which, how in records:
        data = CONTENTS[which]
        out.append(record(number, data, how, content[number]))
        content[number] = data
    return out, content
