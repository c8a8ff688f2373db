"""Runs against a naive loop that looks at one record at a time."""

import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.parsers import ramruns
from qmigtool.parsers.ram import RamBody
from qmigtool.parsers.ramruns import Run, RunTable, run_length
from qmigtool.parsers.ramstate import RamState
from qmigtool.parsers.window import NeedMoreData, Window
from tests.support import samplefiles
from tests.support.streamwriter import compressed, eos, mem_size, page, xbzrle, zero

P = 256  # the smallest target page: more records per byte
BLOCKS = [("a", 400 * P), ("bb", 3 * P), ("c" * 255, 900 * P)]


def naive(data: bytes) -> list[tuple[int, int, int, int, int, int, int]]:
    """(offset, flags, block, addr, head, payload, fill) of each page record of one body behind a block list."""
    found = []
    names = [name.encode() for name, _ in BLOCKS]
    at = len(mem_size(BLOCKS))
    block = None
    while True:
        start = at
        word = struct.unpack_from(">Q", data, at)[0]
        flags, addr = word & (P - 1), word & ~(P - 1)
        at += 8
        if flags == 0x10:
            return found
        if not flags & 0x20:
            length = data[at]
            block = names.index(data[at + 1 : at + 1 + length])
            at += 1 + length
        kind = flags & ~0x20
        fill = payload = 0
        if kind == 0x02:
            fill = data[at]
            at += 1
        elif kind == 0x08:
            payload = P
        elif kind == 0x40:
            payload = struct.unpack_from(">H", data, at + 1)[0]
            at += 3
        found.append((start, kind, block, addr, at - start, payload, fill))
        at += payload


def expand(runs) -> list[tuple[int, int, int, int, int, int, int]]:
    """What the runs say, record by record."""
    return [
        (r.offset + i * (r.head + r.payload), r.flags, r.block, r.addr + i * P, r.head, r.payload, r.fill)
        for r in runs
        for i in range(r.pages)
    ]


def merged(records):
    """How many runs there must be: neighbours in one run agree in everything and follow each other."""
    count = 0
    last = None
    for record in records:
        offset, kind, block, addr, head, payload, fill = record
        follows = (
            last is not None
            and last[1:3] + last[4:] == (kind, block, head, payload, fill)
            and addr == last[3] + P
            and offset == last[0] + last[4] + last[5]
        )
        count += not follows
        last = record
    return count


