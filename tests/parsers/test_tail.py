"""The way backwards: the vmdesc found from the end, and the sections before it."""

import time

import pytest

from qmigtool.errors import StreamError
from qmigtool.parsers import tail
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.tail import find_vmdesc, walk_back
from tests.parsers.reading import as_spans
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, be32, eos, mem_size, num, page, raw, zero

TIMER = Vmsd("timer", 2, [num("ticks", "int64", 1), num("clock", "int64", 2)])


def stream(**options):
    w = StreamWriter(**options)
    w.start(1, "ram", 0, 4, mem_size([("r", 8 * PAGE)]) + eos())
    w.end(1, page(0, bytes(PAGE), "r") + zero(PAGE) + eos())
    w.device(2, "timer", 0, TIMER)
    w.device(3, "cpu", 0, Vmsd("cpu", 12, [raw("x", bytes(100))], [Vmsd("cpu/sub", 1, [num("y", "uint8", 5)])]))
    w.device(4, "cpu", 1, Vmsd("cpu", 12, [raw("x", bytes(100))]))
    w.old_style(0, "slirp", 0, 4, b"\x7e\0\0\0\0" * 9)
    return w


def located(data):
    return find_vmdesc(BufferSource(data))


def walked(data):
    source = BufferSource(data)
    return walk_back(source, find_vmdesc(source))


@pytest.mark.parametrize("padding", [0, 1, 511, 70_000, (1 << 20) - 1, 1 << 20, 3 << 20])
def test_the_vmdesc_is_found_from_the_end(padding):
    w = stream()
    data = w.finish() + bytes(padding)
    (at,) = (span for span in w.spans if span.type == "vmdesc")
    found = located(data)
    assert (found.offset, found.end) == (at.offset, at.offset + at.length)
    assert len(found.vmdesc.devices) == 4


@pytest.mark.parametrize("size", [(1 << 20) - 7, (1 << 20) - 6, (1 << 20) - 5, 1 << 20, (1 << 20) + 1])
def test_the_mark_across_the_chunks_of_the_search(size):
    text = b'{"page_size": 4096, "devices": []'
    text += b" " * (size - len(text) - 1) + b"}"
    data = b"x" * 99 + b"\0\6" + be32(len(text)) + text
    assert located(data).offset == 100


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\6",
        b"\0\6\0\0\0\2{",
        b"x" * 3000,
        b"\0\6" * 3000,
        stream().finish(vmdesc=False),
        stream().finish() + b"garbage",
        stream().finish()[:-1],
    ],
    ids=["empty", "one", "mark", "short", "x", "marks", "none", "garbage behind", "cut"],
)
def test_no_vmdesc(data):
    assert located(data) is None


def test_many_marks_cost_little():
    data = b"\0\6" * (2 << 20)
    start = time.perf_counter()
    assert located(data) is None
    assert time.perf_counter() - start < 2


def test_a_text_that_is_no_vmdesc():
    text = b'{"no": "vmdesc"}'
    with pytest.raises(StreamError) as caught:
        located(b"abc\0\6" + be32(len(text)) + text)
    assert (caught.value.offset, caught.value.section) == (9, "vmdesc")


def test_what_looks_like_one_inside_the_true_one_is_no_matter():
    """The mark cannot be in JSON text, but a candidate before the true one could be in RAM."""
    inner = stream().finish()
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 8 * PAGE)]) + eos())
    w.end(1, page(0, inner[-PAGE:].rjust(PAGE, b"\0"), "r") + eos())
    w.device(2, "timer", 0, TIMER)
    data = w.finish()
    assert [d.idstr for d in located(data).vmdesc.devices] == ["timer"]


def test_candidates_are_counted(monkeypatch):
    monkeypatch.setattr(tail, "MAX_CANDIDATES", 2)
    bad = b"\0\6\0\0\0\4{  }"
    with pytest.raises(StreamError):
        located(b"\0\6\0\0\0\2{}" + bytes(5) + bad)


@pytest.mark.parametrize("footers", [True, False])
def test_walk_finds_every_device(footers):
    w = stream(footers=footers)
    found = walked(w.finish())
    assert as_spans(found.sections) == [s for s in w.spans if s.type == "full"]
    assert found.start == found.sections[0].offset
    assert (found.footers, found.missing, found.stopped) == (footers, (), None)
    assert {s.measured for s in found.sections} == {"vmdesc"}


def test_an_early_device_is_missing():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.device(9, "early", 0, TIMER)
    w.end(1, zero(0, "r") + eos())
    w.device(2, "timer", 0, TIMER)
    found = walked(w.finish())
    assert [s.name for s in found.sections] == ["timer"]
    assert [d.idstr for d in found.missing] == ["early"]
    assert found.stopped is not None


@pytest.mark.parametrize("where", ["marker", "id", "length", "name", "instance", "version", "footer", "footer id"])
def test_any_damage_to_a_frame_stops_the_walk(where):
    w = stream()
    data = bytearray(w.finish())
    span = [s for s in w.spans if s.type == "full"][1]
    end = span.offset + span.length
    at = {
        "marker": span.offset,
        "id": span.offset + 4,
        "length": span.offset + 5,
        "name": span.offset + 6,
        "instance": span.body_offset - 5,
        "version": span.body_offset - 1,
        "footer": end - 5,
        "footer id": end - 1,
    }[where]
    data[at] ^= 0x10
    found = walked(bytes(data))
    assert [s.name for s in found.sections] == ["cpu", "slirp"]
    assert [d.idstr for d in found.missing] == ["timer", "cpu"]
    assert span.offset <= found.stopped.offset < end


def test_a_vmdesc_of_another_stream():
    data = stream().finish(vmdesc=False)
    text = StreamWriter().vmdesc_text()
    found = walked(data + b"\6" + be32(len(text)) + text)
    assert (found.sections, found.stopped) == ((), None)
    w = StreamWriter()
    w.device(1, "other", 0, Vmsd("other", 1, [raw("x", bytes(1 << 20))]))
    text = w.vmdesc_text()
    found = walked(data + b"\6" + be32(len(text)) + text)
    assert found.sections == ()
    assert "more than the stream contains" in str(found.stopped)


@pytest.mark.parametrize("name", samplefiles.DESCRIBED)
def test_samples(name):
    data = samplefiles.read(name)
    found = walked(data)
    assert found.missing == ()
    at = found.start
    for section in found.sections:
        assert section.offset == at
        assert data[at] == 4
        assert data[section.end - 5 : section.end] == b"\x7e" + be32(section.section_id)
        at = section.end
    assert data[at : at + 2] == b"\0\6"
    assert data[found.start - 5] == 0x7E
