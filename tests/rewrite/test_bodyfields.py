"""Fields that come or go: the stream is then what it would be, had its machine been one with the other condition."""

import pytest

import qmigtool
from qmigtool.errors import QmigError, UsageError
from qmigtool.parsers.vmstate import INTEGERS, encode_field
from tests.rewrite.editing import assert_true, rewritten, sample, stream_of
from tests.support.streamwriter import Vmsd, num, nums, raw, struct_, structs, uncollapsed

COND = num("cond", "uint32", 0)
SUB = "dev/sub"


def point(*more):
    return Vmsd("point", 1, [num("x", "uint16", 0x1111), *more, num("y", "int32", -2)])


def dev(*, first=(), middle=(), last=(), inner=(), sub=(), element=()):
    """A device with fields where it may have one more: ``first`` of all, and so on."""
    return Vmsd(
        "dev",
        3,
        [
            *first,
            num("a", "uint32", 0xAAAAAAAA),
            *middle,
            struct_("struct", point(*inner)),
            uncollapsed("array", [point(), point(*element)]),
            raw("buffer", b"buffer"),
            *last,
        ],
        [Vmsd(SUB, 2, [num("z", "uint64", 5), *sub])],
    )


def stream(**changed):
    other = ("other", 0, Vmsd("other", 1, [num("n", "uint32", 1)]))
    return stream_of(other, ("dev", 1, dev(**changed)), ("dev", 2, dev()))


PLACES = {
    # where -> (path, after)
    "first": ("cond", ""),
    "middle": ("cond", "a"),
    "last": ("cond", None),
    "inner": ("struct/cond", "x"),
    "element": ("array[1]/cond", "x"),
    "sub": (f"{SUB}/cond", None),
}


@pytest.mark.parametrize("where", PLACES)
def test_a_field_is_put_in_and_left_out(where):
    path, after = PLACES[where]
    done = rewritten(stream(), lambda r: r.add_field(f"dev@1/{path}", "uint32", after=after))
    assert done.data == stream(**{where: [COND]})
    assert_true(done.data)
    assert [(one.edit, one.where, one.old, one.new) for one in done.changes] == [
        ("add-field", f"dev@1/{path}", None, 0)
    ]
    back = rewritten(done.data, lambda r: r.drop_field(f"dev@1/{path}"))
    assert back.data == stream()
    change = back.changes[0]
    assert (change.edit, change.where, change.old, change.new) == ("drop-field", f"dev@1/{path}", 0, None)
    with qmigtool.open(done.data) as found:
        assert change.offset == found.field(f"dev@1/{path}").offset


@pytest.mark.parametrize(
    ("kind", "value", "item"),
    [
        ("uint8", "0x5a", num("cond", "uint8", 0x5A)),
        ("int64", -5, num("cond", "int64", -5)),
        ("bool", True, num("cond", "bool", 1)),
        ("timer", -1, num("cond", "timer", -1)),
        ("uint8[4]", [1, 2, 3, 4], nums("cond", "uint8", [1, 2, 3, 4])),
        ("buffer:6", "hex:010203040506", raw("cond", b"\1\2\3\4\5\6")),
        ("buffer:6", "text:abc", raw("cond", b"abc\0\0\0")),
        ("qtailq:1", None, raw("cond", b"\0", "qtailq")),
        ("gtree:5", None, raw("cond", bytes(5), "gtree")),
        ("pci irq state:16", None, raw("cond", bytes(16), "pci irq state")),
    ],
)
def test_types_and_values(kind, value, item):
    done = rewritten(stream(), lambda r: r.add_field("dev@1/cond", kind, value))
    assert done.data == stream(last=[item])


@pytest.mark.parametrize(
    "kind",
    [
        *("gtree:9", "gtree:4", "qtailq:2", "qlist:9", "qtailq:9[2]"),
        *("struct:4", "subsection:4", "uint32:3", "uint32:8[2]", "bool:4", "capability:3"),
    ],
)
def test_a_type_that_could_not_be_read_back(kind):
    with qmigtool.open(stream()) as opened:
        rewriter = qmigtool.Rewriter(opened)
        with pytest.raises(UsageError, match="cannot be read") as caught:
            rewriter.add_field("dev@1/cond", kind)
        assert "uint8, uint16, uint32" in (caught.value.expected or "")
        assert not rewriter.changes
        assert not rewriter.splices()


