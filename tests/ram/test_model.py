"""Guest memory: every encoding against QEMU's own pmemsave and against a plain page-by-page reading."""

import contextlib
import functools
import hashlib
import io
import lzma
import random
import subprocess
import sys
import tempfile
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError, UnsupportedError, UsageError
from qmigtool.ram import usage
from qmigtool.ram.columns import Encoding
from qmigtool.ram.cover import cover
from tests.support import naiveram, samplefiles
from tests.support.packedsamples import NAMES, RAM, SHARED, packed, read
from tests.support.ramwriter import (
    QATZIP,
    QPL,
    SYNC,
    UADK,
    ZLIB,
    ZSTD,
    Deflate,
    channel,
    device_state,
    discard,
    filled,
    greeting,
    mapped,
    multifd_main,
    named_page,
    packet,
    plain,
    recv_bitmap,
    request,
    sync,
)
from tests.support.streamwriter import PAGE, StreamWriter, be32, be64, compressed, eos, mem_size, page, xbzrle, zero

MIB = 1 << 20
HOLE = slice(0xA0000, 0x100000)  # VGA and ROM windows: pmemsave reads devices there


def opened(name):
    sample = packed(name)
    return qmigtool.open(sample.path, channels=sample.channels)


@functools.cache
def naive(name):
    sample = packed(name)
    with opened(name) as stream:
        return naiveram.memory(stream, sample.path, sample.channels)


@pytest.fixture(autouse=True)
def untraced():
    yield
    tracemalloc.stop()


def ram_of(data, *channels, **options):
    return qmigtool.open(data, channels=channels, **options)


def main_block(stream):
    return "pc.ram" if "pc.ram" in {block.idstr for block in stream.ram_blocks} else stream.ram_blocks[0].idstr


# -- real streams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RAM if name not in SHARED])
def test_memory_is_what_pmemsave_wrote(name):
    with opened(name) as stream:
        block = main_block(stream)
        data = bytearray(stream.ram.read(block, 0, 16 * MIB))
        pages = b"".join(part.tobytes() for _, part in stream.ram.pages(block))
        assert not stream.problems
    assert pages[: HOLE.start] == data[: HOLE.start]
    data[HOLE] = bytes(HOLE.stop - HOLE.start)
    parts = [hashlib.sha256(data[at : at + MIB]).hexdigest() for at in range(0, len(data), MIB)]
    zeroes = hashlib.sha256(bytes(MIB)).hexdigest()
    assert ["zero" if part == zeroes else part for part in parts] == RAM[name]["mib"]
    assert hashlib.sha256(data).hexdigest() == RAM[name]["sha256"]


