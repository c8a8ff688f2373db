"""Sections and subsections that come, go, or get another name: the bytes, and the vmdesc that says so."""

from dataclasses import replace

import pytest

import qmigtool
from qmigtool.errors import QmigError, UnsupportedError, UsageError
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import (
    assert_true,
    bodies,
    described,
    full_sections,
    get,
    pairs_of,
    rewritten,
    sample,
    size_of,
    stream_of,
    subsection_bytes,
    writer,
)
from tests.rewrite.structures import DEEP, LATE, MORE, OTHER, RATE, added, around, check, dev, drive
from tests.support import packedsamples, samplefiles
from tests.support.streamwriter import (
    PAGE,
    Item,
    StreamWriter,
    Vmsd,
    be32,
    eos,
    mem_size,
    num,
    page,
    qtailq,
    raw,
    struct_,
    structs,
    uncollapsed,
    x86_cpu,
    zero,
)

SEEK = Vmsd("fdrive/seek", 2, [num("at", "uint16", 0x1234)])


EDITS = {
    "drop the last": (dev(), lambda r: r.drop_subsection("dev@1/dev/late"), dev(subsections=[MORE])),
    "drop one with one inside": (dev(), lambda r: r.drop_subsection("dev@1/dev/more"), dev(subsections=[LATE])),
    "drop the inner one": (
        dev(),
        lambda r: r.drop_subsection("dev/dev/more/dev/more/deep"),
        dev(subsections=[replace(MORE, subsections=()), LATE]),
    ),
    "drop all": (
        dev(),
        lambda r: (r.drop_subsection("dev/dev/more"), r.drop_subsection("dev/dev/late")),
        dev(subsections=[]),
    ),
    "add at the end": (
        dev(),
        lambda r: r.add_subsection("dev@1", "dev/new", data=b"\1\2\3"),
        dev(subsections=[MORE, LATE, Vmsd("dev/new", 1, [raw("data", b"\1\2\3")])]),
    ),
    "add with a version, and hex digits": (
        dev(subsections=[]),
        lambda r: r.add_subsection("dev@1", "dev/new", data="hex:00ff", version=9),
        dev(subsections=[Vmsd("dev/new", 9, [raw("data", b"\0\xff")])]),
    ),
    "add an empty one": (
        dev(),
        lambda r: r.add_subsection("dev@1", "dev/new", data=b""),
        dev(subsections=[MORE, LATE, Vmsd("dev/new", 1, [])]),
    ),
    "add one inside one": (
        dev(subsections=[LATE]),
        lambda r: r.add_subsection("dev@1/dev/late", "dev/late/x", data=b"x"),
        dev(subsections=[replace(LATE, subsections=[Vmsd("dev/late/x", 1, [raw("data", b"x")])])]),
    ),
    "add into a struct": (
        dev(unit=[LATE]),
        lambda r: r.add_subsection("dev@1/unit", "unit/x", data=b"xy"),
        replace(
            dev(unit=[LATE]),
            fields=[
                *dev().fields[:2],
                struct_(
                    "unit",
                    Vmsd("unit", 1, [num("u", "uint16", 0xBEEF)], [LATE, Vmsd("unit/x", 1, [raw("data", b"xy")])]),
                ),
                *dev(unit=[LATE]).fields[3:],
            ],
        ),
    ),
    "drop from inside a tmp": (
        dev(unit=[RATE]),
        lambda r: r.drop_subsection("dev@1/hidden/fdrive/media_rate"),
        replace(dev(unit=[RATE]), fields=[*dev(unit=[RATE]).fields[:3], *dev().fields[3:]]),
    ),
    "rename": (
        dev(),
        lambda r: r.rename_subsection("dev@1/dev/late", "dev/a-longer-name"),
        dev(subsections=[MORE, replace(LATE, name="dev/a-longer-name")]),
    ),
    "rename the inner one": (
        dev(),
        lambda r: r.rename_subsection("dev@1/dev/more/dev/more/deep", "d"),
        dev(subsections=[replace(MORE, subsections=[replace(DEEP, name="d")]), LATE]),
    ),
    "another version of the inner one": (
        dev(),
        lambda r: r.set_version("dev@1/dev/more/dev/more/deep", 0xFFFFFFFF),
        dev(subsections=[replace(MORE, subsections=[replace(DEEP, version=0xFFFFFFFF)]), LATE]),
    ),
    "another version of the section": (dev(), lambda r: r.set_version("dev", "0x11"), replace(dev(), version=0x11)),
    "drop from an indexed array": (
        dev(),
        lambda r: r.drop_subsection("dev@1/drives[1]/fdrive/media_rate"),
        dev(uncollapsed("drives", [drive(1, RATE), drive(2)])),
    ),
    "drop from an array of 11.1, which has no index": (
        dev(uncollapsed("drives", [drive(1, RATE), drive(2, RATE), drive(3)], index="none")),
        lambda r: r.drop_subsection("dev@1/drives[0]/fdrive/media_rate"),
        dev(uncollapsed("drives", [drive(1), drive(2, RATE), drive(3)], index="none")),
    ),
    "drop from an array of 10.0": (
        dev(uncollapsed("drives", [drive(1, RATE), drive(2, RATE, SEEK)], index="but-last")),
        lambda r: r.drop_subsection("dev@1/drives[1]/fdrive/seek"),
        dev(uncollapsed("drives", [drive(1, RATE), drive(2, RATE)], index="but-last")),
    ),
    "add to an indexed array": (
        dev(),
        lambda r: r.add_subsection("dev@1/drives[0]", "fdrive/seek", data=b"\x12\x34", version=2),
        dev(uncollapsed("drives", [drive(1, RATE, replace(SEEK, fields=[raw("data", b"\x12\x34")])), drive(2, RATE)])),
    ),
    "split a collapsed array at its end": (
        dev(structs("drives", [drive(i, RATE) for i in range(4)])),
        lambda r: r.drop_subsection("dev@1/drives[3]/fdrive/media_rate"),
        dev(
            Item(
                [*structs("drives", [drive(i, RATE) for i in range(3)]).entries, *struct_("drives", drive(3)).entries],
                b"".join(drive(i, RATE).body() for i in range(3)) + drive(3).body(),
            )
        ),
    ),
    "split a collapsed array in its middle": (
        dev(structs("drives", [drive(i, RATE) for i in range(5)])),
        lambda r: r.rename_subsection("dev@1/drives[2]/fdrive/media_rate", "fdrive/rate"),
        dev(
            Item(
                [
                    *structs("drives", [drive(0, RATE)] * 2).entries,
                    *struct_("drives", drive(2, replace(RATE, name="fdrive/rate"))).entries,
                    *structs("drives", [drive(0, RATE)] * 2).entries,
                ],
                b"".join(drive(i, replace(RATE, name="fdrive/rate") if i == 2 else RATE).body() for i in range(5)),
            )
        ),
    ),
}


