"""Whose device state it is: what was found from the end of a file is proved by RAM's headers, or given up.

A volume is not cut to what is written to it, so a stream may be followed by the end of an older and longer one. What
QEMU loads is the stream at the front; `tests/stream/test_proof_in_qemu.py` asks it.
"""

import functools
import gzip
import io
import json
import random
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.cli.shared.output import SHOWN_WALK
from qmigtool.errors import TruncatedError
from qmigtool.rewrite import Rewriter
from qmigtool.testing import assert_same_state
from tests.support import casefiles, samplefiles
from tests.support.ramwriter import mapped
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, page, zero

RBX = "cpu@0/env.regs[3]"
TIMER = Vmsd("timer", 2, [num("ticks", "int64", 1), num("clock", "int64", 2)])


@functools.cache
def saved(name, rbx):
    """A real stream with a value in RBX."""
    out = io.BytesIO()
    with qmigtool.open(samplefiles.path(name)) as stream:
        edits = Rewriter(stream)
        edits.set(RBX, rbx)
        edits.write(out)
    return out.getvalue()


def end_of(name, rbx):
    """Where the stream's EOF byte is."""
    with qmigtool.open(saved(name, rbx)) as stream:
        return next(s.offset for s in stream.sections if s.type == "eof")


NEW, OLD = 0x1111, 0x240
# How much is left of the older stream, from its end: all of it, from within RAM, from within its device state
LEFT = [1.0, 0.9, 0.5, 0.3, 0.25]


# -- written over a longer one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("twin-tcg-10.0", "twin-tcg-10.0"),  # the same machine: every length in the older vmdesc is right
        ("pc-7.2", "twin-tcg-10.0"),
        ("pc-11.1", "kvm-avx512-7.2"),
        ("q35-7.2", "pc-7.2"),
        ("noconfig-7.2", "pc-7.2"),
    ],
)
def test_the_end_of_an_older_stream_is_given_up(new, old, left):
    front, tail = saved(new, NEW), saved(old, OLD)
    data = front + tail[-int(len(tail) * left) :]
    with qmigtool.open(data) as stream, qmigtool.open(front) as alone:
        assert stream.prove()
        assert stream.proved
        assert stream.field(RBX).value == NEW
        assert [d.label for d in stream.devices] == [d.label for d in alone.devices]
        assert stream.machine == alone.machine
        assert stream.vmdesc_text == alone.vmdesc_text
        assert stream.problems == []
        assert stream.complete
        assert stream.sections[-1].type == "tail"
        assert stream.sections[-1].offset == len(front)


def test_what_follows_is_said_by_commands_that_show(capsys, tmp_path):
    path = tmp_path / "volume"
    for behind, said in ((bytes(5000), False), (b"\xa5" * 999, True), (saved("novmdesc-7.2", OLD)[-2000:], True)):
        path.write_bytes(saved("twin-tcg-10.0", NEW) + behind)
        for command in (["show", str(path), RBX], ["xsave", "table", str(path)]):
            assert run(command) == 0
            err = capsys.readouterr().err
            assert (f"{len(behind)} bytes follow the stream" in err) is said


def test_what_was_asked_before_the_proof_is_asked_again():
    front, tail = saved("twin-tcg-10.0", NEW), saved("twin-tcg-10.0", OLD)
    with qmigtool.open(front + tail) as stream:
        assert stream.strategy == "tail-first"
        assert not stream.proved
        assert stream.field(RBX).value == OLD  # no proof was requested
        assert stream.vcpus[0].device.number("env.regs[3]") == OLD
        stream.prove()
        assert stream.field(RBX).value == NEW
        assert stream.vcpus[0].device.number("env.regs[3]") == NEW


@pytest.mark.parametrize("behind", [bytes(512), b"\xa5" * 999, b"}", random.Random(1).randbytes(5000)])  # noqa: S311
def test_an_older_end_that_is_not_at_the_end_of_the_file(behind):
    data = saved("twin-tcg-10.0", NEW) + saved("pc-7.2", OLD)[-150_000:] + behind
    with qmigtool.open(data) as stream:
        assert stream.prove()
        assert stream.field(RBX).value == NEW
        assert stream.vmdesc is not None
        assert stream.schema_name is None
        assert all(p.offset == end_of("twin-tcg-10.0", NEW) for p in stream.problems)