def test_what_pmemsave_wrote_is_not_the_same_for_all():
    """The test above would not pass with another stream's memory, or with none."""
    assert len({one["sha256"] for one in RAM.values()}) >= 7
    assert all(one["mib"][4] != "zero" != one["mib"][8] for one in RAM.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_page_of_every_block_is_the_naive_one(name):
    expected = naive(name)
    with opened(name) as stream:
        for block in stream.ram_blocks:
            if block.mr_addr is not None and not any(page[0] == block.idstr for page in expected.history):
                with pytest.raises(UnsupportedError, match="shared memory"):
                    next(stream.ram.pages(block.idstr))
                continue
            found = hashlib.sha256()
            # of a virtio-mem device, unplugged memory is never sent
            for _, part in stream.ram.pages(block.idstr, absent="zero" if "/d2" in block.idstr else "error"):
                found.update(part.tobytes())
            assert found.digest() == hashlib.sha256(expected.block(block.idstr)).digest(), block.idstr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_counts_and_histories_are_the_naive_ones(name):
    expected = naive(name)
    counts = {block: {} for block in expected.sizes}
    discarded = dict.fromkeys(expected.sizes, 0)
    for (block, _), writes in expected.history.items():
        for write in writes:
            if write.encoding == "discard":
                discarded[block] += 1
                continue
            counts[block][write.encoding] = counts[block].get(write.encoding, 0) + 1
    rng = random.Random(name)  # noqa: S311
    often = sorted(expected.history, key=lambda page: -len(expected.history[page]))[:20]
    with opened(name) as stream:
        ram = stream.ram
        assert ram.count() == counts
        assert ram.discarded() == discarded
        for block, number in [*often, *rng.sample(sorted(expected.history), min(60, len(expected.history)))]:
            found = ram.history(block, number * ram.page_size)
            writes = expected.history[block, number]
            assert [(r.channel, r.encoding.name.lower()) for r in found] == [(w.channel, w.encoding) for w in writes]
            assert [r.offset for r, w in zip(found, writes, strict=True) if w.offset is not None] == [
                w.offset for w in writes if w.offset is not None
            ]
            assert [r.order for r in found] == sorted({r.order for r in found})
            assert ram.page(block, number * ram.page_size) == expected.content.get(
                (block, number), bytes(ram.page_size)
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_last_writer_is_the_last_in_the_history(name):
    expected = naive(name)
    with opened(name) as stream:
        ram = stream.ram
        for block in stream.ram_blocks:
            final = ram.final(block.idstr)
            assert (final.start[1:] >= final.start[:-1] + final.pages[:-1]).all()
            written = {number for one, number in expected.history if one == block.idstr}
            assert int(final.pages.sum()) == len(written)
            for start, run in list(zip(final.start.tolist(), final.run.tolist(), strict=True))[:200]:
                last = expected.history[block.idstr, start][-1]
                assert Encoding(ram.runs[run]["encoding"]).name.lower() == last.encoding
                assert int(ram.runs[run]["channel"]) == last.channel


def test_mapped_memory_equals_its_plain_twin():
    """One guest, two QEMU runs: what it wrote by itself is the same bytes."""
    with opened("mapped-11.1") as one, opened("plain-7.2") as two, opened("mapped-offset-11.1") as three:
        assert one.ram.count()["pc.ram"].keys() == {"mapped", "mapped_zero"}
        for at in (4 * MIB, 8 * MIB):
            found = one.ram.read("pc.ram", at, MIB)
            assert found == two.ram.read("pc.ram", at, MIB) == three.ram.read("pc.ram", at, MIB)
        number = 0x412345 >> 12
        assert one.ram.read("pc.ram", number << 12, 8) == number.to_bytes(4, "little") * 2
        assert one.ram.read("pc.ram", (number << 12) + 0x7FF, 3) == bytes([0, number & 0xFF, 0])


def test_mapped_memory_holds_the_guest_program():
    """The guest program of the older samples is at 1 MiB in each of them, whatever QEMU and encoding; so do its
    patterns (see samples/MANIFEST.md)."""
    with (
        opened("mapped-10.0") as one,
        opened("compress-7.2") as two,
        qmigtool.open(samplefiles.path("pc-7.2")) as three,
        qmigtool.open(samplefiles.path("pc-11.1")) as four,
    ):
        programs = [stream.ram.read("pc.ram", MIB, 4 * PAGE) for stream in (one, two, three, four)]
        assert len({program[:256] for program in programs}) == 1
        assert [bytes(range(1, 33)) in program for program in programs] == [True] * 4


def test_requests_of_the_return_path_are_there():
    with opened("postcopy-preempt-7.2") as stream:
        asked = [message for message in stream.ram.return_path if message.start is not None]
        assert len(asked) > 100
        assert {message.block for message in asked} <= {"pc.ram", "pc.bios"}
        assert all(message.length == PAGE and message.start % PAGE == 0 for message in asked)
        # what was asked for was sent, and most of it on the preempt channel
        by = [[record.channel for record in stream.ram.history(m.block, m.start)] for m in asked]
        preempt = 1 + [path.name for path in packed("postcopy-preempt-7.2").channels].index(
            "postcopy-preempt-7.2.preempt.bin"
        )
        assert all(by)
        assert sum(preempt in channels for channels in by) > len(asked) * 0.8


def test_a_stream_with_its_channels_left_out_lacks_those_pages():
    with qmigtool.open(packed("multifd-none-7.2").path) as stream:
        assert stream.complete
        assert stream.ram.count()["pc.ram"] == {"zero": 3753}
        assert stream.ram.absent("pc.ram") == 343
        for action in (
            lambda: stream.ram.read("pc.ram", 4 * MIB, PAGE),
            lambda: stream.ram.page("pc.ram", 4 * MIB),
            lambda: next(stream.ram.pages("pc.ram")),
            lambda: stream.ram.write_block("pc.ram", io.BytesIO()),
        ):
            with pytest.raises(UnsupportedError, match="in none of the given channels"):
                action()
        assert stream.ram.read("pc.ram", 4 * MIB, PAGE, absent="zero") == bytes(PAGE)
        assert stream.ram.read("pc.ram", 0, MIB) == naive("multifd-none-7.2").block("pc.ram")[:MIB]


# -- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(addr=st.integers(0, 16 * MIB), length=st.integers(0, 40_000))
def test_any_range_can_be_read(addr, length):
    whole = naive("xbzrle-11.1").block("pc.ram")
    with opened("xbzrle-11.1") as stream:
        if addr + length > len(whole):
            with pytest.raises(UsageError):
                stream.ram.read("pc.ram", addr, length)
        else:
            assert stream.ram.read("pc.ram", addr, length) == whole[addr : addr + length]


def test_what_is_not_there_is_a_usage_error():
    with opened("plain-7.2") as stream:
        for action in (
            lambda: stream.ram.read("nothing", 0, 1),
            lambda: stream.ram.page("pc.ram", 16 * MIB),
            lambda: stream.ram.page("pc.ram", -1),
            lambda: stream.ram.read("pc.ram", 0, -1),
            lambda: stream.ram.history("pc.ram", 16 * MIB),
            lambda: stream.ram.final("PC.RAM"),
        ):
            with pytest.raises(UsageError):
                action()


@pytest.mark.parametrize("name", ["plain-7.2", "xbzrle-7.2", "compress-live-7.2", "multifd-zlib-7.2", "mapped-11.1"])
def test_a_block_is_written_with_holes(name, tmp_path):
    target = tmp_path / "memory"
    with opened(name) as stream, target.open("wb") as file:
        file.write(b"head")
        stream.ram.write_block("pc.ram", file)
        assert file.tell() == 4 + 16 * MIB
    assert target.read_bytes() == b"head" + naive(name).block("pc.ram")


def test_zero_pages_become_holes(tmp_path):
    target = tmp_path / "memory"
    with opened("plain-7.2") as stream, target.open("wb") as file:
        stream.ram.write_block("pc.ram", file)
    assert target.stat().st_size == 16 * MIB
    assert target.stat().st_blocks * 512 <= 343 * PAGE + 64 * 1024


def test_writing_over_an_old_file_leaves_nothing_of_it(tmp_path):
    """write_block() skips zero pages: an old file's bytes must not shine through."""
    target = tmp_path / "memory"
    target.write_bytes(b"\xff" * (2 * MIB))
    with ram_of(plain(named_page(3, 7), pages=64).finish()) as stream, target.open("r+b") as file:
        stream.ram.write_block("r", file, absent="zero")
    assert target.read_bytes() == bytes(3 * PAGE) + filled(7) + bytes(60 * PAGE)


def test_passes_count_rounds_through_memory():
    w = plain(
        named_page(0, 1), named_page(1, 2), named_page(5, 3), named_page(1, 4), named_page(4, 5), named_page(4, 6)
    )
    with ram_of(w.finish()) as stream:
        ram = stream.ram
        by_page = {number: [r.pass_ for r in ram.history("r", number * PAGE)] for number in range(8)}
        assert by_page == {0: [0], 1: [0, 1], 2: [], 3: [], 4: [1, 2], 5: [0], 6: [], 7: []}
        assert [(p["pass"], p["pages"]) for p in usage.passes(ram)] == [(0, 3), (1, 2), (2, 1)]
        assert usage.totals(ram) == {
            "sent_pages": 6, "distinct_pages": 4, "rewritten_pages": 2, "zero_ratio": 0.0, "absent_pages": 4,
        }  # fmt: skip


def test_later_records_win_page_by_page():
    records = [zero(i * PAGE, "r" if not i else None) for i in range(8)]
    w = plain(*records, named_page(2, 9), named_page(3, 8), zero(3 * PAGE), named_page(7, 1), zero(4 * PAGE, fill=0x5A))
    with ram_of(w.finish()) as stream:
        ram = stream.ram
        want = [bytes(PAGE)] * 8
        want[2], want[7], want[4] = filled(9), filled(1), b"\x5a" * PAGE
        assert ram.read("r", 0, 8 * PAGE, absent="zero") == b"".join(want)
        assert [ram.page("r", i * PAGE + 17, absent="zero") for i in range(8)] == want
        assert [r.encoding for r in ram.history("r", 3 * PAGE)] == [Encoding.ZERO, Encoding.NORMAL, Encoding.ZERO]
        assert usage.blocks(ram)[0] == {
            "name": "r", "size": 8 * PAGE, "pages": 8, "sent": 13, "distinct": 8, "zero": 6, "elsewhere": False,
            "by_encoding": {"zero": 10, "normal": 3}, "absent": 0, "discarded": 0,
        }  # fmt: skip


def test_a_block_whose_last_page_is_not_whole():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE), ("s", 100)][:1]) + eos())
    w.end(1, page(0, filled(1), "r") + eos())
    with ram_of(w.finish()) as stream:
        assert stream.ram.read("r", PAGE - 8, 8, absent="zero") == be64(1)
        with pytest.raises(UsageError):
            stream.ram.read("r", PAGE - 8, 9, absent="zero")


