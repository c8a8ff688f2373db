"""The framing, read whole, in pieces of every size and with junk behind it; expectations are what the writer wrote."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import LimitError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.savevm import MAX_VMDESC, Reader
from qmigtool.parsers.section import Type
from qmigtool.parsers.window import Window
from tests.parsers.framing import error_of
from tests.parsers.reading import as_spans, read_pieces, read_steps, read_whole
from tests.support import samplefiles
from tests.support.streamwriter import (
    PAGE,
    Pairs,
    StreamWriter,
    Vmsd,
    be32,
    be64,
    capabilities,
    compressed,
    eos,
    flush,
    mem_size,
    num,
    page,
    raw,
    str8,
    target_page_bits,
    uuid_subsection,
    word,
    xbzrle,
    zero,
)

TIMER = Vmsd("timer", 2, [num("ticks", "int64", -5), raw("unused", bytes(8), "unused_buffer"), num("c", "int64", 9)])


def rich_stream(**options) -> StreamWriter:
    """A little of everything that QEMU puts into a stream, in the order it does."""
    w = StreamWriter(config=target_page_bits(12) + uuid_subsection(bytes(range(16))), **options)
    w.command(1, "OPEN_RETURN_PATH")
    w.command(2, "PING", be32(1))
    w.command(3, "POSTCOPY_ADVISE", be64(0x201000) + be64(PAGE))
    blocks = [("pc.ram", 64 * PAGE), ("m", 0x200000, be64(0x200000)), ("/rom@x", PAGE)]
    w.start(2, "ram", 0, 4, mem_size(blocks) + flush() + eos())
    w.start(3, "dirty-bitmap", 0, 1, b"\x01")
    w.full(9, "0000:00:04.0/virtio-mem-device-early", 0, 1, b"\x07" * 9)
    records = page(0, b"a" * PAGE, "pc.ram") + page(PAGE, b"b" * PAGE) + page(2 * PAGE, b"c" * PAGE)
    w.part(2, records + b"".join(zero(n * PAGE) for n in range(3, 40)) + eos())
    w.part(3, b"\x01")
    w.part(2, zero(40 * PAGE) + xbzrle(PAGE, b"\x05\x01x") + compressed(0, b"z" * 97, "pc.ram") + eos())
    w.part(2, eos())
    w.command(11, "SWITCHOVER_START")
    w.end(2, page(0, b"d" * PAGE, "/rom@x") + flush() + eos())
    w.end(3, b"\x01")
    w.device(0, "timer", 0, TIMER)
    w.old_style(40, "slirp", 0, 4, bytes(range(131)))
    # The footer's own bytes inside a body: by chance, and followed by what is no item.
    w.device(5, "odd", 1, Vmsd("odd", 0, [raw("data", b"\x7e\0\0\0\x05" + b"\xff" * 9 + b"\x7e\0\0\0\x05")]))
    return w


def whole(**options) -> tuple[bytes, StreamWriter]:
    w = rich_stream(**options)
    return w.finish(), w


def test_every_item_is_where_it_was_written():
    data, w = whole()
    found = read_whole(data)
    assert found.error is None
    assert found.problems == []
    assert as_spans(found.sections) == w.spans
    assert [s.measured for s in found.sections if s.type is Type.FULL] == ["footer search"] * 4
    assert {s.measured for s in found.sections if s.name == "ram"} == {"records"}
    assert all(s.complete for s in found.sections)


def test_configuration_and_ram_are_known_afterwards():
    data, _ = whole()
    reader = Reader(Window(data, final=True))
    list(reader.sections())
    assert reader.done
    assert reader.footers is True
    assert reader.configuration.machine == "pc-i440fx-7.2"
    assert reader.configuration.uuid == bytes(range(16))
    assert [(b.idstr, b.used_length, b.page_size) for b in reader.ram.blocks] == [
        ("pc.ram", 64 * PAGE, None),
        ("m", 0x200000, 0x200000),
        ("/rom@x", PAGE, None),
    ]


@pytest.mark.parametrize("options", [{}, {"machine": None}], ids=["config", "no config"])
@pytest.mark.parametrize("junk", [b"", b"\0" * 77, b"\x04junk \xff"], ids=["exact", "zeros", "junk"])
def test_one_byte_at_a_time(options, junk):
    w = rich_stream(**options)
    data = w.finish(tail=junk)
    found = read_whole(data)
    assert as_spans(found.sections) == w.spans
    assert read_steps(data, 1) == found


def test_a_stream_without_a_vmdesc_in_every_way_of_feeding():
    for junk in (b"", b"\0", b"\x05abc", b"QEVM"):
        w = rich_stream()
        data = w.finish(vmdesc=False, tail=junk)
        found = read_whole(data)
        assert found.error is None
        assert as_spans(found.sections) == w.spans
        assert read_steps(data, 1) == found


@given(st.lists(st.integers(1, 9000), max_size=60))
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_size(sizes):
    data, w = whole()
    found = read_pieces(data, sizes)
    assert as_spans(found.sections) == w.spans
    assert found == read_whole(data)


def test_every_single_boundary():
    """A piece may end anywhere; 0 is where a state could be left too early."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 9 * PAGE)]) + eos())
    w.end(1, zero(0, "r") + zero(PAGE) + eos())
    w.device(2, "timer", 0, TIMER)
    data = w.finish(tail=b"\0\0")
    expected = read_whole(data)
    assert as_spans(expected.sections) == w.spans
    for cut in range(len(data)):
        assert read_pieces(data, [cut]) == expected, cut