@st.composite
def bodies(draw):
    """A START body with runs of every length, and everything that can break one."""
    out = mem_size(BLOCKS)
    named = False
    for _ in range(draw(st.integers(0, 12))):
        index = draw(st.integers(0, 2))
        name, length = BLOCKS[index]
        pages = length // P
        first = draw(st.integers(0, pages - 1))
        count = draw(st.one_of(st.integers(1, 12), st.integers(1, pages))) if pages - first > 1 else 1
        count = min(count, pages - first)
        kind = draw(st.sampled_from(["zero", "page", "xbzrle"]))
        fill = draw(st.sampled_from([0, 0, 7]))
        breaks = draw(st.sets(st.integers(0, count), max_size=3))
        for i in range(count):
            block = name if i == 0 or not named else None
            named = True
            addr = (first + i) * P
            if i in breaks and i:
                addr = first * P
            if kind == "zero":
                out += zero(addr, block, fill ^ (1 if i in breaks else 0))
            elif kind == "page":
                out += page(addr, bytes([i & 0xFF, 0x28]) * (P // 2), block)
            else:
                out += xbzrle(addr, b"\x00\x01" + bytes([i & 0xFF]), block)
    return out + eos()


def walk(data, sizes=None):
    state = RamState(P)
    state.runs = RunTable(P)
    body = RamBody(state)
    if sizes is None:
        window = Window(data, final=True)
        pieces = []
    else:
        window, pieces = Window(), list(sizes)
    pos, fed, ended = 0, 0, False
    while not ended:
        try:
            pos, ended = body.advance(window, pos)
        except NeedMoreData:
            size = pieces.pop(0) if pieces else len(data)
            window.feed(data[fed : fed + size], keep=pos)
            fed += size
    return state, pos


@pytest.mark.slow
@given(bodies())
@settings(max_examples=150, deadline=None)
def test_runs_are_what_a_naive_loop_finds(data):
    state, end = walk(data)
    records = naive(data)
    assert end == len(data)
    assert expand(state.runs) == records
    assert len(state.runs) == len(list(state.runs)) == merged(records)
    counts = {}
    for _, kind, block, *_ in records:
        counts[block, kind] = counts.get((block, kind), 0) + 1
    assert state.pages == counts


@given(bodies(), st.lists(st.integers(1, 5000), max_size=40))
@settings(max_examples=100, deadline=None)
def test_how_the_bytes_arrive_leaves_no_trace(data, sizes):
    whole, end = walk(data)
    pieces, end_in_pieces = walk(data, sizes)
    assert end == end_in_pieces
    assert list(whole.runs) == list(pieces.runs)
    assert whole.pages == pieces.pages


LENGTHS = [
    1,
    2,
    7,
    8,
    9,
    31,
    32,
    33,
    63,
    64,
    65,
    71,
    72,
    73,
    583,
    584,
    585,
    287,
    288,
    289,
    2335,
    2336,
    2337,
    5000,
    80_000,
]


@pytest.mark.parametrize("pages", LENGTHS)
def test_run_length_at_the_edges_of_its_chunks(pages):
    records = b"".join(struct.pack(">QB", n << 12 | 0x22, 0) for n in range(5, 5 + pages))
    for behind in (b"", struct.pack(">QB", 5 << 12 | 0x22, 0), struct.pack(">QB", (5 + pages) << 12 | 0x22, 1)):
        buf = memoryview(b"xx" + records + behind)
        limit = pages + (1 if behind else 0)
        assert run_length(buf, 2, 9, 4096, limit, 8) == pages
        if pages > 1:
            assert run_length(buf, 2, 9, 4096, pages - 1, 8) == pages - 1


def test_run_length_up_to_the_last_address():
    """The words end at 2**64: nothing may overflow on the way."""
    top = (1 << 64) - 100 * 4096
    records = b"".join(struct.pack(">QB", top + n * 4096 | 0x22, 0) for n in range(100))
    assert run_length(memoryview(records), 0, 9, 4096, 100, 8) == 100


def run(**changes):
    values = {"offset": 0, "flags": 2, "block": 0, "addr": 0, "pages": 1, "head": 9, "payload": 0, "fill": 0}
    return Run(**{**values, **changes})


def test_table_joins_what_belongs_together():
    table = RunTable(4096)
    table.add(*run())
    table.add(*run(offset=9, addr=4096, pages=3))
    assert list(table) == [run(pages=4)]


@pytest.mark.parametrize(
    "other",
    [{"offset": 10}, {"flags": 8}, {"block": 1}, {"addr": 8192}, {"head": 16}, {"payload": 4096}, {"fill": 1}],
    ids=lambda change: next(iter(change)),
)
def test_table_keeps_apart_what_differs(other):
    table = RunTable(4096)
    table.add(*run())
    table.add(*run(**{"offset": 9, "addr": 4096, **other}))
    assert list(table) == [run(), run(**{"offset": 9, "addr": 4096, **other})]


def test_table_holds_the_largest_values():
    largest = run(
        offset=(1 << 64) - 1, flags=0x100, block=65_535, addr=(1 << 64) - 4096,
        pages=(1 << 32) - 1, head=268, payload=(1 << 32) - 1, fill=255,
    )  # fmt: skip
    table = RunTable(4096)
    table.add(*largest)
    assert list(table) == [largest]


def test_a_sample_page_by_page():
    """pc-7.2 has 4 KiB pages; the loop above knows 256, so its constants are repeated here on purpose."""
    from tests.parsers.reading import read_whole
    from tests.support import samplefiles

    data = samplefiles.read("pc-7.2")
    found = read_whole(data)
    seen = 0
    for r in found.runs:
        for i in range(r.pages):
            at = r.offset + i * (r.head + r.payload)
            word = struct.unpack_from(">Q", data, at)[0]
            assert word & ~0xFFF == r.addr + i * 4096
            assert word & 0xFDF == r.flags
            assert (word & 0x20 == 0) == (r.head > 9)
            seen += 1
    total = sum(block.used_length for block in found.blocks)
    assert seen == total // 4096 == sum(found.pages.values())
    assert compressed(0, b"x")[6:8] == b"\x01\x20"


@given(st.integers(1, 1000), st.integers(0, 1000), st.sampled_from([9, 8 + P]), st.sampled_from(["word", "fill", None]))
def test_without_numpy_runs_are_as_long(records, broken, stride, what):
    data = bytearray(b"".join(struct.pack(">Q", i * P | 0x22).ljust(stride, b"\7") for i in range(records)))
    if what is not None and broken < records:
        data[broken * stride + (6 if what == "word" else 8)] ^= 1
    fill_at = 8 if stride == 9 else None
    first, fill = struct.unpack_from(">QB", data)
    found = ramruns._unpacked_run(memoryview(data), 0, stride, P, 1, records, first, fill_at)
    assert found == ramruns._strided_run(memoryview(data), 0, stride, P, 1, records, first, fill_at)
    assert fill_at is None or data[8] == fill


def test_ordinary_streams_are_read_without_numpy():
    """It takes as long to import as everything else that `show` does."""
    program = "import sys; from qmigtool.cli.main import run; run(sys.argv[1:]); sys.exit('numpy' in sys.modules)"
    command = [sys.executable, "-c", program, "show", str(samplefiles.path("q35-7.2"))]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
