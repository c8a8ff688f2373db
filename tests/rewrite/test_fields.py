"""Fields that get another value: the right bytes, at the right place, and no other."""

import pytest

import qmigtool
from qmigtool.errors import QmigError, UsageError
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import assert_true, differing, rewritten, sample, stream_of
from tests.rewrite.points import check, point, refused, stream, sub
from tests.support.packedsamples import NAMES as PACKED
from tests.support.samplefiles import X86
from tests.support.streamwriter import Vmsd, gtree, num, nums, qtailq, raw, struct_, structs, tmp, uncollapsed


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


@pytest.mark.parametrize("now", [b"s2e", b"\xff" * 32, b""])
def test_the_run_state_is_text_whatever_it_is_now(now):
    def globalstate(text):
        return stream_of(("globalstate", 0, Vmsd("globalstate", 1, [raw("runstate", text.ljust(32, b"\0"))])))

    done = rewritten(globalstate(now), lambda r: r.set("globalstate/runstate", "paused"))
    assert done.data == globalstate(b"paused")
