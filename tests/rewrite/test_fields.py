"""Fields that get another value: the right bytes, at the right place, and no other."""

import pytest

import qmigtool
from qmigtool.errors import QmigError, UsageError
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import assert_true, differing, rewritten, sample, stream_of
from tests.support.packedsamples import NAMES as PACKED
from tests.support.samplefiles import X86
from tests.support.streamwriter import Vmsd, gtree, num, nums, qtailq, raw, struct_, structs, tmp, uncollapsed

UNSIGNED = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "uint8 equal": 8, "uint16 equal": 16}
UNSIGNED |= {"uint32 equal": 32, "uint64 equal": 64, "int64 equal": 64, "CPU_Double_U": 64, "nullptr": 8}
SIGNED = {"int8": 8, "int16": 16, "int32": 32, "int64": 64, "int32 equal": 32, "int32 le": 32, "timer": 64}

POINT = [("x", "uint16", 0x1111), ("y", "int32", -2)]


def point(x=0x1111, y=-2, *subsections):
    return Vmsd("point", 1, [num("x", "uint16", x), num("y", "int32", y)], subsections)


def sub(z=5, flag=0):
    return Vmsd("dev/sub", 2, [num("z", "uint64", z), num("flag", "bool", flag)])


def dev(**changed):
    """One of everything; ``changed`` fields have another value."""
    fields = {
        **{name: num(name, name, 3) for name in UNSIGNED | SIGNED},
        "flag": num("flag", "bool", 0),
        "odd": num("odd", "bool", 7),
        "list": nums("list", "int32", [1, -2, 3]),
        "flags": nums("flags", "bool", [0, 1, 0]),
        "buffer": raw("buffer", b"buffer"),
        "bitmap": raw("bitmap", b"\1\2\3\4", "bitmap"),
        "struct": struct_("struct", point()),
        "array": structs("array", [point(1, 1), point(2, 2), point(3, 3)]),
        "indexed": uncollapsed("indexed", [point(1, 1), point(2, 2, sub())]),
        "hidden": tmp("hidden", point()),
        "queue": qtailq("queue", [point(1, 1), point(2, 2)]),
        "tree": gtree("tree", [(7, point(1, 1)), (8, point(2, 2))]),
        "sub": sub(),
        "name/with/slashes": num("name/with/slashes", "uint8", 4),
        "twice[0]": num("twice[0]", "uint8", 5),
        "twice[1]": num("twice[1]", "uint8", 6),
    }
    fields |= {name.replace("_", "/") if name == "name_with_slashes" else name: one for name, one in changed.items()}
    return Vmsd("dev", 1, [one for one in fields.values() if not isinstance(one, Vmsd)], [fields["sub"]])


BEFORE, AFTER = ("other", 0, Vmsd("other", 1, [num("n", "uint32", 1)])), ("dev", 2, dev())


def stream(**changed):
    return stream_of(BEFORE, ("dev", 1, dev(**changed)), AFTER)


def check(path, value, changed):
    wanted = stream(**changed)
    done = rewritten(stream(), lambda r: r.set(f"dev@1/{path}", value))
    assert done.data == wanted
    return done


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", UNSIGNED)
def test_numbers_without_a_sign(type_):
    top = (1 << UNSIGNED[type_]) - 1
    for value in (0, 1, top - 1, top, hex(top), str(top), f"0b{top:b}", "0"):
        number = int(value, 0) if isinstance(value, str) else value
        check(type_, value, {type_: num(type_, type_, number)})
    for value in (-1, top + 1, "-1", hex(top + 1), 1 << 70):
        refused(type_, value)


@pytest.mark.parametrize("type_", SIGNED)
def test_numbers_with_a_sign(type_):
    top = (1 << SIGNED[type_] - 1) - 1
    for value in (0, -1, top, -top - 1, "-1", hex(top), hex(-top - 1)):
        number = int(value, 0) if isinstance(value, str) else value
        check(type_, value, {type_: num(type_, type_, number)})
    for value in (top + 1, -top - 2, hex(top + 1), str(-top - 2)):
        refused(type_, value)


def refused(path, value, error=UsageError):
    """It raises, says nothing was changed, and the draft is what it was."""
    with qmigtool.open(stream()) as opened:
        rewriter = Rewriter(opened)
        with pytest.raises(error) as caught:
            rewriter.set(f"dev@1/{path}", value)
        assert rewriter.changes == []
        assert rewriter.splices() == []
        return str(caught.value)


@pytest.mark.parametrize("value", ["", "x", "0x", "1.5", "1e3", "true", None, 1.5, [1], {"a": 1}, b"1", b"", "hex:0"])
def test_what_is_no_number(value):
    refused("uint32", value)


