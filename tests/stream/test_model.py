"""A stream, opened by every strategy: from the end, forward, through a pipe; whole, odd and broken."""

import io

import pytest

import qmigtool
from qmigtool.errors import ClosedError, QmigError, TruncatedError, UnsupportedError, UsageError
from tests.stream.opened import TIMER, everything, frames, look, small
from tests.support import samplefiles
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    Vmsd,
    be32,
    be64,
    dump,
    eos,
    mem_size,
    null_pointers,
    num,
    raw,
    zero,
)


@pytest.mark.parametrize("name", samplefiles.NAMES)
def test_both_strategies_agree_on_samples(name):
    path = samplefiles.path(name)
    with qmigtool.open(path) as first, qmigtool.open(path, forward=True) as second:
        assert second.strategy == "forward"
        assert first.strategy == ("forward" if name == "novmdesc-7.2" else "tail-first")
        assert everything(first) == everything(second)
        assert frames(first) == frames(second)
        assert first.complete
        assert second.complete
        assert first.ram_blocks == second.ram_blocks


@pytest.mark.parametrize("name", samplefiles.NAMES)
def test_spans_of_samples_cover_every_byte(name):
    with qmigtool.open(samplefiles.path(name)) as stream:
        at = 0
        for section in stream.sections:
            assert section.offset == at
            assert section.offset <= section.body_offset
            assert section.body_offset + section.body_length <= section.end
            at = section.end
        assert at == samplefiles.path(name).stat().st_size == stream.size