# -- cover: the last writer wins -------------------------------------------------------------------------------------

runs = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=30)


@settings(max_examples=400, deadline=None)
@given(runs=runs, sparse=st.booleans(), data=st.data())
def test_cover_is_what_painting_page_by_page_gives(runs, sparse, data):
    if sparse:  # clusters far apart, and runs that touch nothing
        runs = [(start * 7 % 400, count) for start, count in runs]
    orders = data.draw(st.permutations(range(len(runs))))
    painted = {}
    for order, (start, count) in sorted(zip(orders, runs, strict=True)):
        for page_ in range(start, start + count):
            painted[page_] = order
    columns = [np.array(column, np.int64) for column in zip(*runs, strict=True)] or [np.zeros(0, np.int64)] * 2
    found = cover(columns[0], columns[1], np.array(orders, np.int64))
    flat = {}
    for start, count, run in zip(*(column.tolist() for column in found), strict=True):
        assert count > 0
        for page_ in range(start, start + count):
            assert page_ not in flat
            flat[page_] = run
    assert flat == painted
    assert found.start.tolist() == sorted(found.start.tolist())
    for page_ in range(450):
        at = found.find(page_)
        assert (None if at is None else int(found.run[at])) == painted.get(page_)


# -- memory ----------------------------------------------------------------------------------------------------------

TIB = 1 << 40


def huge():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("huge", TIB)]) + eos())
    w.end(1, zero(0, "huge") + page(TIB - PAGE, filled(1)) + eos())
    return w.finish()