def test_every_field_that_is_added_reads_back():
    """From the bytes of the output, with the description in it."""
    for kind in (*INTEGERS, "bool", "buffer:9", "qlist:1", "gtree:5", "uint8[3]", "a type of my own:7"):
        done = rewritten(stream(), lambda r, kind=kind: r.add_field("dev@1/cond", kind))
        with qmigtool.open(done.data) as found:
            field = found.field("dev@1/cond")
            assert encode_field(field) == field.raw == bytes(field.length), kind
            assert field.type == kind.partition(":")[0].partition("[")[0]


def test_a_struct_that_is_known(call, tmp_path):
    """From what the package knows of QEMU: type, description and place."""
    none = Vmsd("piix4_pm", 3, [num("ar.pm1.cnt.cnt", "uint16", 1), num("ar.tmr.timer", "timer", -1)])
    source = tmp_path / "in"
    source.write_bytes(stream_of(("0000:00:01.3/piix4_pm", 0, none)))
    path = "0000:00:01.3/piix4_pm@0/smb"
    options = (
        "--add-field",
        path,
        "",
        "--add-field",
        "piix4_pm/acpi_pci_hotplug.acpi_index".replace("piix4_pm/", "0000:00:01.3/piix4_pm/"),
        "",
    )
    assert call("rewrite", source, *options, "-o", tmp_path / "out")[0] == 0
    with qmigtool.open(tmp_path / "out") as found:
        device = found.device("0000:00:01.3/piix4_pm@0")
        assert [one.name for one in device.fields] == [
            "ar.pm1.cnt.cnt", "smb", "ar.tmr.timer", "acpi_pci_hotplug.acpi_index",
        ]  # fmt: skip
        assert device.field("smb").struct_name == "pmsmb"
        assert device.body == bytes.fromhex("0001") + bytes(48) + b"\xff" * 8 + bytes(4)
    given = rewritten(source, lambda r: r.add_field(path, "pmsmb", after="ar.pm1.cnt.cnt"))
    assert given.data == rewritten(source, lambda r: r.add_field(path)).data


def test_the_command_line_and_toml_are_one(call, tmp_path):
    source, plan = tmp_path / "in", tmp_path / "plan.toml"
    source.write_bytes(stream())
    plan.write_text("[[edit]]\nop = 'add-field'\npath = 'dev@1/cond'\ntype = 'uint32'\nafter = 'a'\nvalue = 7\n")
    wanted = stream(middle=[num("cond", "uint32", 7)])
    for options in (("--edits", plan), ("--add-field", "dev@1/cond", "uint32,after=a=7")):
        assert call("rewrite", source, *options, "-o", tmp_path / "out")[0] == 0
        assert (tmp_path / "out").read_bytes() == wanted
    assert call("rewrite", tmp_path / "out", "--drop-field", "dev@1/cond", "-o", tmp_path / "back")[0] == 0
    assert (tmp_path / "back").read_bytes() == stream()


def test_a_whole_array_goes():
    whole = rewritten(stream(), lambda r: r.drop_field("dev@1/array")).data
    with qmigtool.open(whole) as found:
        assert [one.name for one in found.device("dev@1").fields] == ["a", "struct", "buffer", SUB]
    assert_true(whole)


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.add_field("dev@1/a", "uint32"),  # there is one
        lambda r: r.add_field("dev@1/cond"),  # nothing is known of it
        lambda r: r.add_field("dev@1/cond", "uint31"),
        lambda r: r.add_field("dev@1/cond", "uint8[0]"),
        lambda r: r.add_field("dev@1/cond", "buffer:0"),
        lambda r: r.add_field("dev@1/cond", "buffer:999999999"),
        lambda r: r.add_field("dev@1/cond", "uint32[9999999]"),
        lambda r: r.add_field("dev@1/cond", "uint32", after="nothing"),
        lambda r: r.add_field("dev@1/cond", "uint8", 256),
        lambda r: r.add_field("dev@1/cond", "buffer:4", "12"),
        lambda r: r.add_field("dev@1", "uint32"),
        lambda r: r.add_field("nothing@1/cond", "uint32"),
        lambda r: r.drop_field("dev@1"),
        lambda r: r.drop_field("dev@1/nothing"),
        lambda r: r.drop_field("dev@1/array[1]"),
        lambda r: r.drop_field(f"dev@1/{SUB}"),
    ],
)
def test_refused_and_nothing_is_changed(edit):
    with qmigtool.open(stream()) as opened:
        rewriter = qmigtool.Rewriter(opened)
        with pytest.raises(UsageError):
            edit(rewriter)
        assert not rewriter.changes
        assert not rewriter.splices()


def test_an_old_style_section_has_no_fields():
    from tests.rewrite.editing import writer

    w = writer()
    w.old_style(9, "old", 0, 1, b"bytes")
    with pytest.raises(QmigError):
        rewritten(w.finish(), lambda r: r.add_field("old@0/cond", "uint32"))