FACTS = {
    "arm-7.2": ("virt-7.2", 0, 18, 25, "unknown"),
    "kvm-avx512-7.2": ("pc-i440fx-7.2", 1, 32, 39, "kvm"),
    "microvm-10.0": ("microvm", 2, 18, 26, "tcg"),
    "noconfig-7.2": (None, 2, 34, 40, "tcg"),
    "pc-11.1": ("pc-i440fx-11.1", 4, 40, 48, "tcg"),
    "pc-7.2": ("pc-i440fx-7.2", 4, 40, 47, "tcg"),
    "q35-7.2": ("pc-q35-7.2", 3, 42, 49, "tcg"),
    "twin-kvm-10.0": ("pc-i440fx-7.2", 1, 32, 39, "kvm"),
    "twin-tcg-10.0": ("pc-i440fx-7.2", 1, 31, 38, "tcg"),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_samples(name):
    """The counts are those of `grep` on the vmdesc and of QEMU's own script; the accelerators those of the manifest."""
    with qmigtool.open(samplefiles.path(name)) as stream:
        found = (stream.machine, len(stream.vcpus), len(stream.devices), len(stream.sections), stream.accelerator.name)
        assert found == FACTS[name]
        text = samplefiles.read(name)
        text = text[text.rindex(b"\0\6", 0, text.rindex(b'"devices"')) :]
        assert len(stream.devices) == text.count(b'"instance_id"')


def test_the_device_state_is_reached_without_reading_ram():
    w = small()
    start = next(s for s in w.spans if s.type == "part")
    data = bytearray(w.data)
    data[start.body_offset : start.body_offset + 8] = b"\xff" * 8
    with qmigtool.open(bytes(data)) as stream:
        assert stream.strategy == "tail-first"
        assert [v.xcr0 for v in stream.vcpus] == [7, 1]
        assert stream.problems == []
        assert not stream.complete
        assert [p.offset for p in stream.problems] == [start.body_offset]
        assert stream.error.section == "ram"


@pytest.mark.parametrize("where", ["after START", "before START"])
def test_early_setup_sections(where):
    """virtio-mem sends a FULL section in the setup phase: behind ram's START in 10.0, before it in 11.1."""

    name = "0000:00:04.0/virtio-mem-device-early"

    def early(w):
        w.device(9, name, 0, Vmsd("virtio-mem-device-early", 1, [num("x", "uint64", 7)]))

    if where == "after START":
        w = small(before=early)
    else:
        w = StreamWriter()
        early(w)
        w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
        w.end(1, zero(0, "r") + eos())
        w.device(2, "timer", 0, TIMER)
        w.finish()
    data = bytes(w.data)
    with qmigtool.open(data) as stream:
        assert stream.strategy == "tail-first"
        assert stream.devices[0].name == "0000:00:04.0/virtio-mem-device-early"
        assert stream.field("0000:00:04.0/virtio-mem-device-early/x").value == 7
        assert frames(stream) == w.spans
        expected = look(stream)
    with qmigtool.open(data, forward=True) as stream:
        assert look(stream) == expected
    with qmigtool.open(io.BytesIO(data)) as stream:
        assert look(stream) == expected


def inner_page():
    """A whole stream with a vmdesc that fits into one page of a guest that holds migration files."""
    w = StreamWriter("inner")
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    w.device(2, "fake", 0, Vmsd("fake", 1, [num("x", "uint64", 0xBAD)]))
    data = w.finish()
    return data.rjust(PAGE, b"\0"), len(data)


@pytest.mark.parametrize("vmdesc", [True, False])
@pytest.mark.parametrize("tail", [b"", bytes(5000)])
def test_a_vmdesc_inside_guest_ram_is_not_ours(vmdesc, tail):
    w = small(data=inner_page()[0], vmdesc=vmdesc, tail=tail)
    with qmigtool.open(bytes(w.data)) as stream:
        assert [d.name for d in stream.devices] == ["timer", "cpu", "cpu", "slirp"]
        assert (stream.vmdesc is not None) is vmdesc
        assert frames(stream) == w.spans
        assert stream.complete


def test_a_stream_cut_behind_a_vmdesc_inside_guest_ram():
    """The one case where a wrong tail is consistent: only reading on from the front shows that the input is cut."""
    fake, _ = inner_page()
    w = small(data=fake)
    part = next(s for s in w.spans if s.type == "part")
    cut = part.body_offset + 8 + 7 + PAGE
    with qmigtool.open(bytes(w.data[:cut])) as stream:
        assert not stream.complete
        assert isinstance(stream.error, TruncatedError)
        assert stream.error.offset == cut


@pytest.mark.parametrize("padding", [1, 512, 1 << 20])
@pytest.mark.parametrize("vmdesc", [True, False])
def test_padding_of_a_block_device(padding, vmdesc):
    w = small(tail=bytes(padding), vmdesc=vmdesc)
    with qmigtool.open(bytes(w.data)) as stream:
        # What follows might be left of an older, longer stream: only the forward strategy can tell.
        assert stream.strategy == "forward"
        assert frames(stream) == w.spans
        assert stream.complete
        assert stream.sections[-1].type == "tail"


def test_garbage_behind_the_stream():
    w = small(tail=b"garbage \0\6")
    with qmigtool.open(bytes(w.data)) as stream:
        assert frames(stream) == w.spans
        assert [d.name for d in stream.devices] == ["timer", "cpu", "cpu", "slirp"]


def test_footers_off():
    w = small(footers=False)
    with qmigtool.open(bytes(w.data)) as stream, qmigtool.open(bytes(w.data), forward=True) as forward:
        assert stream.strategy == "tail-first"
        assert frames(stream) == frames(forward) == w.spans
        assert everything(stream) == everything(forward)
        assert stream.complete


def test_footers_off_without_a_vmdesc():
    w = small(footers=False, vmdesc=False)
    with qmigtool.open(bytes(w.data)) as stream:
        assert len(stream.devices) == 0
        assert isinstance(stream.error, UnsupportedError)
        assert stream.error.feature == "device state with neither footers nor a vmdesc"
        assert [b.idstr for b in stream.ram_blocks] == ["pc.ram", "rom"]
        assert sum(s.length for s in stream.sections) == len(w.data)


def test_no_live_sections():
    """As xen-save-devices-state writes it: no configuration, no RAM."""
    w = StreamWriter(None)
    w.full(2, "timer", 0, 2, TIMER.body())
    w.full(3, "other", 0, 1, b"abc")
    w.finish(vmdesc=False)
    with qmigtool.open(bytes(w.data)) as stream:
        assert stream.complete
        assert frames(stream) == w.spans
        assert [d.name for d in stream.devices] == ["timer", "other"]


def test_no_end_section():
    """A background snapshot has none: device state follows the last PART."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.part(1, zero(0, "r") + eos())
    w.device(2, "timer", 0, TIMER)
    w.finish()
    with qmigtool.open(bytes(w.data)) as stream:
        assert stream.strategy == "tail-first"
        assert frames(stream) == w.spans
        assert stream.complete


def css(*, forward=False):
    """s390x 7.2: the vmdesc measures an array of pointers by its first element, which is NULL."""
    w = StreamWriter("s390-ccw-virtio-7.2")
    w.start(1, "ram", 0, 4, mem_size([("s390.ram", PAGE)]) + eos())
    w.end(1, zero(0, "s390.ram") + eos())
    w.device(2, "timer", 0, TIMER)
    wrong = null_pointers("css", 256)
    honest = Vmsd("s390_css", 1, [raw("head", bytes(15)), wrong, num("last", "uint8", 1)])
    w.device(3, "s390_css", 0, honest)
    real = bytes(15) + b"0" * 255 + bytes(768) + b"\x01"
    start = next(s for s in w.spans if s.name == "s390_css")
    del w.data[start.offset :], w.spans[-1]
    w.full(3, "s390_css", 0, 1, real)
    w.device(4, "cpu_common", 0, Vmsd("cpu_common", 1, [num("halted", "uint32", 1)]))
    w.finish()
    return qmigtool.open(bytes(w.data), forward=forward), w


@pytest.mark.parametrize("forward", [False, True])
def test_a_description_that_is_wrong_about_one_device(forward):
    stream, w = css(forward=forward)
    assert stream.strategy == "forward"
    assert frames(stream) == w.spans
    assert stream.complete
    by_name = {device.name: device for device in stream.devices}
    assert by_name["s390_css"].section.measured == "footer search"
    assert by_name["timer"].section.measured == "vmdesc"
    with pytest.raises(UnsupportedError, match="the vmdesc describes 272 bytes, the section has 1039"):
        by_name["s390_css"].check_length()
    assert by_name["s390_css"].field("last").value == 1
    assert by_name["cpu_common"].field("halted").value == 1


def test_a_wrong_vmdesc_altogether():
    w = small(vmdesc=False)
    other = StreamWriter()
    other.device(1, "other", 0, TIMER)
    text = other.vmdesc_text()
    with qmigtool.open(bytes(w.data) + b"\6" + be32(len(text)) + text) as stream:
        assert [d.name for d in stream.devices] == ["timer", "cpu", "cpu", "slirp"]
        assert not stream.complete
        assert "sections that are not in the stream: other@0" in str(stream.error)


@pytest.mark.parametrize("how", [bytes, io.BytesIO])
def test_a_damaged_id_does_not_lose_the_next_section_silently(how):
    """The footer that is searched for is then the next section's, if the ids are neighbours."""
    w = small()
    data = bytearray(w.data)
    span = next(s for s in w.spans if s.name == "timer")
    data[span.offset + 4] = 3
    with qmigtool.open(how(bytes(data))) as stream:
        assert [(d.name, d.instance_id) for d in stream.devices] == [("timer", 0), ("cpu", 1), ("slirp", 0)]
        assert not stream.complete
        assert "not in the stream: cpu@0" in str(stream.error)


def test_a_stream_written_over_a_longer_one():
    """Of a volume that is used again: what the end of it describes is the older stream."""
    old = bytes(small(data=b"old!" * (PAGE // 4)).data)
    w = StreamWriter("new")
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    w.device(2, "timer", 0, TIMER)
    new = w.finish()
    with qmigtool.open(new + old[len(new) :]) as stream:
        assert stream.prove()
        assert stream.complete
        assert [d.name for d in stream.devices] == ["timer"]


def test_broken_in_the_middle_shows_front_and_back():
    w = small()
    data = bytearray(w.data)
    span = next(s for s in w.spans if s.type == "part")
    broken = span.body_offset + 15 + PAGE
    data[broken : broken + 8] = be64(0xFFF)
    for options in ({}, {"forward": True}):
        with qmigtool.open(bytes(data), **options) as stream:
            found = frames(stream)
            assert [f.type for f in found] == [
                "header",
                "configuration",
                "start",
                "unreadable",
                *["full"] * 4,
                "eof",
                "vmdesc",
            ]
            assert found[:3] == w.spans[:3]
            assert found[4:] == w.spans[-6:]
            assert (found[3].offset, found[3].length) == (span.offset, found[4].offset - span.offset)
            assert [s.complete for s in stream.sections] == [True] * 3 + [False] + [True] * 6
            assert [p.offset for p in stream.problems] == [broken]
            assert not stream.complete
            assert [v.xcr0 for v in stream.vcpus] == [7, 1]


def test_a_broken_header_shows_the_back():
    w = small()
    for at in (0, 3, 4, 7):
        data = bytearray(w.data)
        data[at] ^= 0xFF
        with qmigtool.open(bytes(data)) as stream:
            assert stream.error.offset in (0, 4)
            assert [v.xcr0 for v in stream.vcpus] == [7, 1]
            assert sum(s.length for s in stream.sections) == len(data)
            assert not stream.complete


def test_a_broken_device_section():
    w = small()
    data = bytearray(w.data)
    span = [s for s in w.spans if s.name == "cpu"][0]  # noqa: RUF015
    data[span.offset] = 0x55
    with qmigtool.open(bytes(data)) as stream:
        assert sum(s.length for s in stream.sections) == len(data)
        assert [(d.name, d.instance_id) for d in stream.devices] == [("timer", 0), ("cpu", 1), ("slirp", 0)]
        assert stream.error.offset == span.offset


def test_a_broken_vmdesc():
    w = small()
    data = bytes(w.data).replace(b'"devices"', b'"devizes"')
    with qmigtool.open(data) as stream:
        assert [d.name for d in stream.devices] == ["timer", "cpu", "cpu", "slirp"]
        assert stream.vmdesc is None
        assert stream.error.section == "vmdesc"
        assert not stream.complete
        assert frames(stream) == w.spans
    with qmigtool.open(io.BytesIO(data)) as stream:
        assert stream.error.section == "vmdesc"
        assert frames(stream) == w.spans


@pytest.mark.parametrize("name", ["pc-7.2", "novmdesc-7.2"])
def test_a_cut_sample_shows_what_was_before_the_cut(name):
    data = samplefiles.read(name)
    with qmigtool.open(data) as stream:
        whole = frames(stream)
    for cut in (len(data) - 200_000, len(data) - 110_000, len(data) - 1):
        with qmigtool.open(data[:cut]) as stream:
            found = frames(stream)
            before = [s for s in whole if s.offset + s.length <= cut]
            assert found[: len(before)] == before
            assert sum(s.length for s in found) == cut
            assert not stream.complete
            assert isinstance(stream.error, TruncatedError)
            assert stream.error.offset == cut


def test_paths():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        assert stream.field("cpu/env.xcr0").value == stream.field("cpu@0/env.xcr0").value == 0x21F
        assert stream.field("cpu@3/env.xcr0").value == 7
        assert stream.field("0000:00:01.0/PIIX3/dev/version_id").length == 4
        assert stream.field("cpu@1/env.regs[3]").offset == stream.field("cpu@1/env.regs").offset + 24
        assert stream.field("cpu@1/env.fpregs[7]/tmp/tmp_exp").type == "uint16"
        assert stream.device("apic@2").label == "apic@2"
        for path, near in (
            ("cpi", "cpu"),
            ("cpu@9", "cpu@"),
            ("cpu/env.xcr1", "env.xcr0"),
            ("cpu/env.regs[16]", "[0] to [15]"),
            ("cpu/env.regs[x]", "[0] to [15]"),
            ("cpu/env.regs[99999999999]", "[0] to [15]"),
            ("cpu/env.regs[0]/x", ""),
            ("cpu/env.segs/base", "is an array (expected an index, as in env.segs[0]/base)"),
            ("cpu@0/nothing", "expected one that `qmigtool show FILE cpu@0` lists"),
            ("cpu@*/env.xcr0", "is a pattern"),
        ):
            with pytest.raises(UsageError) as caught:
                stream.field(path)
            assert near in str(caught.value)
        for path in ("cpu/env.regs", "cpu@0/x", "nothing", ""):
            with pytest.raises(UsageError):
                stream.device(path)


def test_a_path_to_a_device_has_no_field():
    with qmigtool.open(bytes(small().data)) as stream, pytest.raises(UsageError):
        stream.field("cpu@0")


def test_an_accelerator_that_is_given():
    with qmigtool.open(bytes(small().data), accelerator="TCG") as stream:
        assert (stream.accelerator.name, stream.accelerator.given) == ("tcg", True)
        assert stream.vcpus[0].tcg
    with pytest.raises(UsageError, match="kvm"):
        qmigtool.open(bytes(small().data), accelerator="bochs")


def test_closed_is_closed_but_what_was_read_stays():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        value = stream.field("cpu/env.xcr0").value
        view = stream.source.view(0, 4)
    assert value == 0x21F
    assert bytes(view) == b"QEVM"


@pytest.mark.parametrize("how", ["path", "bytes", "pipe"])
def test_every_use_of_what_is_closed_is_an_error_of_ours(how):
    data = samplefiles.read("pc-7.2")
    target = {"path": samplefiles.path("pc-7.2"), "bytes": data, "pipe": io.BytesIO(data)}[how]
    stream = qmigtool.open(target, keep_runs=True)
    device, vcpu, memory, other = stream.devices[8], stream.vcpus[1], stream.ram, stream.vcpus[2]
    field, area, problems = device.fields[0], vcpu.xsave, stream.problems
    value = field.value
    stream.close()
    stream.close()
    names = {name for name in dir(qmigtool.Stream) if not name.startswith("_")} - {"close", "problems", "error"}
    assert len(names) > 20
    uses = [
        *(lambda name=name: getattr(stream, name) for name in sorted(names)),
        stream.__enter__,
        lambda: device.fields,
        lambda: device.body,
        lambda: device.field("env.xcr0"),
        lambda: field.value,
        lambda: field.raw,
        lambda: vcpu.xcr0,
        lambda: vcpu.xsave,
        lambda: other.live,
        lambda: memory.page("pc.ram", 0),
        lambda: memory.read("pc.ram", 0x100000, 0),
        lambda: next(memory.pages("pc.ram")),
        lambda: memory.write_block("pc.rom", io.BytesIO()),
        lambda: list(qmigtool.tables.sections.rows(stream)),
        lambda: qmigtool.tables.xsave_components(stream),
        lambda: qmigtool.compare(stream, stream),
        lambda: qmigtool.check.findings_of(stream),
        lambda: qmigtool.Rewriter(stream),
        lambda: qmigtool.preflight.predict(stream, qmigtool.preflight.read_targets(["7.2"])),
    ]
    for number, use in enumerate(uses):
        with pytest.raises(ClosedError):
            pytest.fail(f"use {number} gave {use()!r:.80}")
    # What was read stays what it was.
    assert (problems, stream.problems, stream.error) == ([], [], None)
    assert repr(stream) == "<Stream, closed>"
    assert isinstance(value, tuple | list | int)
    assert area.xcomp_bv == 0


def test_pages_that_somebody_looks_at_outlive_the_stream():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        _, pages = next(stream.ram.pages("pc.bios"))
        expected = pages.tobytes()
    assert pages.tobytes() == expected


def test_nothing_but_our_errors():
    assert issubclass(TruncatedError, QmigError)
    assert dump([]) == "[]"