@pytest.mark.parametrize("old", ["pc-7.2", "novmdesc-7.2"])
@pytest.mark.parametrize("left", [1.0, 0.5, 0.25])
def test_a_stream_without_a_vmdesc_over_another(old, left):
    front, tail = samplefiles.read("novmdesc-7.2"), samplefiles.read(old)
    with qmigtool.open(front + tail[-int(len(tail) * left) :]) as stream, qmigtool.open(front) as alone:
        stream.prove()
        assert stream.vmdesc is None
        assert [(d.label, d.body) for d in stream.devices] == [(d.label, d.body) for d in alone.devices]


def test_without_footers():
    def written(value, pages):
        w = StreamWriter(footers=False)
        w.start(1, "ram", 0, 4, mem_size([("r", pages * PAGE)]) + eos())
        w.end(1, zero(0, "r") + b"".join(zero(n * PAGE) for n in range(1, pages)) + eos())
        w.device(2, "timer", 0, Vmsd("timer", 2, [num("ticks", "int64", value)]))
        return bytes(w.finish())

    front = written(1, 4)
    with qmigtool.open(front + written(2, 900)[-300:]) as stream:
        assert stream.prove()
        assert stream.field("timer/ticks").value == 1
        assert stream.complete


def test_a_page_size_that_only_the_vmdesc_says():
    """Pages of 1 KiB, as ARM has them, which nothing in front of RAM says: the older vmdesc says 4 KiB."""

    def written(value, size):
        w = StreamWriter("old")
        w.start(1, "ram", 0, 4, mem_size([("r", 64 * size)]) + eos())
        w.end(1, page(0x400, b"\1" * size, "r") + b"".join(zero(n * size) for n in range(2, 64)) + eos())
        w.device(2, "timer", 0, Vmsd("timer", 2, [num("ticks", "int64", value)]))
        return bytes(w.finish(page_size=size))

    front = written(1, 1024)
    with qmigtool.open(front + written(2, 1024).replace(b'"page_size": 1024', b'"page_size": 4096')[-300:]) as stream:
        stream.prove()
        assert stream.page_size == 1024
        assert stream.field("timer/ticks").value == 1
        assert stream.complete


def test_mapped_ram():
    front = mapped({1: b"\1" * PAGE}, 4)
    with qmigtool.open(front + saved("pc-7.2", OLD)[-150_000:]) as stream, qmigtool.open(front) as alone:
        assert stream.prove()
        assert stream.devices == () == alone.devices
        assert stream.capabilities == ("mapped-ram",)
        assert stream.sections[-1].offset == len(front)


@pytest.mark.parametrize("name", ["libvirt-raw.save", "libvirt-gzip.save"])
def test_a_save_image_on_a_volume(name):
    """libvirt writes to a block device, too, and does not cut it either."""
    image, tail = samplefiles.container(name), saved("pc-7.2", OLD)[-200_000:]
    with qmigtool.open(image) as alone, qmigtool.open(image + tail) as stream:
        stream.prove()
        assert [d.body for d in stream.devices] == [d.body for d in alone.devices]
        assert stream.vmdesc_text == alone.vmdesc_text


def test_packed():
    data = gzip.compress(saved("pc-7.2", NEW) + saved("pc-7.2", OLD), mtime=0)
    with qmigtool.open(data) as stream:
        assert stream.prove()
        assert stream.field(RBX).value == NEW
        assert stream.complete


def test_a_stream_inside_guest_memory_at_the_end_of_a_cut_one():
    """The file ends inside a page of a guest that holds migration files: what looks like its end is the guest's."""
    inner = StreamWriter("inner")
    inner.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    inner.end(1, zero(0, "r") + eos())
    inner.device(2, "fake", 0, Vmsd("fake", 1, [num("x", "uint64", 0xBAD)]))
    w = StreamWriter("pc-i440fx-7.2")
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", 64 * PAGE)]) + eos())
    w.part(1, page(0, b"\1" * PAGE, "pc.ram") + page(PAGE, bytes(inner.finish()).rjust(PAGE, b"\0")))
    cut = bytes(w.data[:-5])
    with qmigtool.open(cut) as stream:
        stream.prove()
        assert [d.name for d in stream.devices] == []
        assert isinstance(stream.error, TruncatedError)
        assert stream.error.offset == len(cut)