def test_all_elements_of_a_collapsed_array_change(style):
    source = stream_of(*around(dev(structs("drives", [drive(i, RATE) for i in range(3)]))), **style)
    done = rewritten(source, lambda r: [r.drop_subsection(f"dev@1/drives[{i}]/fdrive/media_rate") for i in (2, 0, 1)])
    assert bodies(done.data) == bodies(stream_of(*around(dev(structs("drives", [drive(i) for i in range(3)])))))
    assert_true(done.data)


@pytest.mark.parametrize("name", EDITS)
def test_subsections_as_if_they_had_been_sent_so(name, style):
    before, edit, after = EDITS[name]
    check(style, around(before), edit, around(after))


def test_a_dropped_subsection_is_said():
    done = rewritten(stream_of(*around(dev())), lambda r: r.drop_subsection("dev@1/dev/late"))
    (change,) = done.changes
    at = stream_of(*around(dev())).index(b"\x05\x08dev/late")
    assert (change.edit, change.where, change.offset) == ("drop-subsection", "dev@1/dev/late", at)
    assert (change.old, change.new) == (subsection_bytes("dev/late", 1, b"\x09"), None)


def test_an_added_subsection_is_said():
    done = rewritten(stream_of(*around(dev())), lambda r: r.add_subsection("dev@1", "dev/new", data=b"1"))
    (change,) = done.changes
    assert (change.edit, change.where, change.offset) == ("add-subsection", "dev@1/dev/new", None)
    assert (change.old, change.new) == (None, subsection_bytes("dev/new", 1, b"1"))


