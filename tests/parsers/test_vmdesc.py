"""The vmdesc: lengths by the rule, text styles, and JSON that QEMU never writes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import LimitError, QmigError, StreamError
from qmigtool.parsers.vmdesc import parse_vmdesc
from tests.support import samplefiles
from tests.support.streamwriter import (
    Pairs,
    StreamWriter,
    Vmsd,
    dump,
    gtree,
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

INNER = Vmsd("inner", 3, [num("x", "uint16", 1), num("y", "uint8", 2)])
SUB = Vmsd("dev/sub", 2, [num("z", "uint64", 5)], [Vmsd("dev/sub/deep", 1, [raw("b", b"123")])])
EVERYTHING = Vmsd(
    "dev",
    7,
    [
        num("flag", "bool", 1),
        nums("numbers", "int32 equal", [1, 2, 3]),
        nums("one", "uint8", [1]),
        raw("buffer", bytes(33)),
        struct_("nested", INNER),
        structs("array", [INNER] * 5),
        uncollapsed("loose", [INNER, Vmsd("inner", 3, [num("x", "uint16", 1)])], index="but-last"),
        tmp("temporary", INNER),
        qtailq("list", [INNER, INNER]),
        qtailq("empty", []),
        gtree("tree", [(5, INNER), (6, INNER)]),
        gtree("described", [(INNER, SUB)]),
        null_run("nulls", 4),
        pointers("pointers", [None, INNER, None]),
    ],
    [SUB],
)


def text_of(*devices, **more):
    w = StreamWriter()
    for i, device in enumerate(devices):
        w.device(i, device.name, 0, device)
    return w.vmdesc_text(**more)


@pytest.mark.parametrize("spaced", [False, True], ids=["6.0 style", "5.2 style"])
def test_lengths_are_those_of_the_bodies(spaced):
    found = parse_vmdesc(text_of(EVERYTHING, INNER, SUB, spaced=spaced))
    assert found.page_size == 4096
    assert [d.description.size for d in found.devices] == [len(v.body()) for v in (EVERYTHING, INNER, SUB)]
    assert [(d.idstr, d.instance_id, d.old_style) for d in found.devices] == [
        ("dev", 0, False),
        ("inner", 0, False),
        ("dev/sub", 0, False),
    ]
    assert found.devices[0].description.version == 7
    assert found.configuration is None


def test_worked_examples_of_the_facts():
    pcibus = (
        b'{"page_size": 4096, "devices": [{"name": "PCIBUS", "instance_id": 0, "vmsd_name": "PCIBUS", "version": 1, '
        b'"fields": [{"name": "nirq", "type": "int32 equal", "size": 4}, '
        b'{"name": "irq_count", "array_len": 4, "type": "int32", "size": 4}]}]}'
    )
    description = parse_vmdesc(pcibus).devices[0].description
    assert description.size == 20
    assert [(f.name, f.type, f.size, f.array_len, f.total) for f in description.fields] == [
        ("nirq", "int32 equal", 4, None, 4),
        ("irq_count", "int32", 4, 4, 16),
    ]


def test_inline_descriptions_are_one_per_element():
    fields = {f.name: f for f in parse_vmdesc(text_of(EVERYTHING)).devices[0].description.fields}
    assert [len(fields[name].inline) for name in ("temporary", "list", "empty", "tree", "described")] == [1, 2, 0, 2, 2]
    assert [d.name for d in fields["described"].inline] == ["inner", "dev/sub"]
    assert fields["nested"].inline == ()
    assert fields["nested"].struct.name == "inner"


def test_equal_parts_are_one_object():
    first, second = parse_vmdesc(text_of(EVERYTHING, EVERYTHING)).devices
    assert first.description is second.description


def test_old_style_and_configuration():
    w = StreamWriter()
    w.old_style(4, "slirp", 2, 4, bytes(131))
    text = dump(
        Pairs(
            [
                ("configuration", Vmsd("configuration", 1, [num("len", "uint32", 3), raw("name", b"abc")]).pairs()),
                ("page_size", 1024),
                ("devices", w.described),
            ]
        )
    ).encode()
    found = parse_vmdesc(text)
    assert found.page_size == 1024
    assert found.configuration.size == 7
    (device,) = found.devices
    assert (device.idstr, device.instance_id, device.old_style) == ("slirp", 2, True)
    assert device.description.size == 131
    assert [f.name for f in device.description.fields] == ["data"]


def test_strings_of_every_kind():
    """Escapes since 6.0; before, raw bytes, control characters and not even UTF-8."""
    new = parse_vmdesc(text_of(Vmsd('a"\\\n\u00e9\U0001f600', 1, [])))
    assert new.devices[0].idstr == 'a"\\\n\u00e9\U0001f600'
    old = b'{ "page_size" : 4096, "devices" : [ { "name" : "a\xff\n\x01", "instance_id" : 0, "fields" : [  ] } ] }'
    assert parse_vmdesc(old).devices[0].idstr.encode("utf-8", "surrogateescape") == b"a\xff\n\x01"


def one_field(entry: str) -> bytes:
    head = '{"page_size": 4096, "devices": [{"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1, "fields": ['
    return f"{head}{entry}]}}]}}".encode()


GOOD = '{"name": "f", "type": "buffer", "size": 4}'


def test_the_frame_of_the_hostile_ones_is_good():
    assert parse_vmdesc(one_field(GOOD)).devices[0].description.size == 4


@pytest.mark.parametrize("number", ["1.5", "1e3", "-0.0", "NaN", "Infinity", "-Infinity", "4.0"])
@pytest.mark.parametrize("key", ["size", "array_len"])
def test_numbers_that_are_not_whole(number, key):
    entry = GOOD.replace('"size": 4', '"array_len": 1, "size": 4').replace(
        f'"{key}": {"4" if key == "size" else "1"}', f'"{key}": {number}'
    )
    with pytest.raises(StreamError, match="a number") as caught:
        parse_vmdesc(one_field(entry), 0x500)
    assert (caught.value.offset, caught.value.section) == (0x500, "vmdesc")


@pytest.mark.parametrize("number", ["-1", str(1 << 48), str(1 << 64), "9" * 4000])
@pytest.mark.parametrize("key", ["size", "array_len"])
def test_numbers_that_are_negative_or_huge(number, key):
    entry = f'{{"name": "f", "type": "buffer", "size": 4, "{key}": {number}}}'
    if key == "size":
        entry = f'{{"name": "f", "type": "buffer", "size": {number}}}'
    with pytest.raises(LimitError) as caught:
        parse_vmdesc(one_field(entry), 7)
    assert caught.value.offset == 7
    assert len(str(caught.value)) < 200


def test_more_digits_than_python_converts():
    with pytest.raises(StreamError):
        parse_vmdesc(one_field(GOOD.replace("4", "9" * 100_000)))


@pytest.mark.parametrize(
    "entry",
    [
        '{"name": "f", "array_len": 16777217, "type": "uint8", "size": 1}',
        '{"name": "f", "array_len": 16777216, "type": "buffer", "size": 281474976710655}',
        '{"name": "f", "array_len": 1000000, "type": "buffer", "size": 0}',
        '{"name": "f", "array_len": 1000000, "type": "struct", "struct": {}, "size": 0}',
    ],
    ids=["elements", "bytes", "elements of nothing", "structs of nothing"],
)
def test_array_bombs(entry):
    with pytest.raises(LimitError):
        parse_vmdesc(one_field(entry))


def test_an_array_of_a_few_empty_elements_is_legal():
    entry = '{"name": "f", "array_len": 256, "type": "struct", "struct": {}, "size": 0}'
    assert parse_vmdesc(one_field(entry)).devices[0].description.size == 0


@pytest.mark.parametrize("depth", [70, 900, 100_000])
@pytest.mark.parametrize("kind", ["struct", "subsections", "inline", "array"])
def test_depth(depth, kind):
    sub = '{"name": "f", "type": "x", "size": 0, "vmsd_name": "a", "subsections": [{"vmsd_name": "b", "fields": ['
    head, tail = {
        "struct": ('{"name": "f", "type": "struct", "size": 0, "struct": {"fields": [', "]}}"),
        "subsections": (sub, "]}]}"),
        "inline": ('{"name": "f", "type": "tmp", "size": 0, "vmsd_name": "a", "fields": [', "]}"),
        "array": ("[", "]"),
    }[kind]  # fmt: skip
    with pytest.raises(StreamError):
        parse_vmdesc(one_field(head * depth + tail * depth))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"\0" * 50,
        b"\xff\xfe{}",
        b'{"page_size": 4096}',
        b'{"devices": []}',
        b'{"page_size": "4096", "devices": []}',
        b'{"page_size": true, "devices": []}',
        b'{"page_size": 0, "devices": []}',
        b'{"page_size": 4097, "devices": []}',
        b'{"page_size": 128, "devices": []}',
        b'{"page_size": 2097152, "devices": []}',
        b'{"page_size": 4096, "devices": 5}',
        b'{"page_size": 4096, "devices": [5]}',
        b'{"page_size": 4096, "devices": [[]]}',
        b'{"page_size": 4096, "devices": [{}]}',
        b'{"page_size": 4096, "devices": [{"name": 5, "instance_id": 0}]}',
        b'{"page_size": 4096, "devices": [{"name": "x", "instance_id": null}]}',
        b'{"page_size": 4096, "devices": [{"name": "x", "instance_id": 4294967296}]}',
        b'{"page_size": 4096, "devices": [{"name": "\\ud800", "instance_id": 0}]}',
        b'{"page_size": 4096, "devices": [], "configuration": 5}',
        one_field("5"),
        one_field("[]"),
        one_field('{"name": "f", "type": "x"}'),
        one_field('{"name": "f", "size": 4}'),
        one_field('{"type": "x", "size": 4}'),
        one_field('{"name": "f", "type": "struct", "struct": [], "size": 4}'),
        one_field('{"name": "f", "type": "struct", "struct": {"fields": {"a": 1}}, "size": 4}'),
        one_field('{"name": "\\udfff", "type": "x", "size": 4}'),
        one_field(GOOD) + b"x",
        b'{"page_size": 4096, "devices": [{"name": "d", "instance_id": 0, "version": 4294967296}]}',
    ],
)
def test_what_is_no_vmdesc(text):
    with pytest.raises(StreamError) as caught:
        parse_vmdesc(text, 0x99)
    assert (caught.value.offset, caught.value.section) == (0x99, "vmdesc")


def sub_named(name):
    text = '{"page_size": 4096, "devices": [{"name": "d", "instance_id": 0, "subsections": [{"vmsd_name": %s}]}]}'
    return (text % json.dumps(name)).encode()


def test_subsection_names_have_to_fit_their_length_byte():
    for name in ("", "x" * 256, "\u00e9" * 128):
        with pytest.raises(StreamError, match="subsection"):
            parse_vmdesc(sub_named(name))
    assert parse_vmdesc(sub_named("x" * 255)).devices[0].description.size == 261


def test_sizes_that_add_up_beyond_all_bounds():
    entry = '{"name": "f", "array_len": 16777216, "type": "buffer", "size": 16777215}'
    with pytest.raises(LimitError, match="a body of"):
        parse_vmdesc(one_field(", ".join([entry] * 2)))


def test_duplicate_keys_are_all_read_where_they_mean_elements_only():
    """Of any other key that comes twice, the first counts, as everywhere."""
    found = parse_vmdesc(one_field('{"name": "f", "type": "buffer", "size": 4, "size": 400, "name": "g"}'))
    assert found.devices[0].description.size == 4
    assert found.devices[0].description.fields[0].name == "f"


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 1 << 70), st.floats(), st.text(max_size=3), st.sampled_from(["struct"])
)
KEYS = st.sampled_from(
    ["name", "type", "size", "array_len", "struct", "fields", "subsections", "vmsd_name", "version", "devices",
     "page_size", "instance_id", "index"]
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=6)),
    max_leaves=30,
)


@pytest.mark.slow
@given(JSON)
@settings(max_examples=300, deadline=None)
def test_any_json(value):
    places = set()
    for text in (
        json.dumps(value),
        json.dumps({"page_size": 4096, "devices": [value, *([value] * isinstance(value, dict))]}),
    ):
        try:
            found = parse_vmdesc(text.encode())
        except QmigError as error:
            places.add(error.offset)
        else:
            assert all(device.description.size >= 0 for device in found.devices)
    assert places <= {0}


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_damage(at, change):
    text = bytearray(text_of(EVERYTHING))
    at %= len(text)
    text[at : at + len(change)] = change
    place = 3
    try:
        parse_vmdesc(bytes(text), 3)
    except StreamError as error:
        place = error.offset
    assert place == 3


@pytest.mark.parametrize("name", samplefiles.DESCRIBED)
def test_samples_add_up(name):
    """Structs inside are as long as their fields say; json, not our reader, is what the bytes are counted with."""
    data = samplefiles.read(name)
    start = data.rindex(b"\0\6", 0, data.rindex(b'"devices"')) + 6
    found = parse_vmdesc(data[start:])
    plain = json.loads(data[start:], object_pairs_hook=list)
    assert len(found.devices) == len(dict(plain)["devices"])

    def size(pairs):
        total = 0
        for key, value in pairs:
            if key == "fields":
                total += sum(dict(f)["size"] * dict(f).get("array_len", 1) for f in value)
            elif key == "subsections":
                total += sum(6 + len(dict(sub)["vmsd_name"]) + size(sub) for sub in value)
        return total

    assert [d.description.size for d in found.devices] == [size(pairs) for pairs in dict(plain)["devices"]]