def test_a_terabyte_of_zeros_costs_nothing(tmp_path):
    with ram_of(huge()) as stream:
        ram = stream.ram
        tracemalloc.start()
        tracemalloc.reset_peak()
        assert len(ram.runs) == 2
        assert ram.page("huge", TIB // 2, absent="zero") == bytes(PAGE)
        assert ram.read("huge", TIB - PAGE, PAGE, absent="zero") == filled(1)
        assert ram.final("huge").pages.tolist() == [1, 1]
        assert usage.blocks(ram)[0]["distinct"] == 2
        assert len(ram.history("huge", 0)) == 1
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        tracemalloc.stop()


def test_a_terabyte_of_zeros_is_written_in_no_time(tmp_path):
    target = tmp_path / "huge"
    with ram_of(huge()) as stream, target.open("wb") as file:
        stream.ram.write_block("huge", file, absent="zero")
    assert target.stat().st_size == TIB
    assert target.stat().st_blocks <= 64
    with target.open("rb") as file:
        file.seek(TIB - PAGE)
        assert file.read() == filled(1)


def test_memory_grows_with_runs_not_with_pages():
    """Two GiB of RAM in two records' worth of runs; the process holds less than a tenth of that."""
    pages = 1 << 19
    program = (
        "import sys, qmigtool\n"
        "with qmigtool.open(sys.argv[1]) as s:\n"
        "    ram = s.ram\n"
        "    n = sum(int(p.any()) for _, p in ram.pages('r'))\n"
        "    hwm = [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]\n"
        "    print(len(ram.runs), n, *hwm)\n"
    )
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", pages * PAGE)]) + eos())
    body = np.zeros((pages, 9), np.uint8)
    body[:, :8] = (np.arange(pages, dtype=np.uint64) * PAGE + 0x22).astype(">u8").view(np.uint8).reshape(-1, 8)
    w.part(1, zero(0, "r") + body[1:].tobytes() + page(5 * PAGE, filled(3)) + eos())
    w.end(1, eos())
    with tempfile.NamedTemporaryFile() as file:
        file.write(w.finish())
        file.flush()
        done = subprocess.run([sys.executable, "-c", program, file.name], capture_output=True, check=True, text=True)
    count, live, peak = map(int, done.stdout.split())
    assert (count, live) == (3, 1)
    assert peak * 1024 < 200 * MIB


# -- XBZRLE ----------------------------------------------------------------------------------------------------------

DELTA = bytes.fromhex("a302 02 070c")  # the record that stream.md shows: skip 291, two bytes


def test_xbzrle_changes_what_the_page_was():
    w = plain(named_page(0, 1), xbzrle(0, DELTA), xbzrle(0, b"\x00\x01\xff"))
    want = bytearray(filled(1))
    want[291:293] = b"\x07\x0c"
    want[0] = 0xFF
    with ram_of(w.finish()) as stream:
        assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == bytes(want) + bytes(PAGE)
        assert stream.ram.page("r", 0, absent="zero") == bytes(want)
        assert [r.encoding.name for r in stream.ram.history("r", 0)] == ["NORMAL", "XBZRLE", "XBZRLE"]


def test_a_whole_page_forgets_the_deltas_before_it():
    w = plain(named_page(0, 1), xbzrle(0, DELTA), named_page(0, 2), xbzrle(0, b"\x01\x01\x99"), zero(PAGE, "r"))
    want = bytearray(filled(2))
    want[1] = 0x99
    with ram_of(w.finish()) as stream:
        assert stream.ram.page("r", 0, absent="zero") == bytes(want)
        assert stream.ram.final("r").run.tolist() == [r.order for r in stream.ram.history("r", 0)[-1:]] + [4]


def test_a_delta_on_a_page_never_sent_changes_zeros():
    with ram_of(plain(zero(PAGE, "r"), xbzrle(0, DELTA)).finish()) as stream:
        assert stream.ram.page("r", 0, absent="zero")[285:300] == bytes(6) + b"\x07\x0c" + bytes(7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("zpx"), st.integers(0, 255)), min_size=1, max_size=25))
def test_any_mix_of_pages_and_deltas(ops):
    state, records = {}, [zero(0, "r")]
    for number, kind, value in ops:
        before = state.get(number, bytes(PAGE))
        if kind == "z":
            records.append(zero(number * PAGE))
            state[number] = bytes(PAGE)
        elif kind == "p":
            records.append(page(number * PAGE, filled(value)))
            state[number] = filled(value)
        else:
            delta = bytes([value & 0x7F, 2, value, value ^ 0xFF])
            records.append(xbzrle(number * PAGE, delta))
            at = value & 0x7F
            state[number] = before[:at] + bytes([value, value ^ 0xFF]) + before[at + 2 :]
    with ram_of(plain(*records).finish()) as stream:
        want = b"".join(state.get(i, bytes(PAGE)) for i in range(8))
        assert stream.ram.read("r", 0, 8 * PAGE, absent="zero") == want
        assert b"".join(stream.ram.page("r", i * PAGE, absent="zero") for i in range(8)) == want