# -- proved, and by how much ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samplefiles.NAMES)
def test_real_streams_are_proved(name):
    with qmigtool.open(samplefiles.path(name)) as stream:
        before = [(d.label, d.section) for d in stream.devices]
        assert stream.prove()
        assert stream.problems == []
        assert [(d.label, d.section) for d in stream.devices] == before
        assert stream.complete


def test_the_walk_has_a_limit():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 100 * PAGE)]) + eos())
    for at in range(50):
        w.part(1, page(2 * at * PAGE, b"\1" * PAGE, "r") + eos())
    w.end(1, eos())
    w.device(2, "timer", 0, TIMER)
    with qmigtool.open(bytes(w.finish())) as stream:
        assert not stream.prove(1)
        assert not stream.prove(40 * PAGE)
        assert not stream.prove(40 * PAGE)
        assert stream.field("timer/ticks").value == 1
        assert stream.prove(60 * PAGE)
        assert stream.strategy == "tail-first"
        assert stream.complete
        assert [(s.type, s.offset) for s in stream.sections] == [(s.type, s.offset) for s in w.spans]


def test_the_limit_counts_inside_a_section_too():
    """A VM that was stopped before it was saved has all of its memory in one section."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 20_000 * PAGE)]) + eos())
    w.end(1, page(0, bytes(PAGE), "r") + b"".join(page(n * PAGE, b"\1" * PAGE) for n in range(1, 20_000)) + eos())
    w.device(2, "timer", 0, TIMER)
    with qmigtool.open(bytes(w.finish())) as stream:
        assert not stream.prove(1 << 20)
        assert stream._reading.reader.pos < 40 << 20
        assert stream.prove()


def test_the_walk_has_a_limit_of_runs():
    """Records that form no runs cost the most for their bytes."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 1 << 26), ("s", 1 << 26)]) + eos())
    jumping = b"".join(zero((5 * i & 0x3FFF) * PAGE) for i in range(20_000))
    naming = b"".join(zero(i % 16384 * PAGE, "rs"[i % 2]) for i in range(20_000))
    for part in [jumping, naming] * 8:
        w.part(1, zero(0, "r") + part + eos())
    w.end(1, eos())
    w.device(2, "timer", 0, TIMER)
    with qmigtool.open(bytes(w.finish())) as stream:
        for runs in (1, 50_000, 100_000, 100_000, 200_000):
            assert not stream.prove(None, runs)
            assert runs <= stream._reading.reader.ram.steps < runs + 30_000
        assert not stream.prove(1000, 1_000_000)
        assert stream.field("timer/ticks").value == 1
        assert stream.prove(None, 330_000)
        assert stream.complete
        assert stream.problems == []


def test_broken_memory_proves_nothing():
    data = bytearray(saved("pc-7.2", NEW))
    with qmigtool.open(bytes(data)) as stream:
        start = next(s for s in stream.sections if s.type == "part")
    data[start.body_offset : start.body_offset + 8] = b"\xff" * 8
    with qmigtool.open(bytes(data)) as stream:
        assert not stream.prove()
        assert not stream.proved
        assert stream.field(RBX).value == NEW  # shown, with the error
        assert [p.offset for p in stream.problems] == [start.body_offset]


# -- the cases, and the commands --------------------------------------------------------------------------------------


@pytest.fixture
def overwritten(tmp_path):
    return casefiles.put("hostile", "overwritten.mig", tmp_path)