def test_the_message_says_what_would_fit():
    assert "-128 to 127" in refused("int8", 128)
    assert "0 to 255" in refused("uint8", 256)


@pytest.mark.parametrize(
    ("value", "byte"),
    [(True, 1), (False, 0), (1, 1), (0, 0), ("true", 1), ("True", 1), ("false", 0), ("1", 1), ("0", 0), (b"\2", 2)],
)
def test_bools(value, byte):
    check("flag", value, {"flag": num("flag", "bool", byte)})
    check("odd", value, {"odd": num("odd", "bool", byte)})


@pytest.mark.parametrize("value", ["yes", "2", "", 2, -1, 1.0, None, [], [True], {}, b"", b"\0\1"])
def test_what_is_no_bool(value):
    refused("flag", value)


# -- what is longer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"others", "hex:6f7468657273", "hex:6F 74 68 65 72 73"])
def test_a_buffer(value):
    check("buffer", value, {"buffer": raw("buffer", b"others")})


@pytest.mark.parametrize("value", ["others", 5, b"short", b"longer?", "hex:6f", "hex:xy", ["o"], True, None])
def test_what_a_buffer_does_not_take(value):
    refused("buffer", value)


def test_arrays():
    check("list", [-1, "0x7f", 0], {"list": nums("list", "int32", [-1, 0x7F, 0])})
    check("list", (4, 5, 6), {"list": nums("list", "int32", [4, 5, 6])})
    check("list[1]", 99, {"list": nums("list", "int32", [1, 99, 3])})
    check("list", {"list[2]": 99}, {"list": nums("list", "int32", [1, -2, 99])})
    check("list", "hex:000000010000000200000004", {"list": nums("list", "int32", [1, 2, 4])})
    check("flags", [True, "false", 1], {"flags": nums("flags", "bool", [1, 0, 1])})
    for value in ([], [1, 2], [1, 2, 3, 4], [1, 2, "x"], [1, 2, 1 << 31], "1", 5, None, {"list[3]": 1}, "hex:00"):
        refused("list", value)
    for path in ("list[3]", "list[-1]", "list[x]", "list[1", "list[1]x", "list[1]/x"):
        refused(path, 1)


def test_structs():
    check("struct", {"x": 9}, {"struct": struct_("struct", point(9))})
    check("struct", {"y": -9, "x": "0xffff"}, {"struct": struct_("struct", point(0xFFFF, -9))})
    check("struct/y", -1, {"struct": struct_("struct", point(y=-1))})
    check("struct", "hex:0001ffffffff", {"struct": struct_("struct", point(1, -1))})
    check("struct", {"x": b"\0\7", "y": "hex:00000008"}, {"struct": struct_("struct", point(7, 8))})
    check("hidden/x", 9, {"hidden": tmp("hidden", point(9))})
    check("hidden", {"x": 9}, {"hidden": tmp("hidden", point(9))})
    for value in ({"z": 1}, {"x": 1 << 16}, {"x": {"y": 1}}, [1, 2], 5, "text", None, "hex:00"):
        refused("struct", value)


def test_arrays_of_structs():
    three = [point(1, 1), point(2, 2), point(3, 3)]
    check("array[1]/y", 7, {"array": structs("array", [three[0], point(2, 7), three[2]])})
    check("array[2]", {"x": 7}, {"array": structs("array", [*three[:2], point(7, 3)])})
    check("array", [{"x": 4}, {}, {"y": 5}], {"array": structs("array", [point(4, 1), three[1], point(3, 5)])})
    check("array", {"array[0]": {"x": 4}}, {"array": structs("array", [point(4, 1), *three[1:]])})
    check("array[1]", "hex:000500000006", {"array": structs("array", [three[0], point(5, 6), three[2]])})
    check("indexed[1]/x", 9, {"indexed": uncollapsed("indexed", [point(1, 1), point(9, 2, sub())])})
    check("indexed[1]/dev/sub/z", 9, {"indexed": uncollapsed("indexed", [point(1, 1), point(2, 2, sub(9))])})
    nested = {"dev/sub": {"flag": True}, "x": 1}
    check("indexed", [{}, nested], {"indexed": uncollapsed("indexed", [point(1, 1), point(1, 2, sub(flag=1))])})
    for value in ([{}], [{}, {}, {"z": 1}], [1, 2, 3], {"array[3]": {}}):
        refused("array", value)