@pytest.mark.parametrize(
    "delta",
    [
        b"\x00",  # no count
        b"\x00\x02\x01",  # one byte too few
        b"\x00\x00",  # nothing changed
        b"\x80",  # half a number
        b"\xff\xff\xff\x01\x00",  # a number of three bytes
        b"\xff\x7f\x01\x00",  # 16383 bytes skipped
        bytes([0xFF, 0x1F, 2, 0, 0]),  # 4095 skipped, two changed
        b"\x00\x01\xaa\x00\x01\xbb",  # a second pair that skips nothing
    ],
)
def test_a_hostile_delta_is_a_stream_error(delta):
    with ram_of(plain(named_page(0, 1), xbzrle(0, delta), named_page(1, 5)).finish()) as stream:
        assert stream.complete  # its framing is whole
        for action in (
            lambda: stream.ram.page("r", 0, absent="zero"),
            lambda: stream.ram.read("r", 0, 1, absent="zero"),
            lambda: stream.ram.write_block("r", io.BytesIO(), absent="zero"),
        ):
            with pytest.raises(StreamError, match="XBZRLE") as caught:
                action()
            assert caught.value.offset is not None
        assert stream.ram.page("r", PAGE, absent="zero") == filled(5)


# -- compressed pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        zlib.compress(filled(1))[:-1],
        zlib.compress(filled(1))[:-4] + b"\0\0\0\0",
        zlib.compress(bytes(PAGE - 1)),
        zlib.compress(bytes(PAGE + 1)),
        zlib.compress(bytes(3 << 20)),  # a bomb
        zlib.compress(b""),
    ],
)
def test_a_hostile_zlib_page_is_a_stream_error(data):
    with ram_of(plain(named_page(0, 1), compressed(PAGE, data)).finish()) as stream:
        assert stream.ram.page("r", 0, absent="zero") == filled(1)
        for action in (
            lambda: stream.ram.page("r", PAGE, absent="zero"),
            lambda: stream.ram.read("r", 0, 8 * PAGE, absent="zero"),
        ):
            with pytest.raises(StreamError) as caught:
                action()
            assert caught.value.offset is not None


def test_compressed_pages_in_a_row():
    records = [compressed(i * PAGE, zlib.compress(filled(i + 10))) for i in range(1, 8)]
    with ram_of(plain(named_page(0, 10), *records).finish()) as stream:
        assert stream.ram.read("r", 0, 8 * PAGE, absent="zero") == b"".join(filled(i + 10) for i in range(8))
        assert stream.ram.count() == {"r": {"normal": 1, "compressed": 7}}


# -- mapped-ram ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [0, 0x12345])
@pytest.mark.parametrize("big_endian", [False, True])
def test_mapped_pages_by_either_byte_order(big_endian, origin):
    """A big-endian host's bitmap is recognised by the bits that would be beyond the last page."""
    pages = {0: filled(1), 3: filled(2), 4: filled(3), 69: filled(4)}
    data = mapped(pages, 70, big_endian=big_endian, origin=origin, stale={9: filled(66)})
    with ram_of(data) as stream:
        assert stream.complete, stream.problems
        ram = stream.ram
        assert ram.count() == {"r": {"mapped": 4, "mapped_zero": 66}}
        assert ram.read("r", 0, 70 * PAGE, absent="zero") == b"".join(pages.get(i, bytes(PAGE)) for i in range(70))
        at = data.index(filled(2))
        assert [(r.offset, r.encoding) for r in ram.history("r", 3 * PAGE)] == [(at, Encoding.MAPPED)]
        assert not stream.problems


def test_stale_bytes_of_a_mapped_page_are_ignored():
    with ram_of(mapped({1: filled(5)}, 64, stale={2: filled(6)})) as stream:
        assert stream.ram.read("r", PAGE, 2 * PAGE, absent="zero") == filled(5) + bytes(PAGE)


@pytest.mark.parametrize(
    "header",
    [
        {"version": 2},
        {"page_size": 1},
        {"page_size": 0},
        {"bitmap_offset": 0},
        {"bitmap_offset": 1 << 63},
        {"pages_offset": 1 << 63},
        {"pages_offset": 1},
        {"pages_offset": (1 << 64) - PAGE},
        {"bitmap_offset": (1 << 64) - 1, "pages_offset": (1 << 64) - 1},
    ],
)
def test_a_hostile_mapped_header_is_one_of_our_errors(header):
    with contextlib.suppress(QmigError), ram_of(mapped({1: filled(5)}, 70, **header)) as stream:
        stream.ram  # noqa: B018
        assert stream.problems
        stream.ram.read("r", 0, PAGE, absent="zero")


def test_a_bitmap_that_no_byte_order_explains():
    with ram_of(mapped({1: filled(5)}, 70, bitmap=b"\xff" * 16)) as stream:
        stream.ram  # noqa: B018 - building it finds the problem
        assert [type(problem) for problem in stream.problems] == [StreamError]
        assert "beyond its 70 pages" in str(stream.problems[0])


