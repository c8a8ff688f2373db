"""Fields by their description: offsets, values, lists, subsections, and descriptions that do not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmigtool.errors import QmigError, StreamError
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.vmstate import Kind, body_fields, decode_value, encode_value, leaves
from tests.support.streamwriter import (
    Pairs,
    StreamWriter,
    Vmsd,
    _entry,
    be32,
    be64,
    dump,
    gtree,
    inline,
    null_run,
    num,
    nums,
    pointers,
    qtailq,
    raw,
    struct_,
    structs,
    tmp,
    uncollapsed,
)


def description(vmsd):
    pairs = Pairs([("name", "d"), ("instance_id", 0), *vmsd.pairs()])
    text = dump(Pairs([("page_size", 4096), ("devices", [pairs])]))
    return parse_vmdesc(text.encode()).devices[0].description


def fields_of(vmsd, data=None, base=1000):
    data = vmsd.body() if data is None else data
    return {f.name: f for f in body_fields(BufferSource(bytes(base) + data), description(vmsd), base)}


def tree(field):
    """The field and all inside, as (name, kind, offset, length, value)."""
    yield field.name, field.kind.value, field.offset, field.length, field.value
    for child in field.children:
        yield from tree(child)


POINT = Vmsd("point", 1, [num("x", "uint8", 1), num("y", "uint16", 2)])


def point(x, y):
    return Vmsd("point", 1, [num("x", "uint8", x), num("y", "uint16", y)])


@pytest.mark.parametrize(
    ("type_", "raw_", "value"),
    [
        ("uint8", "ff", 255),
        ("int8", "ff", -1),
        ("uint16", "0102", 258),
        ("int16", "fffe", -2),
        ("uint32", "ffffffff", 0xFFFFFFFF),
        ("int32", "80000000", -(1 << 31)),
        ("uint64", "ffffffffffffffff", (1 << 64) - 1),
        ("int64", "ffffffffffffffff", -1),
        ("uint8 equal", "80", 128),
        ("uint16 equal", "8000", 32768),
        ("uint32 equal", "80000000", 1 << 31),
        ("int32 equal", "ffffffff", -1),
        ("int64 equal", "ffffffffffffffff", (1 << 64) - 1),
        ("int32 le", "00000102", 258),
        ("timer", "ffffffffffffffff", -1),
        ("CPU_Double_U", "3ff0000000000000", 0x3FF0000000000000),
        ("nullptr", "30", 0x30),
        ("ptr-marker", "31", 0x31),
        ("bool", "00", False),
        ("bool", "01", True),
        ("bool", "02", b"\x02"),
        ("capability", "03616263", "abc"),
        ("capability", "04616263", b"\x04abc"),
        ("buffer", "0102", b"\x01\x02"),
        ("unused_buffer", "", b""),
        ("bitmap", "0000000000000003", bytes(7) + b"\x03"),
        ("no such type", "01", b"\x01"),
        ("uint32", "010203", b"\x01\x02\x03"),
        ("uint64", "01020304", b"\x01\x02\x03\x04"),
        ("GByteArray", "00000001ff", b"\0\0\0\x01\xff"),
    ],
)
def test_values_of_every_type(type_, raw_, value):
    data = bytes.fromhex(raw_)
    found = decode_value(type_, data)
    assert (found, type(found)) == (value, type(value))
    assert encode_value(type_, len(data), value) == data


@given(
    st.sampled_from(["uint8", "int16", "uint32", "int64", "bool", "timer", "buffer", "capability"]),
    st.binary(max_size=9),
)
def test_any_bytes_come_back(type_, data):
    assert encode_value(type_, len(data), decode_value(type_, data)) == data


@pytest.mark.parametrize(
    ("type_", "size", "value"),
    [("uint8", 1, 256), ("uint8", 1, -1), ("int8", 1, 128), ("buffer", 4, 5), ("buffer", 4, b"x"), ("uint32", 8, 1)],
)
def test_values_that_do_not_fit(type_, size, value):
    with pytest.raises((ValueError, OverflowError)):
        encode_value(type_, size, value)


def test_plain_fields_follow_each_other():
    found = fields_of(Vmsd("d", 1, [num("a", "uint8", 7), nums("b", "int32", [1, -2, 3]), num("c", "uint64", 1 << 63)]))
    assert [next(tree(f)) for f in found.values()] == [
        ("a", "leaf", 1000, 1, 7),
        ("b", "array", 1001, 12, [1, -2, 3]),
        ("c", "leaf", 1013, 8, 1 << 63),
    ]
    assert list(tree(found["b"]))[1:] == [
        ("b[0]", "leaf", 1001, 4, 1),
        ("b[1]", "leaf", 1005, 4, -2),
        ("b[2]", "leaf", 1009, 4, 3),
    ]
    assert found["a"].raw == b"\x07"
    assert found["a"].type == "uint8"


def test_structs_nested_collapsed_and_temporary():
    vmsd = Vmsd("d", 1, [struct_("s", POINT), structs("many", [point(1, 2), point(3, 4)]), tmp("t", point(5, 6))])
    found = fields_of(vmsd)
    assert list(tree(found["s"])) == [
        ("s", "struct", 1000, 3, None),
        ("x", "leaf", 1000, 1, 1),
        ("y", "leaf", 1001, 2, 2),
    ]
    assert [f.struct_name for f in found.values()] == ["point", "point", "point"]
    assert [child.name for child in found["many"].children] == ["many[0]", "many[1]"]
    assert [[leaf.value for leaf in child.children] for child in found["many"].children] == [[1, 2], [3, 4]]
    assert [leaf.value for leaf in found["t"].children] == [5, 6]
    assert found["many"].value is None


@pytest.mark.parametrize("index", ["all", "but-last", "none"])
def test_arrays_with_an_entry_per_element(index):
    other = Vmsd("point", 1, [num("x", "uint8", 9)], [Vmsd("point/sub", 1, [num("z", "uint8", 8)])])
    vmsd = Vmsd("d", 1, [uncollapsed("a", [point(1, 2), other], index=index), num("end", "uint8", 5)])
    found = fields_of(vmsd)
    assert (found["a"].kind, found["a"].length) == (Kind.ARRAY, 3 + 1 + 6 + 9 + 1)
    first, second = found["a"].children
    assert (first.name, second.name, second.offset) == ("a[0]", "a[1]", 1003)
    assert [f.name for f in second.children] == ["x", "point/sub"]
    assert found["end"].value == 5


def test_null_pointers_of_qemu_10_and_11():
    vmsd = Vmsd("d", 1, [null_run("old", 3), pointers("new", [None, point(1, 2), None]), num("end", "uint8", 5)])
    found = fields_of(vmsd)
    assert found["old"].value == [0x30] * 3
    assert [(c.type, c.value) for c in found["new"].children] == [
        ("ptr-marker", 0x30),
        ("ptr-marker", 0x31),
        ("struct", None),
        ("ptr-marker", 0x30),
    ]
    assert found["new"].value is None
    assert found["end"].value == 5


@pytest.mark.parametrize("type_", ["qtailq", "qlist"])
def test_lists(type_):
    vmsd = Vmsd(
        "d", 1, [qtailq("l", [point(1, 2), point(3, 4)], type_), qtailq("e", [], type_), num("end", "uint8", 5)]
    )
    found = fields_of(vmsd)
    assert list(tree(found["l"])) == [
        ("l", "array", 1000, 9, None),
        ("l[0]", "struct", 1001, 3, None),
        ("x", "leaf", 1001, 1, 1),
        ("y", "leaf", 1002, 2, 2),
        ("l[1]", "struct", 1005, 3, None),
        ("x", "leaf", 1005, 1, 3),
        ("y", "leaf", 1006, 2, 4),
    ]
    assert found["e"].children == ()
    assert found["end"].value == 5


def test_trees():
    key = Vmsd("key", 1, [num("k", "uint32", 77)])
    vmsd = Vmsd(
        "d", 1, [gtree("direct", [(5, POINT), (6, point(8, 9))]), gtree("described", [(key, POINT)]), gtree("none", [])]
    )
    found = fields_of(vmsd)
    assert [(c.name, c.kind.value, c.value) for c in found["direct"].children] == [
        ("direct[0].key", "leaf", 5),
        ("direct[0]", "struct", None),
        ("direct[1].key", "leaf", 6),
        ("direct[1]", "struct", None),
    ]
    first, second = found["described"].children
    assert first.children[0].value == 77
    assert [leaf.value for leaf in second.children] == [1, 2]
    assert found["none"].children == ()


def test_subsections_and_theirs():
    inner = Vmsd("d/s/t", 3, [num("q", "uint8", 4)])
    vmsd = Vmsd("d", 1, [num("a", "uint8", 1)], [Vmsd("d/s", 2, [num("b", "uint16", 2)], [inner]), Vmsd("d/u", 1, [])])
    found = fields_of(vmsd)
    sub = found["d/s"]
    assert (sub.kind, sub.type, sub.version_id, sub.offset) == (Kind.SUBSECTION, "subsection", 2, 1001)
    assert sub.length == 1 + 4 + 4 + 2 + (1 + 6 + 4 + 1)
    assert [c.name for c in sub.children] == ["b", "d/s/t"]
    assert sub.children[0].offset == 1001 + 9
    assert sub.children[1].children[0].value == 4
    assert found["d/u"].children == ()
    assert found["d/u"].offset == sub.offset + sub.length
    assert found["a"].version_id is None


def test_a_subsection_that_is_not_there():
    vmsd = Vmsd("d", 1, [num("a", "uint8", 1)], [Vmsd("d/s", 2, [num("b", "uint16", 2)])])
    good = vmsd.body()
    for at in (1, 2, 3, 5, 8):
        broken = bytearray(good)
        broken[at] ^= 1
        with pytest.raises(StreamError) as caught:
            fields_of(vmsd, bytes(broken))
        assert (caught.value.offset, caught.value.section) == (1001, "d")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (inline("l", "qtailq", [POINT], b"\x00" + POINT.body() + b"\x00"), "element 0 of l does not start with 01"),
        (inline("l", "qtailq", [POINT], b"\x01" + POINT.body() + b"\x01"), "l does not end with 00"),
        (inline("l", "qtailq", [POINT], b"\x01" + POINT.body() + b"\x00\x00"), "l does not end with 00"),
        (inline("l", "qtailq", [], b""), "l does not end with 00"),
        (inline("t", "gtree", [POINT], be32(3) + b"\x01" + POINT.body() + b"\0"), "3 elements and 1 descriptions"),
        (inline("t", "gtree", [POINT] * 3, be32(1) + b"\x01" + be64(1) + POINT.body() + b"\0"), "1 elements and 3"),
        (inline("t", "gtree", [], be32(0xFFFFFFFF) + b"\0"), "4294967295 elements"),
        (inline("t", "gtree", [POINT], be32(1) + b"\x02" + be64(1) + POINT.body() + b"\0"), "element 0 of t"),
    ],
)
def test_lists_that_do_not_fit(item, words):
    found = fields_of(Vmsd("d", 1, [item, raw("more", bytes(40))]))
    with pytest.raises(StreamError) as caught:
        found[item.entries[0][0][1]].children  # noqa: B018
    assert words in str(caught.value)
    assert 1000 <= caught.value.offset <= 1040


def test_a_struct_whose_size_does_not_add_up_stays_opaque():
    """s390_css of QEMU 7.2: 256 structs of one byte, described as {}."""
    wrong = Pairs([("name", "css"), ("array_len", 4), ("type", "struct"), ("struct", Pairs()), ("size", 1)])
    item = num("x", "uint8", 1)
    item.entries = [wrong]
    item.data = b"0000"
    found = fields_of(Vmsd("d", 1, [item]))
    assert found["css"].value == [b"0"] * 4
    short = _entry("s", "struct", 9, more=[("struct", POINT.pairs())])
    item.entries, item.data = [short], bytes(9)
    assert (fields_of(Vmsd("d", 1, [item]))["s"].kind, item.data) == (Kind.LEAF, bytes(9))


def test_reading_beyond_the_end_is_our_error():
    vmsd = Vmsd("d", 1, [raw("a", bytes(100)), qtailq("l", [POINT])])
    found = fields_of(vmsd, vmsd.body()[:60])
    for name in ("a", "l"):
        with pytest.raises(QmigError):
            found[name].raw  # noqa: B018
    with pytest.raises(QmigError):
        found["l"].children  # noqa: B018


def test_repr_says_where():
    assert repr(fields_of(POINT)["y"]) == "<Field 'y' uint16 leaf at 0x3e9, 2 bytes>"


def test_leaves_with_arrays_in_pieces_or_as_one():
    w = StreamWriter()
    vmsd = Vmsd("d", 1, [num("a", "uint8", 1), structs("m", [POINT] * 2), nums("n", "uint16", [1, 2, 3])])
    w.device(1, "d", 0, vmsd)
    found = fields_of(vmsd).values()
    structured = ["a", "m[0]/x", "m[0]/y", "m[1]/x", "m[1]/y"]
    pieces = dict(leaves(found))
    assert [*pieces] == [*structured, "n[0]", "n[1]", "n[2]"]
    assert [pieces[f"n[{i}]"].value for i in range(3)] == [1, 2, 3]
    whole = dict(leaves(found, "d/", whole_arrays=True))
    assert [*whole] == [f"d/{name}" for name in (*structured, "n")]
    assert whole["d/n"].value == [1, 2, 3]
    for one in (pieces, whole):
        assert sum(field.length for field in one.values()) == len(vmsd.body())
    assert [field.is_plain_array for field in found] == [False, False, True]


def test_every_leaf_covers_its_bytes_once():
    w = StreamWriter()
    vmsd = Vmsd("d", 1, [num("a", "uint8", 1), structs("m", [POINT] * 3), tmp("t", POINT), nums("n", "uint16", [1, 2])])
    w.device(1, "d", 0, vmsd)
    covered = []

    for _, field in leaves(fields_of(vmsd).values()):
        covered.extend(range(field.offset, field.offset + field.length))
    assert covered == list(range(1000, 1000 + len(vmsd.body())))