def test_new_names_and_versions_are_said():
    source = stream_of(*around(dev()))
    done = rewritten(
        source,
        lambda r: r.rename_subsection("dev@1/dev/late", "dev/later"),
        lambda r: r.set_version("dev@1/dev/later", 6),
        lambda r: r.rename_section("dev@1", "vad", 2),
        lambda r: r.set_version("vad@2", 0),
    )
    at, section = source.index(b"\x05\x08dev/late"), source.index(b"\x03dev\0\0\0\x01") - 5
    found = [(c.edit, c.where, c.offset, c.old, c.new) for c in done.changes]
    assert found[0] == ("rename-subsection", "dev@1/dev/late", at, "dev/late", "dev/later")
    assert found[1][3:] == (1, 6)
    assert found[2] == ("rename-section", "dev@1", section, "dev@1", "vad@2")
    assert found[3] == ("set-version", "vad@2", section, 3, 0)


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.drop_subsection("dev@1"),
        lambda r: r.drop_subsection("dev@1/unit"),
        lambda r: r.drop_subsection("dev@1/first"),
        lambda r: r.drop_subsection("dev@1/dev/none"),
        lambda r: r.drop_subsection("dev@1/drives[2]/fdrive/media_rate"),
        lambda r: r.drop_subsection("none@0/dev/late"),
        lambda r: r.drop_subsection("dev@0/dev/late"),
        lambda r: r.rename_subsection("dev@1/dev/late", ""),
        lambda r: r.rename_subsection("dev@1/dev/late", "x" * 256),
        lambda r: r.rename_subsection("dev@1/first", "x"),
        lambda r: r.add_subsection("dev@1", "dev/late", data=b""),
        lambda r: r.add_subsection("dev@1", "dev/of-which-nothing-is-known"),
        lambda r: r.add_subsection("dev@1", "", data=b""),
        lambda r: r.add_subsection("dev@1", "x" * 256, data=b""),
        lambda r: r.add_subsection("dev@1", "dev/x", data="no digits"),
        lambda r: r.add_subsection("dev@1", "dev/x", data=b"", version=-1),
        lambda r: r.add_subsection("dev@1", "dev/x", data=b"", version=1 << 32),
        lambda r: r.add_subsection("dev@1/first", "dev/x", data=b""),
        lambda r: r.add_subsection("dev@1/drives", "dev/x", data=b""),
        lambda r: r.add_subsection("dev@1/none", "dev/x", data=b""),
        lambda r: r.add_subsection("dev@1", "dev/x", {"none": 1}, data=b"1"),
        lambda r: r.set_version("dev@1/first", 1),
        lambda r: r.set_version("dev@1/none", 1),
        lambda r: r.set_version("dev@1", 1 << 32),
        lambda r: r.set_version("dev@1", "x"),
        lambda r: r.drop_section("dev@1/unit"),
        lambda r: r.drop_section("ram"),
        lambda r: (r.drop_section("dev@1"), r.drop_section("dev@1")),
        lambda r: (r.drop_section("dev@1"), r.set("dev@1/first", 1)),
        lambda r: r.rename_section("dev@1", "x" * 256),
        lambda r: r.rename_section("dev@1", ""),
        lambda r: r.rename_section("dev@1", None, 1 << 32),
        lambda r: r.add_section("dev", 1, 1, data=b""),
        lambda r: r.add_section("x", 1, data=b"", after="none"),
        lambda r: r.add_section("x", 1, data=b"", after="dev@1/unit"),
        lambda r: r.add_section("of which nothing is known", 1),
        lambda r: r.add_section("", 1, data=b""),
        lambda r: r.add_section("x", -1, data=b""),
        lambda r: r.add_section("x", 1, 1 << 32, data=b""),
        lambda r: r.add_section("x", 1, data="0"),
    ],
)
def test_what_cannot_be(edit):
    with qmigtool.open(stream_of(*around(dev()))) as stream, pytest.raises(UsageError):
        edit(Rewriter(stream))


def test_what_is_in_a_list_cannot_have_another_size():
    """The elements of a qtailq are told from each other by nothing but their count of descriptions."""
    holder = Vmsd("holder", 1, [qtailq("list", [drive(1, RATE), drive(2)])])
    with qmigtool.open(stream_of(("holder", 0, holder))) as stream:
        for edit in (
            lambda r: r.drop_subsection("holder@0/list[0]/fdrive/media_rate"),
            lambda r: r.add_subsection("holder@0/list[1]", "fdrive/x", data=b""),
        ):
            with pytest.raises(UsageError):
                edit(Rewriter(stream))