def test_a_mapped_file_cut_in_its_pages():
    data = mapped({1: filled(5), 60: filled(6)}, 70)
    with ram_of(data[: data.index(filled(6))]) as stream:
        assert not stream.complete
        assert any(isinstance(problem, TruncatedError) for problem in stream.problems)


# -- multifd ---------------------------------------------------------------------------------------------------------


def test_epochs_decide_across_channels():
    """Two channels, two rounds. Page 0 goes by channel 2 first, then by channel 1; page 1 the other way round."""
    one = channel(5, b"", packet([PAGE], filled(11)), packet([0], filled(20)))
    two = channel(5, b"", packet([0], filled(10)), packet([PAGE], filled(21)), number=1)
    for channels in ((one, two), (two, one)):
        with ram_of(multifd_main(3, 8).finish(), *channels) as stream:
            assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == filled(20) + filled(21)
            assert len(stream.ram.history("r", 0)) == 2
            assert not stream.problems


@pytest.mark.parametrize("flushes", [True, False])
def test_a_zero_page_on_the_main_channel_obeys_the_epochs(flushes):
    """START ends epoch 0, the PARTs epochs 1 and 2. Page 0 is zero in round 1, normal in 2; page 1 the other way."""
    between = [zero(0, "r"), zero(PAGE, "r")]
    main = multifd_main(2, 8, flushes=flushes, between=between).finish()
    other = channel(4, b"", packet([PAGE], filled(1)), packet([0], filled(2)))
    with ram_of(main, other) as stream:
        assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == filled(2) + bytes(PAGE)
        assert [r.encoding.name for r in stream.ram.history("r", PAGE)] == ["MULTIFD", "ZERO"]


def test_data_in_a_sync_packet_comes_before_the_sync():
    """Until 8.2 a packet has both; then an empty packet with stale numbers follows."""
    stale = packet([], flags=0, size=PAGE)
    other = (
        greeting() + packet([0], filled(1), flags=SYNC) + stale + packet([0], filled(2), flags=SYNC) + stale + sync()
    )
    with ram_of(multifd_main(1, 8, flushes=False).finish(), other) as stream:
        assert not stream.problems
        assert stream.ram.page("r", 0, absent="zero") == filled(2)
        assert [int(run["epoch"]) for run in stream.ram.runs] == [0, 1]


def test_zero_pages_of_a_packet_replace_what_was_there():
    other = channel(3, packet([0, PAGE], filled(1) + filled(2)), packet([PAGE], filled(3), zero=[0]))
    with ram_of(multifd_main(1, 8).finish(), other) as stream:
        assert not stream.problems
        assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == bytes(PAGE) + filled(3)


def zstd_or_skip():
    try:
        from compression import zstd
    except ImportError:
        zstd = pytest.importorskip("backports.zstd")
    return zstd


def zstd_packer():
    zstd = zstd_or_skip()
    packer = zstd.ZstdCompressor()
    return lambda data: packer.compress(data, packer.FLUSH_BLOCK)


@pytest.mark.parametrize(("method", "packer"), [(ZLIB, Deflate), (ZSTD, zstd_packer)])
def test_packed_payloads_share_one_stream_per_channel(method, packer):
    pack, pack_other = packer(), packer()
    first = packet([0, 3 * PAGE], pack(filled(1) + filled(2)), flags=method)
    stale = packet([], flags=0, size=99)
    one = channel(3, first, stale + packet([PAGE], pack(filled(3)), zero=[2 * PAGE], flags=method))
    second = channel(3, b"", packet([4 * PAGE], pack_other(filled(9)), flags=method), number=1)
    with ram_of(multifd_main(1, 8).finish(), one, second) as stream:
        assert not stream.problems
        assert stream.ram.read("r", 0, 5 * PAGE, absent="zero") == filled(1) + filled(3) + bytes(PAGE) + filled(
            2
        ) + filled(9)
        assert stream.ram.page("r", PAGE, absent="zero") == filled(3)


@pytest.mark.parametrize(("method", "name"), [(QPL, "QPL"), (UADK, "UADK"), (QATZIP, "QATZIP")])
def test_rare_compressions_are_recognised_by_name(method, name):
    other = channel(2, packet([0], b"whatever", flags=method) + packet([PAGE], b"more", flags=method))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        assert stream.ram.count() == {"r": {f"multifd_{name.lower()}": 2}}
        assert len(stream.ram.history("r", 0)) == 1
        for action in (
            lambda: stream.ram.page("r", 0, absent="zero"),
            lambda: stream.ram.read("r", 0, 8 * PAGE, absent="zero"),
        ):
            with pytest.raises(UnsupportedError) as caught:
                action()
            assert name.lower() in caught.value.feature.lower()
            assert caught.value.exit_code == 63
        assert stream.ram.page("r", 2 * PAGE, absent="zero") == bytes(PAGE)


def test_device_state_packets_are_passed_over():
    other = channel(2, device_state("0000:00:02.0", b"x" * 5000) + packet([0], filled(1)))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        assert stream.ram.page("r", 0, absent="zero") == filled(1)
        assert not stream.problems


