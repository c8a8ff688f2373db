"""XBZRLE pairs: read, applied, written again; expectations by hand and by a naive encoder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmigtool.errors import StreamError
from qmigtool.parsers.xbzrle import XbzrleChange, apply_xbzrle, encode_xbzrle, parse_xbzrle
from tests.support.naiveram import patch

PAGE = 4096


@pytest.mark.parametrize(
    ("raw", "changes"),
    [
        ("a302 02 070c", [(291, "070c")]),  # stream.md 2.4, from real QEMU
        ("00 01 ff", [(0, "ff")]),
        ("7f 01 aa", [(127, "aa")]),
        ("8001 01 aa", [(128, "aa")]),
        ("ff1f 01 aa", [(4095, "aa")]),
        ("00 01 aa 01 02 bbcc", [(0, "aa"), (1, "bbcc")]),
        ("8300 01 aa", [(3, "aa")]),  # two bytes where one would do
        ("", []),
    ],
)
def test_pairs(raw, changes):
    assert parse_xbzrle(bytes.fromhex(raw), PAGE) == [XbzrleChange(skip, bytes.fromhex(data)) for skip, data in changes]


def test_a_whole_page_can_change():
    raw = b"\x00\x80\x20" + bytes(range(256)) * 16
    assert apply_xbzrle(parse_xbzrle(raw, PAGE), bytes(PAGE)) == bytes(range(256)) * 16
    with pytest.raises(StreamError):
        parse_xbzrle(raw, PAGE // 2)


def naive_encode(old, new):
    """What any encoder may write: runs of unlike bytes, one pair each."""
    out, at = bytearray(), 0
    while at < len(new):
        start = at
        while at < len(new) and old[at] == new[at]:
            at += 1
        if at == len(new):
            break
        change = at
        while at < len(new) and old[at] != new[at]:
            at += 1
        for number in (change - start, at - change):
            out += bytes([number]) if number < 128 else bytes([number % 128 + 128, number // 128])
        out += new[change:at]
    return bytes(out)


@given(st.data())
def test_any_change_of_a_page(data):
    size = data.draw(st.sampled_from([256, 1024, 4096]))
    old = bytes(range(256)) * (size // 256)
    new = bytearray(old)
    for at, part in data.draw(
        st.lists(st.tuples(st.integers(0, size - 1), st.binary(min_size=1, max_size=300)), max_size=6)
    ):
        new[at : at + len(part)] = part[: size - at]
    raw = naive_encode(old, bytes(new))
    changes = parse_xbzrle(raw, size)
    assert apply_xbzrle(changes, old) == bytes(new) == patch(old, raw)
    assert encode_xbzrle(changes) == raw


@given(st.binary(max_size=60), st.sampled_from([16, 256, 4096]))
def test_any_bytes_are_pairs_or_a_stream_error(raw, size):
    try:
        changes = parse_xbzrle(raw, size, 1000)
    except StreamError as error:
        where = error.offset
    else:
        page = apply_xbzrle(changes, bytes(size))
        assert len(page) == size
        assert page == patch(bytes(size), raw)
        return
    assert 1000 <= where <= 1000 + len(raw)


@pytest.mark.parametrize("value", [-1, 1 << 14])
def test_numbers_that_do_not_fit(value):
    with pytest.raises(ValueError, match="two ULEB128 bytes"):
        encode_xbzrle([XbzrleChange(value, b"x")])