def test_arrays_of_structs_stay_arrays():
    """A field of one element parts the array into two entries of the vmdesc, as QEMU writes such arrays."""
    same = Vmsd("dev", 1, [structs("list", [point(), point(), point()])])
    more = Vmsd("dev", 1, [uncollapsed("list", [point(), point(), point(COND)], index="none")])
    source = stream_of(("dev", 0, same))
    done = rewritten(source, lambda r: r.add_field("dev@0/list[2]/cond", "uint32", after="x"))
    assert_true(done.data)
    with qmigtool.open(done.data) as found:
        assert found.device("dev@0").body == more.body()


# -- a stream that describes nothing --------------------------------------------------------------------------------


def undecoded(data):
    with qmigtool.open(data) as found:
        return [device.label for device in found.devices if device.description is None]


@pytest.mark.parametrize(
    ("edit", "label"),
    [
        (lambda r: r.add_field("cpu@0/new", "uint32"), "cpu@0"),
        (lambda r: r.drop_field("cpu@1/env.cstar"), "cpu@1"),
        (lambda r: r.add_field("pcspk@0/new", "uint8", 1, after=""), "pcspk@0"),
        (lambda r: r.set_version("pcspk@0", 77), "pcspk@0"),
    ],
    ids=["add", "drop", "first", "version"],
)
def test_a_shape_that_no_reader_will_know_is_told(edit, label):
    done = rewritten(sample("novmdesc-7.2"), edit)
    (note,) = done.notes
    assert note.startswith(f"{label}: no shape in the schema ")
    assert "has no vmdesc to describe it: qmigtool will not decode the section" in note
    assert undecoded(done.data) == [label]


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.drop_subsection("cpu@0/cpu/poll_control_msr"),
        lambda r: r.add_subsection("cpu@0", "cpu/xss"),
        lambda r: r.set("cpu@0/env.xcr0", 1),
        lambda r: r.drop_section("pcspk@0"),
    ],
    ids=["drop-subsection", "add-subsection", "set", "drop-section"],
)
def test_what_is_known_to_come_and_go_is_not(edit):
    done = rewritten(sample("novmdesc-7.2"), edit)
    assert done.notes == []
    assert undecoded(done.data) == []


def test_a_shape_that_is_read_as_another_is_told():
    """A field of as many bytes in the place of another: what fits is not what was meant."""
    with qmigtool.open(sample("novmdesc-7.2")) as stream:
        rewriter = qmigtool.Rewriter(stream)
        rewriter.drop_field("pcspk@0/dummy_refresh_clock")
        rewriter.add_field("pcspk@0/other", "uint8")
        rewriter.splices()
        (note,) = rewriter.notes
    assert note.startswith("pcspk@0: another shape in the schema ")
    assert "qmigtool will read other fields there" in note


def test_a_vmdesc_describes_what_no_schema_knows():
    assert rewritten(sample("pc-7.2"), lambda r: r.add_field("cpu@0/new", "uint32")).notes == []


def test_with_neither_footers_nor_a_vmdesc_its_end_would_be_lost(tmp_path):
    source = sample("novmdesc-nofooter-7.2")
    with qmigtool.open(source) as stream:
        rewriter = qmigtool.Rewriter(stream)
        rewriter.add_field("pcspk@0/new", "uint8")
        with pytest.raises(UsageError, match="only its shape shows where it ends") as raised:
            rewriter.splices()
        assert "--add-footers" in (raised.value.expected or "")
        rewriter.add_footers()
        rewriter.save(tmp_path / "out")
        assert any("pcspk@0" in note for note in rewriter.notes)
    assert undecoded(tmp_path / "out") == ["pcspk@0"]


def test_a_schema_that_has_the_shape_decodes_it(call, tmp_path):
    """As the note says: learned from a stream that describes the field."""
    described = rewritten(sample("pc-7.2"), lambda r: r.add_field("pcspk@0/new", "uint8")).data
    (tmp_path / "described").write_bytes(described)
    assert call("schema", "learn", sample("pc-7.2"), tmp_path / "described", "-o", tmp_path / "schema.json")[0] == 0
    arguments = ["--schema", tmp_path / "schema.json", "--add-field", "pcspk@0/new", "uint8", "-o", tmp_path / "out"]
    status, _, err = call("rewrite", sample("novmdesc-7.2"), *arguments)
    assert (status, "no shape" in err) == (0, False)
    status, out, _ = call("show", tmp_path / "out", "pcspk@0", "--schema", tmp_path / "schema.json")
    assert status == 0
    assert "new" in out