HOSTILE = {
    "short greeting": greeting()[:50],
    "cut header": greeting() + packet([0], filled(1))[:1000],
    "cut payload": greeting() + packet([0], filled(1))[:-1],
    "magic": greeting() + packet([0], filled(1), magic=0x11223345),
    "version": greeting() + packet([0], filled(1), version=2),
    "pages": greeting() + packet([0], filled(1), count=129),
    "pages and zeros": greeting() + packet([0], filled(1), zeros=128),
    "billions": greeting() + packet([0], filled(1), count=0xFFFFFFFF, zeros=0xFFFFFFFF),
    "size": greeting() + packet([0], filled(1), size=0xFFFFFFFF),
    "less than pages": greeting() + packet([0], filled(1)[:-8]),
    "large payload": greeting() + packet([0], bytes(2 << 20), flags=ZLIB),
    "block": greeting() + packet([0], filled(1), block="no such"),
    "beyond the block": greeting() + packet([8 * PAGE], filled(1)),
    "far beyond": greeting() + packet([(1 << 64) - PAGE], filled(1)),
    "zero beyond": greeting() + packet([], zero=[1 << 40]),
    "unaligned": greeting() + packet([5], filled(1)),
    "device state": greeting() + device_state("x", b"", size=0xFFFFFFFF),
    "two compressions": greeting() + packet([0], Deflate()(filled(1)), flags=ZLIB) + packet([0], filled(1)),
    "no compression": greeting() + packet([0], filled(1), flags=0x3E),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_channel_leaves_the_rest_readable(data):
    other = channel(2, packet([PAGE], filled(2)), number=1)
    if not any(data is HOSTILE[name] for name in ("short greeting", "cut header", "cut payload", "device state")):
        data += sync() + sync()  # so that it is not their number that is noticed
    for channels in ((data, other), (other, data)):
        with ram_of(multifd_main(0, 8).finish(), *channels) as stream:
            stream.ram  # noqa: B018
            assert stream.problems, "nobody noticed"
            assert all(isinstance(problem, StreamError) for problem in stream.problems)
            assert stream.ram.page("r", PAGE, absent="zero") == filled(2)


@pytest.mark.parametrize("payload", [b"", b"\x78\x01garbage", Deflate()(filled(1)[:-1]), Deflate()(filled(1) + b"x")])
def test_a_hostile_packed_payload_is_one_of_our_errors(payload):
    other = channel(2, packet([0], payload or b"\0", flags=ZLIB))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        for action in (
            lambda: stream.ram.page("r", 0, absent="zero"),
            lambda: stream.ram.read("r", 0, 8 * PAGE, absent="zero"),
        ):
            with pytest.raises(StreamError) as caught:
                action()
            assert caught.value.section == "multifd"


def test_a_zstd_bomb_is_bounded():
    pack = zstd_packer()
    other = channel(2, packet([0], pack(bytes(64 << 20)), flags=ZSTD))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        tracemalloc.start()
        tracemalloc.reset_peak()
        with pytest.raises(StreamError):
            stream.ram.page("r", 0, absent="zero")
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        tracemalloc.stop()


# -- postcopy --------------------------------------------------------------------------------------------------------


def postcopy(*ranges, after=b"", pages=8, first=None):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", pages * PAGE)]) + eos())
    w.part(1, (first or b"".join(named_page(i, i + 1) for i in range(pages))) + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", discard("r", *ranges))
    w.part(1, after + eos())
    w.end(1, eos())
    return w


def test_a_discarded_page_is_forgotten():
    w = postcopy((2 * PAGE, 3 * PAGE), (7 * PAGE, PAGE), after=named_page(3, 99))
    with ram_of(w.finish(vmdesc=False)) as stream:
        assert stream.complete, stream.problems
        want = [filled(i + 1) for i in range(8)]
        want[2] = want[4] = want[7] = bytes(PAGE)
        want[3] = filled(99)
        assert stream.ram.read("r", 0, 8 * PAGE, absent="zero") == b"".join(want)
        assert [r.encoding.name for r in stream.ram.history("r", 3 * PAGE)] == ["NORMAL", "DISCARD", "NORMAL"]
        block = usage.blocks(stream.ram)[0]
        assert (block["sent"], block["distinct"], block["zero"]) == (9, 5, 0)
        totals = usage.totals(stream.ram)
        assert (totals["distinct_pages"], totals["rewritten_pages"]) == (5, 1)
        assert [p["pages"] for p in usage.passes(stream.ram)] == [8, 1]


def test_a_discard_forgets_deltas_too():
    first = named_page(0, 1) + xbzrle(0, DELTA)
    with ram_of(postcopy((0, PAGE), first=first).finish(vmdesc=False)) as stream:
        assert stream.ram.page("r", 0, absent="zero") == bytes(PAGE) == stream.ram.read("r", 0, PAGE, absent="zero")


def test_the_preempt_channel_has_its_own_continue():
    """Its pages apply after the switchover, whatever came before on the main channel."""
    preempt = page(2 * PAGE, filled(50), "r") + page(3 * PAGE, filled(51)) + page(4 * PAGE, filled(52))
    for terminator in (b"", eos()):
        with ram_of(postcopy((2 * PAGE, 3 * PAGE)).finish(vmdesc=False), preempt + terminator) as stream:
            assert not stream.problems
            assert stream.ram.read("r", 2 * PAGE, 3 * PAGE, absent="zero") == filled(50) + filled(51) + filled(52)
            assert stream.ram.history("r", 3 * PAGE)[-1].offset == 8 + 2 + PAGE


@pytest.mark.parametrize(
    "data", [page(0, filled(1)), page(8 * PAGE, filled(1), "r"), page(0, filled(1), "s"), page(0, filled(1), "r")[:-1]]
)
def test_a_hostile_preempt_channel(data):
    with ram_of(postcopy().finish(vmdesc=False), data) as stream:
        assert stream.ram.page("r", 0, absent="zero") == filled(1)
        assert [type(problem) for problem in stream.problems] in ([StreamError], [TruncatedError])


@pytest.mark.parametrize(
    "ranges", [((0, 9 * PAGE),), ((8 * PAGE, PAGE),), (((1 << 64) - PAGE, 2 * PAGE),), ((1 << 63, 1 << 63),)]
)
def test_a_hostile_discard_is_reported(ranges):
    with ram_of(postcopy(*ranges).finish(vmdesc=False)) as stream:
        assert not stream.complete
        assert stream.ram.page("r", 0, absent="zero") == filled(1)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\1\1r\0", b"\0\1r\0" + bytes(15), b"\0\7nothing\0", b"\0\xff"])
def test_a_broken_discard_is_reported(payload):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 8 * PAGE)]) + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", payload)
    w.end(1, named_page(0, 1) + eos())
    with ram_of(w.finish(vmdesc=False)) as stream:
        assert not stream.complete
        assert stream.ram.page("r", 0, absent="zero") == filled(1)