@pytest.mark.parametrize("name", samplefiles.NAMES)
def test_samples_in_pieces(name):
    data = samplefiles.read(name)
    options = {"page_size": 4096}
    expected = read_whole(data, **options)
    assert expected.error is None
    assert sum(s.length for s in expected.sections) == len(data)
    for step in (1021, 4096, 65_537):
        assert read_steps(data, step, **options) == expected
    choice = random.Random(name)  # noqa: S311 - a reproducible choice, not a secret
    assert read_pieces(data, (choice.randint(1, 40_000) for _ in itertools.count()), **options) == expected


@pytest.mark.parametrize("name", ["pc-7.2", "novmdesc-7.2"])
def test_samples_with_junk_behind_them(name):
    data = samplefiles.read(name)
    plain, junk = read_whole(data), read_whole(data + b"junk behind the stream")
    assert junk.sections[:-1] == plain.sections
    assert (junk.sections[-1].type, junk.sections[-1].offset, junk.sections[-1].length) == (Type.TAIL, len(data), 22)
    assert junk.runs == plain.runs


def test_footers_off_with_lengths_from_elsewhere():
    w = StreamWriter(footers=False)
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    w.device(2, "timer", 0, TIMER)
    w.device(3, "timer", 1, TIMER)
    data = w.finish()
    found = read_whole(data, lengths=lambda name, instance: 24)
    assert as_spans(found.sections) == w.spans
    assert [s.measured for s in found.sections if s.type is Type.FULL] == ["vmdesc"] * 2
    without = read_whole(data)
    assert without.error.startswith("UnsupportedError")
    assert "neither footers nor a vmdesc" in without.error
    assert read_steps(data, 1) == without


def test_a_wrong_description_gives_way_to_the_footer():
    """QEMU before 11 measures an array of pointers with NULLs by its first element (s390x css)."""
    for wrong in (0, 3, 23, 25, 10_000):
        w = StreamWriter()
        w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
        w.device(2, "timer", 0, TIMER)
        found = read_whole(w.finish(), lengths=lambda name, instance, wrong=wrong: wrong)
        assert as_spans(found.sections) == w.spans
        assert [s.measured for s in found.sections if s.type is Type.FULL] == ["footer search"]


def test_lengths_are_for_full_sections_only():
    """VFIO owns a live section and an old-style FULL one of the same name; the vmdesc has only the second."""
    asked = []

    def lengths(name, instance):
        asked.append((name, instance))
        return 24

    w = StreamWriter()
    w.start(7, "x/vfio", 0, 1, be64(0xFFFFFFFFEF100003) + be64(0xFFFFFFFFEF100001))
    w.part(7, be64(0xFFFFFFFFEF100001))
    w.end(7, be64(0xFFFFFFFFEF100001))
    w.full(7, "x/vfio", 0, 1, b"v" * 24)
    found = read_whole(w.finish(), lengths=lengths)
    assert as_spans(found.sections) == w.spans
    assert asked == [("x/vfio", 0)]
    assert found.sections[-3].measured == "vmdesc"