def test_a_device_without_a_description_of_its_own_has_no_subsections():
    w = writer()
    w.old_style(2, "slirp", 0, 4, bytes(range(131)))
    source = w.finish()
    with qmigtool.open(source) as stream, pytest.raises(UsageError):
        Rewriter(stream).add_subsection("slirp@0", "slirp/x", data=b"")


def test_an_old_style_device_stays_one():
    w, v = writer(), writer()
    w.old_style(2, "slirp", 0, 4, bytes(range(131)))
    v.old_style(2, "slurp", 3, 4, bytes(range(130)) + b"\xff")
    done = rewritten(
        w.finish(),
        lambda r: r.rename_section("slirp", "slurp", 3),
        lambda r: r.set("slurp@3/data", "hex:" + bytes(range(130)).hex() + "ff"),
    )
    assert done.data == v.finish()


def test_a_known_subsection_is_zero_but_for_its_values():
    cpu = x86_cpu(subsections=[Vmsd("cpu/tsc_khz", 1, [num("env.tsc_khz", "int64", 5)])])
    source = stream_of(("cpu", 0, cpu))
    done = rewritten(source, lambda r: r.add_subsection("cpu@0", "cpu/xss", {"env.xss": 0x800}))
    # In the order of vmstate_x86_cpu: xss comes before tsc_khz.
    xss = Vmsd("cpu/xss", 1, [num("env.xss", "uint64", 0x800)])
    assert done.data == stream_of(("cpu", 0, replace(cpu, subsections=[xss, *cpu.subsections])))
    assert_true(done.data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pc-7.2", "pc-11.1", "nofooter-7.2", "plain-5.2", "kvm-avx512-7.2", "novmdesc-7.2"])
def test_a_known_subsection_of_a_real_stream(name):
    done = rewritten(sample(name), lambda r: r.add_subsection("cpu@0", "cpu/pkru", {"env.pkru": 0x5555AAAA}))
    old, new = bodies(sample(name)), bodies(done.data)
    head = subsection_bytes("cpu/pkru", 1, (0x5555AAAA).to_bytes(4, "big"))
    assert new["cpu", 0].count(head) == 1
    assert new["cpu", 0].replace(head, b"") == old["cpu", 0]
    assert {k: v for k, v in new.items() if k != ("cpu", 0)} == {k: v for k, v in old.items() if k != ("cpu", 0)}
    assert_true(done.data)
    with qmigtool.open(done.data) as stream:
        assert stream.field("cpu@0/cpu/pkru/env.pkru").value == 0x5555AAAA


@pytest.mark.parametrize("name", ["pc-7.2", "pc-11.1", "plain-5.2", "nofooter-7.2", "mips-malta-7.2"])
@pytest.mark.parametrize("index", [0, 1])
def test_the_floppy_drives_of_real_streams(name, index):
    """QEMU describes them one by one; a subsection that leaves one of them must not leave the other."""
    rate = "fdrive/media_rate"
    with qmigtool.open(sample(name)) as stream:
        fdc = stream.device("fdc")
        head = fdc.field(f"state/drives[{index}]/{rate}").raw
        at = fdc.field(f"state/drives[{index}]/{rate}").offset - fdc.section.body_offset
        other = fdc.field(f"state/drives[{1 - index}]/{rate}").raw
    old = bodies(sample(name))["fdc", 0]
    gone = rewritten(sample(name), lambda r: r.drop_subsection(f"fdc@0/state/drives[{index}]/{rate}"))
    assert bodies(gone.data)["fdc", 0] == old[:at] + old[at + len(head) :]
    assert_true(gone.data)
    with qmigtool.open(gone.data) as stream:
        assert stream.device("fdc").get(f"state/drives[{index}]/{rate}") is None
        assert stream.field(f"fdc/state/drives[{1 - index}]/{rate}").raw == other
    value = head[-1]
    back = rewritten(gone.data, lambda r: r.add_subsection(f"fdc@0/state/drives[{index}]", rate, {"media_rate": value}))
    assert back.data == sample(name).read_bytes()


def test_a_stream_without_a_vmdesc():
    w = writer(("before", 0, OTHER))
    w.device(3, "vad", 2, replace(dev(), version=9))
    w.device(*added(5, "new", 0, 1, b"12"))
    done = rewritten(
        stream_of(*around(dev()), vmdesc=False),
        lambda r: r.rename_section("dev", "vad", 2),
        lambda r: r.set_version("vad", 9),
        lambda r: r.drop_section("after"),
        lambda r: r.add_section("new", 1, data=b"12"),
    )
    assert done.data == w.finish(vmdesc=False)
    with qmigtool.open(done.data) as stream:
        assert stream.complete
        assert stream.vmdesc is None
    with qmigtool.open(stream_of(*around(dev()), vmdesc=False)) as stream, pytest.raises(UnsupportedError):
        Rewriter(stream).drop_subsection("dev@1/dev/late")


@pytest.mark.parametrize("name", ["novmdesc-7.2", "i440fx-2.1-7.2", "novmdesc-nofooter-7.2"])
def test_real_streams_without_a_vmdesc(name):
    old = bodies(sample(name))
    done = rewritten(
        sample(name),
        lambda r: r.drop_subsection("fdc@0/state/drives[0]/fdrive/media_rate"),
        lambda r: r.drop_subsection("cpu@0/cpu/msr_ia32_misc_enable"),
        lambda r: r.drop_section("acpi_build"),
    )
    new = bodies(done.data)
    assert list(new) == [key for key in old if key != ("acpi_build", 0)]
    assert len(old["fdc", 0]) - len(new["fdc", 0]) == len(subsection_bytes("fdrive/media_rate", 1, b"1"))
    assert len(old["cpu", 0]) - len(new["cpu", 0]) == len(subsection_bytes("cpu/msr_ia32_misc_enable", 1, bytes(8)))
    assert {k: v for k, v in new.items() if k not in (("fdc", 0), ("cpu", 0))} == {
        k: v for k, v in old.items() if k not in (("fdc", 0), ("cpu", 0), ("acpi_build", 0))
    }


def postcopy(inside, after=()):
    """A stream in postcopy, whose package has these items."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 2 * PAGE)]) + eos())
    w.part(1, page(0, bytes(range(256)) * 16, "r") + eos())
    trial = StreamWriter(None)
    before = len(trial.data)
    inside(trial)
    w.packaged(len(trial.data) - before)
    inside(w)
    w.part(1, zero(PAGE, "r") + eos())
    w.end(1, eos())
    for device in after:
        w.full(*device)
    return w.finish(vmdesc=False)


def package(*devices):
    def inside(w):
        w.command(4, "POSTCOPY_LISTEN")
        for number, name, instance, version, body in devices:
            w.full(number, name, instance, version, body)
        w.command(2, "PING", be32(3))
        w.command(5, "POSTCOPY_RUN")

    return inside


A, B, C = (2, "timer", 0, 2, bytes(24)), (3, "b", 0, 1, b"bee"), (4, "c", 0, 1, b"sea")


POSTCOPY = {
    "drop": (lambda r: r.drop_section("b"), package(A, C)),
    "drop the last": (lambda r: r.drop_section("c"), package(A, B)),
    "drop the first": (lambda r: r.drop_section("timer"), package(B, C)),
    "rename": (lambda r: r.rename_section("b", "bumblebee"), package(A, (3, "bumblebee", 0, 1, b"bee"), C)),
    "add": (lambda r: r.add_section("d", 7, data=b"sea!"), package(A, B, C, (5, "d", 0, 7, b"sea!"))),
    "add first": (
        lambda r: r.add_section("d", 7, data=b"sea!", after="timer"),
        package(A, (5, "d", 0, 7, b"sea!"), B, C),
    ),
    "no command": (
        lambda r: r.drop_command("PING"),
        lambda w: (w.command(4, "POSTCOPY_LISTEN"), w.full(*A), w.full(*B), w.full(*C), w.command(5, "POSTCOPY_RUN")),
    ),
    "the same length": (lambda r: r.rename_section("b", "x", 5), package(A, (3, "x", 5, 1, b"bee"), C)),
}


@pytest.mark.parametrize("name", POSTCOPY)
def test_a_package_has_the_length_of_what_is_in_it(name):
    edit, wanted = POSTCOPY[name]
    assert rewritten(postcopy(package(A, B, C)), edit).data == postcopy(wanted)
    assert postcopy(wanted) != postcopy(package(A, B, C))


def test_what_is_behind_a_package_does_not_count():
    last = (9, "last", 0, 1, b"last")
    done = rewritten(postcopy(package(A, B), [last]), lambda r: r.rename_section("last", "the last one"))
    assert done.data == postcopy(package(A, B), [(9, "the last one", 0, 1, b"last")])


@pytest.mark.parametrize("name", ["postcopy-preempt-7.2", "postcopy-preempt-11.1"])
def test_the_package_of_a_real_stream(name):
    done = rewritten(
        sample(name),
        lambda r: r.drop_subsection("cpu@0/cpu/msr_ia32_misc_enable"),
        lambda r: r.drop_section("acpi_build"),
        lambda r: r.add_subsection("cpu@0", "cpu/pkru", {"env.pkru": 3}),
        lambda r: r.set("timer/cpu_ticks_offset", 77),
    )
    with qmigtool.open(done.data, forward=True) as stream:
        assert stream.complete, stream.error
        (packaged,) = (s for s in stream.sections if s.name == "PACKAGED")
        (run,) = (s for s in stream.sections if s.name == "POSTCOPY_RUN")
        length = int.from_bytes(done.data[packaged.end - 4 : packaged.end], "big")
        assert length == run.end - packaged.end
        assert stream.field("cpu@0/cpu/pkru/env.pkru").value == 3
        assert stream.field("timer/cpu_ticks_offset").value == 77


def test_an_early_section_grows():
    """virtio-mem's section comes before RAM is set up."""
    names = [s[0] for s in full_sections(sample("vmem-11.1"))]
    early = next(name for name in names if "early" in name)
    done = rewritten(
        sample("vmem-11.1"),
        lambda r: r.add_section("new", 1, data=b"x", after=early),
        lambda r: r.add_subsection(early, "early/x", data=b"123"),
    )
    assert_true(done.data)
    found = [s[0] for s in full_sections(done.data)]
    assert found == [one for name in names for one in ([name, "new"] if name == early else [name])]
    with qmigtool.open(done.data) as stream, qmigtool.open(sample("vmem-11.1")) as other:
        assert [b.idstr for b in stream.ram_blocks] == [b.idstr for b in other.ram_blocks]
        assert stream.pages_held == other.pages_held


def test_a_vmdesc_that_is_wrong_stays_as_wrong_as_it_was():
    """s390_css is described too short (QEMU before 11): what no edit changes is not checked."""
    source = sample("s390x-min-7.2")
    done = rewritten(source, lambda r: r.drop_subsection("cpu@0/cpu/vregs"))
    old, new = described(source), described(done.data)
    assert [d for d in new if get(d, "name") != "cpu"] == [d for d in old if get(d, "name") != "cpu"]
    cpu = next(d for d in new if get(d, "name") == "cpu")
    assert size_of(cpu) == len(bodies(done.data)["cpu", 0])
    with qmigtool.open(source) as stream, pytest.raises(UnsupportedError):
        Rewriter(stream).add_subsection("s390_css@0", "x", data=b"")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*samplefiles.NAMES, "plain-5.2", "nofooter-7.2", "sparc64-sun4u-10.0"])