def test_a_hostile_return_path_leaves_the_messages_before():
    good = request(PAGE, PAGE, "r") + request(2 * PAGE, PAGE)
    for bad in (
        b"\0\0\0\0",
        b"\0\4\0\1x",
        b"\0\2\xff\xff",
        recv_bitmap("r", b"", size=1 << 62),
        recv_bitmap("r", b"", mark=1),
    ):
        with ram_of(postcopy().finish(vmdesc=False), good + bad) as stream:
            assert [(m.block, m.start) for m in stream.ram.return_path] == [("r", PAGE), ("r", 2 * PAGE)]
            assert len(stream.problems) == 1
            assert isinstance(stream.problems[0], StreamError)


@settings(max_examples=150, deadline=None)
@given(
    other=st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=3000).map(lambda raw: greeting() + raw),
        st.binary(max_size=200).map(lambda raw: greeting() + packet([0], filled(1))[:320] + raw),
        st.binary(max_size=200).map(lambda raw: b"\0\3\0\x0e" + raw),
        st.binary(max_size=200).map(lambda raw: be32(0) + be32(0x108) + b"\x01r" + raw),
    )
)
def test_whatever_a_channel_holds_only_our_errors_come(other):
    # One that starts as a packed file is unpacked, and may be refused, when it is opened.
    with contextlib.suppress(QmigError), ram_of(multifd_main(0, 8).finish(), other) as stream:
        with contextlib.suppress(QmigError):
            stream.ram.read("r", 0, 8 * PAGE, absent="zero")
        assert all(isinstance(problem, QmigError) for problem in stream.problems)


def test_every_flip_in_a_real_channel_is_ours():
    """Bits flipped in a zlib channel of real QEMU: never another exception."""
    sample = packed("multifd-zlib-7.2")
    raw = sample.channels[0].read_bytes()
    rng = random.Random(7)  # noqa: S311
    for _ in range(15):
        data = bytearray(raw)
        for _ in range(3):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        channels = [bytes(data), sample.channels[1]]
        with contextlib.suppress(QmigError), qmigtool.open(sample.path, channels=channels) as stream:
            stream.ram.read("pc.ram", 0, 16 * MIB)


def test_a_limit_is_told_as_one():
    with ram_of(multifd_main(0, 8).finish(), HOSTILE["billions"]) as stream:
        stream.ram  # noqa: B018
        assert LimitError in [type(problem) for problem in stream.problems]


def test_a_pipe_knows_what_was_written_but_not_what():
    data = read("xbzrle-11.1")
    with qmigtool.open(io.BytesIO(data), keep_runs=True) as stream:
        assert stream.complete
        with opened("xbzrle-11.1") as other:
            assert stream.ram.count() == other.ram.count()
        with pytest.raises(QmigError):
            stream.ram.page("pc.ram", 4 * MIB)
    with qmigtool.open(io.BytesIO(data)) as stream, pytest.raises(QmigError):
        stream.ram  # noqa: B018


def test_packed_samples_are_small():
    from tests.support.packedsamples import FOLDER

    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_500_000
    assert all(lzma.LZMADecompressor().decompress(path.read_bytes(), 16) for path in FOLDER.glob("*.mig.xz"))