def test_lists():
    """Of what QEMU keeps as a list an element can change, and the whole of it as bytes."""
    check("queue[1]/x", 9, {"queue": qtailq("queue", [point(1, 1), point(9, 2)])})
    check("queue[0]", {"y": 9}, {"queue": qtailq("queue", [point(1, 9), point(2, 2)])})
    tree = gtree("tree", [(7, point(9, 1)), (9, point(2, 2))])
    check("tree", "hex:" + tree.data.hex(), {"tree": tree})
    wanted = qtailq("queue", [point(5, 5), point(6, 6)])
    check("queue", wanted.data, {"queue": wanted})
    for value in ([{}], [{}, {}], [{}, {}, {}], 5):
        refused("queue", value)


def test_subsections():
    check("dev/sub/z", 9, {"sub": sub(9)})
    check("dev/sub", {"z": "0x9", "flag": True}, {"sub": sub(9, 1)})
    for value in (5, [1, 2], {"x": 1}, "hex:00"):
        refused("dev/sub", value)


def test_names_that_look_like_paths():
    check("name/with/slashes", 9, {"name_with_slashes": num("name/with/slashes", "uint8", 9)})
    check("twice[1]", 9, {"twice[1]": num("twice[1]", "uint8", 9)})


@pytest.mark.parametrize(
    "path",
    [
        *(
            "dev@1",
            "dev",
            "dev@1/",
            "dev@1/none",
            "dev@2x/uint8",
            "dev@3/uint8",
            "none/uint8",
            "",
            "/",
            "@",
            "dev@1/sub",
        ),
        *("dev@1/struct/none", "dev@1/uint8/x", "ram", "dev@1/array[9]/x", "configuration/machine"),
    ],
)
def test_paths_that_lead_nowhere(path):
    with qmigtool.open(stream()) as opened:
        rewriter = Rewriter(opened)
        with pytest.raises(UsageError):
            rewriter.set(path, 1)
        assert rewriter.splices() == []


# -- what is said -----------------------------------------------------------------------------------------------------


def test_changes_say_offset_old_and_new():
    source = stream()
    body = source.index(b"\x03dev\0\0\0\x01\0\0\0\1") + len(b"\x03dev\0\0\0\x01\0\0\0\1")
    assert source[body : body + 1] == b"\x03"  # uint8
    at = {name: body + offset for name, offset in (("uint8", 0), ("uint16", 1), ("uint32", 3), ("uint64", 7))}
    done = rewritten(
        source,
        lambda r: r.set("dev@1/uint16", 0xABCD),
        lambda r: r.set("dev@1/uint64", "5"),
        lambda r: r.set("dev@1/uint16", 0xABCE),
        lambda r: r.set("dev/buffer", b"others"),
        lambda r: r.set("dev@1/list", [1, -2, 4]),
        lambda r: r.set("dev@1/dev/sub/flag", "true"),
        lambda r: r.set("dev@1/struct", {"x": 0x2222}),
    )
    found = [(c.edit, c.where, c.old, c.new) for c in done.changes]
    assert found == [
        ("set", "dev@1/uint16", 3, 0xABCD),
        ("set", "dev@1/uint64", 3, 5),
        ("set", "dev@1/uint16", 0xABCD, 0xABCE),
        ("set", "dev@1/buffer", b"buffer", b"others"),
        ("set", "dev@1/list", [1, -2, 3], [1, -2, 4]),
        ("set", "dev@1/dev/sub/flag", False, True),
        ("set", "dev@1/struct/x", 0x1111, 0x2222),
    ]
    offsets = [c.offset for c in done.changes]
    assert offsets[:3] == [at["uint16"], at["uint64"], at["uint16"]]
    assert source[offsets[3] : offsets[3] + 6] == b"buffer"
    assert source[offsets[4] : offsets[4] + 12] == b"\0\0\0\1\xff\xff\xff\xfe\0\0\0\3"
    assert source[offsets[6] : offsets[6] + 6] == b"\x11\x11\xff\xff\xff\xfe"
    changed = differing(source, done.data)
    assert {at["uint16"], at["uint16"] + 1, at["uint64"] + 7} <= changed
    assert len(changed) == 2 + 1 + sum(a != b for a, b in zip(b"buffer", b"others", strict=True)) + 1 + 1 + 2


def test_what_is_so_already_is_no_change():
    done = rewritten(
        stream(),
        lambda r: r.set("dev@1/uint8", 3),
        lambda r: r.set("dev@1/list", [1, -2, 3]),
        lambda r: r.set("dev@1/struct", {}),
    )
    assert (done.data, done.changes, done.splices) == (stream(), [], [])


def test_there_and_back_is_the_same():
    done = rewritten(stream(), lambda r: r.set("dev@1/uint8", 4), lambda r: r.set("dev@1/uint8", 3))
    assert (done.data, done.splices) == (stream(), [])
    assert [(c.old, c.new) for c in done.changes] == [(3, 4), (4, 3)]


