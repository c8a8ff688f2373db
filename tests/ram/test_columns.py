"""The columns of the records of a block."""

import contextlib
import subprocess
import sys
import tempfile
import tracemalloc

import numpy as np
import pytest

from qmigtool.errors import LimitError, QmigError, StreamError
from qmigtool.parsers.ramruns import RunTable
from qmigtool.parsers.ramstate import RamBlock
from qmigtool.parsers.source import BufferSource
from qmigtool.ram import columns
from qmigtool.ram.columns import Encoding
from tests.ram.memories import MIB, ram_of
from tests.support.ramwriter import (
    filled,
    mapped,
)
from tests.support.streamwriter import PAGE, StreamWriter, eos, mem_size, page, zero


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


def test_a_bitmap_that_changes_with_every_bit_is_bounded(monkeypatch):
    pages = 8 * columns.PIECE * 8
    header = mapped({}, 64)
    with ram_of(header) as stream:
        block = stream.ram_blocks[0]
    size = pages // 8
    huge = RamBlock("r", pages * PAGE, 0, mapped=block.mapped)
    source = BufferSource(header[: block.mapped.bitmap_offset] + b"\x55" * size)
    tracemalloc.start()
    with pytest.raises(LimitError, match="the bitmap of RAM block 'r'"):
        columns.from_mapped(0, huge, source, PAGE, room=100_000)
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    found = columns.from_mapped(0, huge, source, PAGE)
    tracemalloc.stop()
    assert len(found) == pages
    assert found["encoding"][:4].tolist() == [4, 5, 4, 5]


@pytest.mark.parametrize("big_endian", [False, True])
def test_bitmaps_longer_than_a_piece(big_endian, monkeypatch):
    monkeypatch.setattr(columns, "PIECE", 16)
    rng = np.random.default_rng(5)
    for count in (64, 128, 129, 700, 1024):
        held = rng.random(count) < 0.5
        held[100:500] = held[100] if count > 500 else held[100:500]  # alike all over, across pieces
        held[:3] = True  # else nothing tells the byte order of whole words
        pages = {i: filled(i) for i in np.flatnonzero(held).tolist()}
        if count % 64 == 0 and big_endian:
            continue  # no bits beyond the last page: nothing tells
        with ram_of(mapped(pages, count, big_endian=big_endian)) as stream:
            want = b"".join(pages.get(i, bytes(PAGE)) for i in range(count))
            assert stream.ram.read("r", 0, count * PAGE) == want
            assert int(stream.ram.runs["pages"].sum()) == count
            changes = int((held[1:] != held[:-1]).sum())
            assert len(stream.ram.runs) == changes + 1


def test_one_broken_bitmap_leaves_the_others():
    data = bytearray(mapped({1: filled(5)}, 70))
    with ram_of(bytes(data)) as stream:
        bitmap = stream.ram_blocks[0].mapped.bitmap_offset
    data[bitmap + 8 : bitmap + 16] = b"\xff" * 8
    with ram_of(bytes(data)) as stream:
        assert stream.ram.absent("r") == 70
        assert len(stream.problems) == 1


def test_a_table_of_runs_takes_no_run_that_its_column_cannot_hold():
    table = RunTable(PAGE)
    table.add(0, 0, 0, 0, (1 << 32) - 1, 0, 0, 0)
    table.add(0, 0, 0, ((1 << 32) - 1) * PAGE, 1, 0, 0, 0)
    assert [run.pages for run in table] == [(1 << 32) - 1, 1]