def test_every_subsection_of_a_real_stream_can_go(name):
    """Drop each on its own from the rest of the stream; afterwards no device has one."""
    assert name in samplefiles.NAMES or name in packedsamples.NAMES

    def strip(r):
        while True:
            for section in r.draft.sections:
                found = next(_subsections(section.device.fields, ""), None)
                if found is not None:
                    r.drop_subsection(f"{section.label}/{found}")
                    break
            else:
                return

    def _subsections(fields, prefix):
        for field in fields:
            kind = str(field.kind)
            if kind == "subsection":
                yield prefix + field.name
            elif kind == "struct":
                yield from _subsections(field.children, prefix + field.name + "/")
            elif kind == "array" and field.value is None:
                yield from _subsections(field.children, prefix)

    done = rewritten(sample(name), strip)
    assert_true(done.data)
    with qmigtool.open(done.data) as stream:
        if stream.vmdesc_text is not None:
            assert b'"subsections"' not in stream.vmdesc_text
            assert pairs_of(stream.vmdesc_text)
        assert all(next(_subsections(d.fields, ""), None) is None for d in stream.devices)
    with qmigtool.open(sample(name)) as stream:
        gone = sum(len(change.old) for change in done.changes)
        before = sum(d.section.body_length for d in stream.devices)
    assert sum(map(len, bodies(done.data).values())) == before - gone
    assert gone > 0


def test_a_stream_that_is_not_whole_is_refused():
    data = stream_of(*around(dev()))
    with qmigtool.open(data[:200]) as stream, pytest.raises(QmigError):
        Rewriter(stream)