def postcopy(inside, *, length=None, after=True) -> StreamWriter:
    """A stream that switched to postcopy; ``inside`` writes the package's items."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 8 * PAGE)]) + eos())
    w.part(1, zero(0, "r") + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", b"\0" + str8("r") + b"\0" + be64(0) + be64(PAGE))
    trial = StreamWriter(None)
    before = len(trial.data)
    inside(trial)
    w.packaged(len(trial.data) - before if length is None else length)
    inside(w)
    if after:
        w.command(2, "PING", be32(4))
        w.part(1, zero(PAGE) + eos())
        w.end(1, eos())
    return w


def package_items(w):
    w.command(4, "POSTCOPY_LISTEN")
    w.full(2, "timer", 0, 2, TIMER.body())
    w.full(3, "last", 0, 1, b"\x7e\0\0\0\x03\xff")
    w.command(2, "PING", be32(3))
    w.command(5, "POSTCOPY_RUN")


@pytest.mark.parametrize("ends_in_section", [False, True])
def test_a_package_is_read_item_by_item(ends_in_section):
    def items(w):
        package_items(w)
        if ends_in_section:
            w.full(4, "end", 0, 1, b"body")

    w = postcopy(items)
    data = w.finish(vmdesc=False)
    found = read_whole(data)
    assert found.error is None
    assert as_spans(found.sections) == w.spans
    assert read_steps(data, 1) == found


def test_an_empty_package():
    w = postcopy(lambda w: None)
    assert as_spans(read_whole(w.finish()).sections) == w.spans


@pytest.mark.parametrize("short", [1, 4, 12])
def test_an_item_that_runs_past_its_package(short):
    w = StreamWriter(None)
    package_items(w)
    w = postcopy(package_items, length=len(w.data) - 8 - short)
    found = read_whole(w.finish(vmdesc=False))
    assert "past the end of its package" in found.error
    assert found.error.startswith("StreamError at offset 0x")


def test_no_eof_inside_a_package():
    w = postcopy(package_items, length=4000, after=False)
    found = read_whole(w.finish(vmdesc=False))
    assert found.error.startswith(f"StreamError at offset {len(w.data) - 1:#x}: no item starts with 0x00")


def test_no_package_inside_a_package():
    w = postcopy(lambda w: (w.packaged(5), w.command(4, "POSTCOPY_LISTEN")))
    assert "a package inside a package" in read_whole(w.finish()).error


START = StreamWriter()
START.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
HERE = len(START.data)


@pytest.mark.parametrize(
    ("data", "kind", "offset", "words"),
    [
        (b"", TruncatedError, 0, "FileHeader.magic"),
        (b"QEV", TruncatedError, 3, "4 bytes of FileHeader.magic from 0x0, of which 3"),
        (b"QEVM\0\0\0\x04", StreamError, 4, "stream version 4"),
        (b"QEVM\0\0\0\x02", UnsupportedError, 4, "version 2"),
        (b"\x7fELF\0\0\0\x03", StreamError, 0, "0x7f454c46"),
        (b"QEVM\0\0\0\x03", TruncatedError, 8, "no EOF byte yet"),
        (b"QEVM\0\0\0\x03\x05", StreamError, 8, "no item starts with 0x05"),
        (b"QEVM\0\0\0\x03\x06\0\0\0\x02{}", StreamError, 8, "no item starts with 0x06"),
        (bytes(START.data) + b"\x7e\0\0\0\x01", StreamError, HERE, "no item starts with 0x7e"),
        (bytes(START.data) + b"\x02\0\0\0\x02", StreamError, HERE, "PART of section 2, which was never started"),
        (bytes(START.data) + b"\x03\0\0\0\x00", StreamError, HERE, "END of section 0, which was never started"),
        (bytes(START.data) + b"\x08\0\x0c\0\0", StreamError, HERE + 1, "unknown command 12"),
        (bytes(START.data) + b"\x08\0\0\0\0", StreamError, HERE + 1, "unknown command 0"),
        (bytes(START.data) + b"\x08\0\x02\0\x05", StreamError, HERE + 3, "PING with 5 bytes"),
        (bytes(START.data) + b"\x08\0\x02\0\x04\0\0", TruncatedError, HERE + 7, "4 bytes of MIG_CMD_PING"),
        (bytes(START.data) + b"\x04\0\0\0\x09\0", StreamError, HERE + 5, "SectionHeader.idstr is empty"),
        (
            b"QEVM\0\0\0\x03\x01\0\0\0\x01\x03ram" + be32(0) + be32(3),
            UnsupportedError,
            8,
            "ram section version 3",
        ),
        (
            bytes(START.data) + b"\x00\x06" + be32(MAX_VMDESC + 1) + b"{",
            LimitError,
            HERE + 2,
            "a vmdesc of 67108865 bytes",
        ),
        (bytes(START.data) + b"\x00\x06\0\0\0\x05{}", TruncatedError, HERE + 8, "5 bytes of the vmdesc"),
    ],
)
def test_errors_say_where_and_what(data, kind, offset, words):
    error = error_of(data)
    assert type(error) is kind
    assert error.offset == offset
    assert words in str(error)


def test_a_missing_footer():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    at = len(w.data)
    error = error_of(bytes(w.data) + b"\x02\0\0\0\x01" + eos() + b"\x7e\0\0\0\x02\0")
    assert (error.offset, error.section) == (at + 13, "ram")
    assert "no footer of section 1 here, but 7e 00 00 00 02" in str(error)
    assert error.expected == "7e 00 00 00 01"


def test_errors_inside_a_body_name_its_section():
    assert error_of(bytes(START.data) + b"\x02\0\0\0\x01" + word(0, 0x401)).section == "ram"


def test_what_a_broken_item_leaves():
    data = bytes(START.data) + b"\x02\0\0\0\x01" + zero(0, "r") + b"\xff" * 20
    reader = Reader(Window(data, final=True))
    with pytest.raises(StreamError):
        list(reader.sections())
    partial = reader.partial()
    assert (partial.type, partial.offset, partial.length) == (Type.PART, HERE, len(data) - HERE)
    assert (partial.name, partial.body_offset, partial.complete) == ("ram", HERE + 5, False)

    data = bytes(START.data) + b"\x0f\x0f"
    reader = Reader(Window(data, final=True))
    with pytest.raises(StreamError):
        list(reader.sections())
    partial = reader.partial()
    assert (partial.type, partial.offset, partial.length) == (Type.UNREADABLE, HERE, 2)


def test_a_cut_anywhere_gives_what_was_before_it():
    data, w = whole()
    whole_sections = read_whole(data).sections
    for cut in range(8, len(data), 131):
        found = read_whole(data[:cut])
        assert found.sections == [s for s in whole_sections if s.end <= cut][: len(found.sections)]
        if found.error is None:  # behind EOF nothing is owed, and a cut body may have ended by chance
            assert cut > w.spans[-2].offset
        else:
            assert found.error.startswith(("TruncatedError", "StreamError", "UnsupportedError"))


def test_a_tail_that_looks_like_a_vmdesc_and_is_none():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    data = w.finish(vmdesc=False, tail=b"\x06\xff\xff\xff\xffno brace")
    assert as_spans(read_whole(data).sections) == w.spans
    assert read_steps(data, 1) == read_whole(data)


def test_capabilities_reach_the_ram_reader():
    w = StreamWriter(config=capabilities("x-ignore-shared"))
    w.start(1, "ram", 0, 4, mem_size([("m", PAGE, be64(0xFFFC0000)), ("rom", PAGE, be64(0))]) + eos())
    reader = Reader(Window(w.finish(), final=True))
    list(reader.sections())
    assert [block.mr_addr for block in reader.ram.blocks] == [0xFFFC0000, 0]


def test_the_writer_writes_duplicate_keys():
    """The tests of lists depend on it."""
    from tests.support.streamwriter import dump

    assert dump(Pairs([("a", 1), ("a", [Pairs([("b", "é")])])])) == '{"a": 1, "a": [{"b": "\\u00e9"}]}'
    assert dump(Pairs([("a", [1])]), spaced=True) == '{ "a" : [ 1 ] }'