def test_the_first_instance_is_meant_where_none_is_named():
    done = rewritten(stream(), lambda r: r.set("dev/uint8", 9))
    assert done.data == stream(uint8=num("uint8", "uint8", 9))


# -- real streams -----------------------------------------------------------------------------------------------------

OTHERS = [n for n in PACKED if not n.startswith(("mapped", "dirtybitmap", "xbzrle", "block", "bgsnap", "s390x"))]


@pytest.mark.parametrize("name", [*X86, *OTHERS])
def test_the_last_leaf_of_every_device_of_a_real_stream(name):
    """Flip the bits of one leaf in each device at once: the vmdesc stays, and exactly those bytes are others."""
    source = sample(name).read_bytes()
    wanted, edits = bytearray(source), []
    with qmigtool.open(sample(name)) as opened:
        for device in opened.devices:
            if device.description is None:
                continue
            leaf = next((f for f in reversed(device.fields) if str(f.kind) == "leaf" and 1 <= f.length <= 8), None)
            if leaf is None or device.field(leaf.name).offset != leaf.offset:
                continue
            new = bytes(0xFF - byte for byte in leaf.raw)
            wanted[leaf.offset : leaf.offset + leaf.length] = new
            edits.append((f"{device.label}/{leaf.name}", leaf.offset, new))
    assert edits
    done = rewritten(sample(name), lambda r: [r.set(path, "hex:" + new.hex()) for path, _, new in edits])
    assert done.data == wanted
    assert [c.offset for c in done.changes] == [offset for _, offset, _ in edits]
    assert len(done.splices) >= len(edits) / 2


def test_a_stream_of_vcpus():
    source = sample("pc-7.2")
    done = rewritten(
        source,
        lambda r: r.set("cpu@2/env.mxcsr", "0x1fa0"),
        lambda r: r.set("cpu@2/env.regs[3]", (1 << 64) - 1),
        lambda r: r.set("cpu@2/env.segs[1]", {"base": 0x1000, "limit": "0xffff"}),
    )
    assert_true(done.data)
    with qmigtool.open(done.data) as new, qmigtool.open(source) as old:
        assert new.vcpus[2].mxcsr == 0x1FA0
        assert new.field("cpu@2/env.regs[3]").value == (1 << 64) - 1
        assert new.field("cpu@2/env.segs[1]/base").value == 0x1000
        assert new.field("cpu@2/env.segs[1]/limit").value == 0xFFFF
        for name in ("selector", "flags"):
            path = f"cpu@2/env.segs[1]/{name}"
            assert new.field(path).value == old.field(path).value
    with qmigtool.open(source) as old, pytest.raises(QmigError):
        Rewriter(old).set("cpu@4/env.mxcsr", 0)


# -- text in buffers --------------------------------------------------------------------------------------------------


def test_a_buffer_of_text_takes_text():
    done = check("buffer", "text:ab", {"buffer": raw("buffer", b"ab\0\0\0\0")})
    again = rewritten(done.data, lambda r: r.set("dev@1/buffer", "cdefg"))
    assert again.data == stream(buffer=raw("buffer", b"cdefg\0"))
    assert [(one.old, one.new) for one in again.changes] == [("ab", "cdefg")]


@pytest.mark.parametrize("now", [b"\0\0\0\0\0\0", b"buffer", b"a\0b\0\0\0", b"\xff\0\0\0\0\0", b"\n\0\0\0\0\0"])
def test_a_buffer_of_anything_else_takes_text_only_where_that_is_said(now):
    source = stream(buffer=raw("buffer", now))
    with pytest.raises(UsageError, match="text:"):
        rewritten(source, lambda r: r.set("dev@1/buffer", "ab"))
    done = rewritten(source, lambda r: r.set("dev@1/buffer", "text:ab"))
    assert done.data == stream(buffer=raw("buffer", b"ab\0\0\0\0"))


@pytest.mark.parametrize("value", ["text:abcdef", "abcdef", "12", "0x5", "-1"])
def test_text_that_does_not_fit_and_numbers(value):
    with pytest.raises(UsageError):
        rewritten(stream(buffer=raw("buffer", b"ab\0\0\0\0")), lambda r: r.set("dev@1/buffer", value))


@pytest.mark.parametrize("now", [b"s2e", b"\xff" * 32, b""])
def test_the_run_state_is_text_whatever_it_is_now(now):
    def globalstate(text):
        return stream_of(("globalstate", 0, Vmsd("globalstate", 1, [raw("runstate", text.ljust(32, b"\0"))])))

    done = rewritten(globalstate(now), lambda r: r.set("globalstate/runstate", "paused"))
    assert done.data == globalstate(b"paused")