def test_overwritten(call, overwritten):
    """QEMU loads EBX 0x1111: the stream at the front is whole, and what follows is said, as of any bytes behind one."""
    status, out, err = call("show", overwritten, RBX)
    assert (status, out) == (0, "0x1111\n")
    assert "517251 bytes follow the stream, from 0xa128d on" in err
    status, out, _ = call("show", overwritten, RBX, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["proved"] is True
    assert found["devices"][0]["fields"] == {RBX.split("/")[1]: "0x1111"}
    status, out, _ = call("check", overwritten)
    assert status == 1
    assert "[trailing-data]" in out
    assert "[stream-readable]" not in out


def test_overwritten_through_a_pipe(overwritten):
    """The same, where the end is not known before it comes."""
    data = Path(overwritten).read_bytes()
    with qmigtool.open(io.BufferedReader(Pipe(data))) as stream:
        assert stream.field(RBX).value == NEW
        assert stream.complete


class Pipe(io.RawIOBase):
    """Bytes that cannot be read twice."""

    def __init__(self, data):
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(buffer)


def test_an_eof_that_no_vmdesc_follows_may_be_damage():
    """Then the vmdesc at the end is this stream's, and the sections that it describes are missing."""
    data = bytearray(saved("pc-7.2", NEW))
    with qmigtool.open(bytes(data)) as stream:
        at = next(s.offset for s in stream.sections if s.name == "i8254")
    data[at] = 0
    with qmigtool.open(bytes(data)) as stream:
        stream.prove()
        assert "of another stream" in str(stream.error)
        assert stream.error.offset == at


def test_every_command_reads_the_stream_at_the_front(call, overwritten, tmp_path):
    alone = tmp_path / "alone.mig"
    with qmigtool.open(overwritten) as stream:
        tail = stream.sections[-1]
        assert tail.type == "tail"
        alone.write_bytes(bytes(stream.source.view(0, tail.offset)))
    area = str(tmp_path / "area")
    for command in (
        ["xsave", "table", "{}", "--csv"],
        ["sections", "{}", "--csv"],
        ["show", "{}", "--csv"],
        ["show", "{}", "cpu@0", "--csv"],
        ["analyze", "{}"],
        ["ram", "{}", "--csv"],
        ["xsave", "export", "{}", "--vcpu", "0", "--format", "standard", "--layout", "intel-skl", "-o", area],
    ):
        results = []
        for file in (str(alone), overwritten):
            status, out, _ = call(*(part.format(file) for part in command))
            lines = [line for line in out.splitlines() if not line.startswith(("tail,", f"{tail.offset},"))]
            results.append((lines, Path(area).read_bytes() if "-o" in command else None))
            assert status == 0, command
        assert results[0] == results[1], command
    assert call("diff", str(alone), overwritten)[0] == 0
    assert_same_state(alone, overwritten)
    assert call("preflight", overwritten, "--target", str(alone), "--target", "7.2")[0] == 0


def test_who_compares_it_with_the_older_stream_is_told(call, overwritten, tmp_path):
    older = tmp_path / "older.mig"
    with qmigtool.open(overwritten) as stream:
        edits = Rewriter(stream)
        edits.set(RBX, 0x240)
        edits.save(older)
    assert older.stat().st_size == Path(overwritten).stat().st_size  # what follows is copied with it
    with qmigtool.open(older) as stream:
        stream.prove()
        assert stream.field(RBX).value == 0x240
    assert call("diff", overwritten, str(older))[0] == 1
    with pytest.raises(AssertionError, match=r"env.regs\[3\]"):
        assert_same_state(overwritten, older)


def test_lie(call, tmp_path):
    lie = casefiles.put("hostile", "lie.mig", tmp_path)
    status, out, err = call("info", lie, "--json")
    assert status == 3
    found = json.loads(out)
    assert (found["proved"], found["devices"], found["vmdesc"]) == (True, 1, False)
    assert "at offset 0x38e" in err
    with qmigtool.open(lie) as stream:
        stream.prove()
        assert stream.devices[0].section.offset == 0x8C


def test_not_proved_is_said(call, monkeypatch):
    for command in ("info", "show", "xsave.table"):
        monkeypatch.setattr(f"qmigtool.cli.{command}.SHOWN_WALK", 4096)
    path = str(samplefiles.path("pc-7.2"))
    for command in (["show", path, RBX], ["xsave", "table", path], ["info", "--quick", path]):
        status, out, err = call(*command)
        assert (status, bool(out)) == (0, True)
        assert "not proved" in err
        status, out, err = call(*command, "--json")
        assert json.loads(out)["proved"] is False
    for command in (["show", path, RBX, "--prove"], ["xsave", "table", path, "--prove"], ["info", path]):
        status, out, err = call(*command, "--json")
        assert json.loads(out)["proved"] is True
        assert (status, err) == (0, "")
    status, out, _ = call("info", "--quick", path, "--json")
    found = json.loads(out)
    assert [found[key] for key in ("sections", "pages", "pages_held", "complete")] == [None] * 4
    assert found["vcpus"] == 4


def test_info_quick_of_a_small_stream(call):
    path = str(samplefiles.path("pc-7.2"))  # 0.5 MB of records, of the 256 MiB that are walked in any case
    assert SHOWN_WALK == 256 << 20
    assert call("info", "--quick", path) == call("info", path)
