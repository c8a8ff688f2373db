"""Guest memory compared: against a plain page-by-page comparison, over all encodings, and what it may cost."""

import io
import itertools
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.diff.ram import PageClass, compare_ram, ram_ranges
from qmigtool.diff.ram import compare as ramcompare
from qmigtool.diff.ram import walk as ramwalk
from qmigtool.errors import StreamError, UnsupportedError
from qmigtool.rewrite import Rewriter
from tests.bench.memory import mapped as sparse_mapped
from tests.diff.ram.memories import (
    CHANGED,
    CONTENTS,
    FILLED,
    ONLY_A,
    ONLY_B,
    PAGES,
    RECORD,
    SAME,
    UNKNOWN,
    ZEROED,
    kind,
    memory,
    of,
)
from tests.support import naiveram, samplefiles
from tests.support.packedsamples import packed
from tests.support.ramwriter import filled, mapped, multifd_main, named_page, plain
from tests.support.streamwriter import PAGE, StreamWriter, be64, compressed, eos, mem_size, page, xbzrle, zero


def found(block):
    """The class of every page that a comparison gives, from its ranges; they have to be in order and not overlap."""
    out = []
    for part in block.ranges():
        for offset, length, page_class in part.tolist():
            assert length
            assert offset % block.page_size == length % block.page_size == 0
            assert offset >= len(out) * block.page_size
            out += [SAME] * (offset // block.page_size - len(out))
            out += [PageClass(page_class).word] * (length // block.page_size)
    out += [SAME] * (block.pages - len(out))
    assert {one: out.count(one.word) for one in PageClass} == block.counts
    return out


def block_of(*streams, **options):
    comparison = compare_ram(*streams, **options)
    assert len(comparison.blocks) == 1
    return comparison.blocks[0]


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORD, max_size=25), st.lists(RECORD, max_size=25), st.sampled_from([1, 3, 64]))
def test_every_page_is_classed_as_the_naive_comparison_does(one, other, batch):
    records_a, a = memory(one)
    records_b, b = memory(other)
    with pytest.MonkeyPatch.context() as patch, of(*records_a) as sa, of(*records_b) as sb:
        patch.setattr(ramwalk, "BATCH", batch * PAGE)
        patch.setattr(ramwalk, "WINDOW", batch + 1)
        block = block_of(sa, sb)
        assert found(block) == [kind(a[i], b[i]) for i in range(PAGES)]
        zeros = [(a[i] or bytes(PAGE), b[i] or bytes(PAGE)) for i in range(PAGES)]
        block = block_of(sa, sb, absent="zero")
        assert found(block) == [kind(*pair) for pair in zeros]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, len(CONTENTS) - 1)] * 2), min_size=1, max_size=70))
def test_a_mapped_file_is_compared_with_records(pairs):
    contents, other = ([CONTENTS[pair[side]] for pair in pairs] for side in (0, 1))
    count = len(pairs)
    areas = {i: content for i, content in enumerate(contents) if any(content)}
    records = [page(i * PAGE, content, "r") for i, content in enumerate(other)]
    with qmigtool.open(mapped(areas, count)) as one, of(*records, pages=count) as two:
        assert found(block_of(one, two)) == [kind(*pair) for pair in zip(contents, other, strict=True)]
        assert found(block_of(two, one)) == [kind(*pair) for pair in zip(other, contents, strict=True)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("plain-7.2", "mapped-11.1"),
        ("xbzrle-11.1", "compress-7.2"),
        ("multifd-zlib-7.2", "postcopy-preempt-11.1"),
    ],
)
def test_real_streams_are_compared_as_the_naive_comparison_does(one, other):
    samples = [packed(one), packed(other)]
    streams = [qmigtool.open(sample.path, channels=sample.channels) for sample in samples]
    naive = [naiveram.memory(s, p.path, p.channels) for s, p in zip(streams, samples, strict=True)]
    comparison = compare_ram(*streams)
    assert {block.name for block in comparison.blocks} == {name for memory in naive for name in memory.sizes}
    for block in comparison.blocks:
        sizes = [memory.sizes.get(block.name) for memory in naive]
        assert [block.size_a, block.size_b] == sizes
        count = max(-(-(size or 0) // PAGE) for size in sizes)
        contents = [[memory.content.get((block.name, i)) for i in range(count)] for memory in naive]
        assert found(block) == [kind(*pair) for pair in zip(*contents, strict=True)], block.name
    assert not comparison.same
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("name", ["pc-7.2", "twin-kvm-10.0"])
def test_one_guest_in_three_encodings_is_the_same(name, tmp_path):
    with qmigtool.open(samplefiles.path(name)) as plain_:
        ways = {"mapped": lambda r: r.ram("mapped-ram"), "squeezed": lambda r: r.squeeze_zero_pages()}
        for way, edit in ways.items():
            rewriter = Rewriter(plain_)
            edit(rewriter)
            rewriter.save(tmp_path / way)
        with qmigtool.open(tmp_path / "mapped") as mapped_, qmigtool.open(tmp_path / "squeezed", keep_runs=True) as two:
            assert mapped_.ram.count() != plain_.ram.count()
            for one, other in itertools.permutations((plain_, mapped_, two), 2):
                comparison = compare_ram(one, other)
                assert comparison.same
                assert comparison.counts[PageClass.SAME] > 4096
                assert not list(ram_ranges.rows(comparison))


@pytest.mark.parametrize("name", ["xbzrle-7.2", "compress-7.2", "mapped-10.0", "postcopy-preempt-7.2"])
def test_a_stream_is_the_same_as_itself(name):
    with qmigtool.open(packed(name).path) as one, qmigtool.open(packed(name).path) as other:
        assert compare_ram(one, other, absent="zero").same


def blocks(*sizes, page_size=PAGE):
    """A stream whose blocks hold a page of their name in each place."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([(name, pages * page_size) for name, pages in sizes]) + eos())
    content = b"".join(
        page(i * page_size, name[0].encode() * page_size, name) for name, pages in sizes for i in range(pages)
    )
    w.part(1, content + eos())
    w.end(1, eos())
    return qmigtool.open(w.finish(page_size=page_size))


def test_blocks_of_one_side_and_blocks_of_two_sizes():
    with blocks(("x", 3), ("y", 2), ("z", 4)) as one, blocks(("z", 4), ("x", 5), ("w", 1)) as other:
        comparison = compare_ram(one, other)
    assert [block.name for block in comparison.blocks] == ["x", "y", "z", "w"]
    x, y, z, w = comparison.blocks
    assert (x.size_a, x.size_b, found(x)) == (3 * PAGE, 5 * PAGE, [SAME] * 3 + [ONLY_B] * 2)
    assert (y.size_a, y.size_b, found(y)) == (2 * PAGE, None, [ONLY_A] * 2)
    assert (w.size_a, w.size_b, found(w)) == (None, PAGE, [ONLY_B])
    assert z.same
    assert not x.same
    assert not y.same
    assert not comparison.same
    assert comparison.counts[PageClass.ONLY_B] == 3
    frame = ram_ranges(comparison)
    assert frame.values.tolist() == [
        ["x", 3 * PAGE, 2 * PAGE, 2, ONLY_B],
        ["y", 0, 2 * PAGE, 2, ONLY_A],
        ["w", 0, PAGE, 1, ONLY_B],
    ]
    assert [str(dtype) for dtype in frame.dtypes] == ["category", "UInt64", "UInt64", "UInt64", "category"]


def test_pages_of_two_sizes_are_compared_in_the_smaller_one():
    with blocks(("x", 3), page_size=4 * PAGE) as one, qmigtool.open(small_pages()) as other:
        assert one.page_size == 4 * other.page_size
        block = block_of(one, other)
        assert block.page_size == PAGE
        assert found(block) == [SAME] * 5 + [CHANGED, SAME, ZEROED] + [ONLY_A] * 4
        assert found(block_of(other, one)) == [SAME] * 5 + [CHANGED, SAME, FILLED] + [ONLY_B] * 4


def small_pages():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("x", 8 * PAGE)]) + eos())
    records = [page(i * PAGE, b"x" * PAGE, "x") for i in range(7)] + [zero(7 * PAGE, "x")]
    records[5] = compressed(5 * PAGE, zlib.compress(b"x" * (PAGE - 1) + b"y"), "x")
    w.part(1, b"".join(records) + eos())
    w.end(1, eos())
    return w.finish()


def test_pages_in_no_channel_given_are_never_the_same():
    data = multifd_main(1, 4).finish()
    with qmigtool.open(data) as one, qmigtool.open(data) as other:
        block = block_of(one, other)
        assert found(block) == [UNKNOWN] * 4
        assert not block.same
        assert block_of(one, other, absent="zero").same


def test_shared_memory_is_unknown_and_says_so():
    sample = packed("ignoreshared-10.0")
    with qmigtool.open(sample.path) as one, qmigtool.open(sample.path) as other:
        comparison = compare_ram(one, other)
        shared = [block for block in comparison.blocks if block.counts[PageClass.UNKNOWN]]
        assert [block.name for block in shared] == [one.ram_blocks[0].idstr]
        assert shared[0].counts[PageClass.UNKNOWN] == shared[0].pages
        assert [problem[:16] for problem in shared[0].problems] == ["A: shared memory", "B: shared memory"]
        assert not comparison.same
        assert not compare_ram(one, other, absent="zero").same


def test_a_page_that_cannot_be_read_is_unknown_and_the_others_are_not():
    good = [compressed(i * PAGE, zlib.compress(filled(i)), "r") for i in range(PAGES)]
    bad = list(good)
    bad[3] = compressed(3 * PAGE, b"no deflate", "r")
    bad[4] = compressed(4 * PAGE, zlib.compress(bytes(100)), "r")
    with of(*good) as one, of(*bad) as other:
        block = block_of(one, other)
        assert found(block) == [SAME] * 3 + [UNKNOWN] * 2 + [SAME] * 7
        assert len(block.problems) == 2
        assert all(problem.startswith("B: at offset 0x") for problem in block.problems)


def test_a_bad_delta_is_unknown():
    base = named_page(0, 7) + named_page(1, 8)
    with of(base, pages=2) as one, of(base, xbzrle(0, b"\xff\xff\x03", "r"), pages=2) as other:
        assert found(block_of(one, other)) == [UNKNOWN, SAME]


def test_many_broken_pages_are_counted_not_listed():
    good = [compressed(i * PAGE, zlib.compress(filled(i)), "r") for i in range(100)]
    bad = [compressed(i * PAGE, b"no deflate", "r") for i in range(100)]
    with of(*good, pages=100) as one, of(*bad, pages=100) as other:
        block = block_of(one, other)
        assert block.counts[PageClass.UNKNOWN] == 100
        assert len(block.problems) == 21
        assert block.problems[-1] == "B: and 80 more pages that cannot be read"


def test_a_mapped_file_cut_in_its_pages_has_no_block_that_could_be_the_same():
    data = mapped({i: filled(i + 1) for i in range(PAGES)}, PAGES)
    start = data.index(filled(1))
    with qmigtool.open(data) as one, qmigtool.open(data[: start + 5 * PAGE + 100]) as other:
        assert other.problems
        assert found(block_of(one, other)) == [ONLY_A] * PAGES


def test_a_pipe_cannot_be_compared():
    data = plain(named_page(0, 1)).finish()
    with qmigtool.open(io.BytesIO(data), keep_runs=True) as pipe, qmigtool.open(data) as file:
        for pair in ((pipe, file), (file, pipe)):
            with pytest.raises(UnsupportedError, match="pipe"):
                compare_ram(*pair)


def test_the_bytes_that_differ_are_counted():
    one = bytearray(filled(3))
    one[17] ^= 1
    one[4095] ^= 1
    records_a = [named_page(0, 3), named_page(1, 4), zero(2 * PAGE, "r"), named_page(3, 5)]
    records_b = [page(0, bytes(one), "r"), named_page(1, 4), named_page(2, 0xFF), named_page(3, 6)]
    with of(*records_a, pages=4) as a, of(*records_b, pages=4) as b:
        comparison = compare_ram(a, b)
        assert [tuple(one) for one in comparison.differences()] == [
            ("r", 0, 17, 2),
            ("r", 2 * PAGE, 2 * PAGE + 7, PAGE // 8),
            ("r", 3 * PAGE, 3 * PAGE + 7, PAGE // 8),
        ]
        assert len(list(comparison.differences(2))) == 2


@pytest.mark.parametrize(
    "name", ["plain-7.2", "mapped-11.1", "xbzrle-11.1", "multifd-zlib-7.2", "postcopy-preempt-7.2"]
)
def test_a_stream_read_once_knows_what_one_read_twice_knows(name):
    sample = packed(name)
    one, two = (qmigtool.open(sample.path, channels=sample.channels, keep_runs=once) for once in (True, False))
    with one, two:
        assert one.ram.runs.tolist() == two.ram.runs.tolist()
        assert list(map(str, one.problems)) == list(map(str, two.problems))
        assert compare_ram(one, two).same


def test_more_ranges_than_are_kept_are_found_again(monkeypatch):
    records_a = [named_page(i, 1) for i in range(100)]
    records_b = [named_page(i, 1 + i % 2) for i in range(100)]
    with of(*records_a, pages=100) as a, of(*records_b, pages=100) as b:
        monkeypatch.setattr(ramcompare, "KEPT", 7)
        block = block_of(a, b)
        assert block._kept is None
        assert found(block) == found(block) == [SAME, CHANGED] * 50


@pytest.mark.slow
def test_a_sparse_file_of_64_gib_is_compared_in_little_memory_and_time(tmp_path):
    ram = 64 << 30
    path = sparse_mapped(tmp_path / "vm.mig", ram)
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", ram)]) + eos())
    w.part(1, page(0x5000, filled(1), "pc.ram") + eos())
    w.end(1, eos())
    with qmigtool.open(path, keep_runs=True) as one, qmigtool.open(w.finish(), keep_runs=True) as other:
        _ = one.ram, other.ram
        tracemalloc.start()
        try:
            block = block_of(one, other)
            used = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # nothing but one page is in the other, so nothing is read; a few columns of the file's two million runs
    assert block.counts[PageClass.ONLY_A] == ram // PAGE - 1
    assert block.counts[PageClass.FILLED] == 1
    assert used < 350 << 20


def test_memory_does_not_grow_with_the_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(ramwalk, "WINDOW", 1 << 11)

    def peak(pages):
        (tmp_path / "a").write_bytes(stretch(pages))
        with qmigtool.open(tmp_path / "a", keep_runs=True) as one, qmigtool.open(tmp_path / "a", keep_runs=True) as two:
            _ = one.ram, two.ram
            tracemalloc.start()
            try:
                assert compare_ram(one, two).same
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    small, large = peak(1 << 12), peak(1 << 14)
    assert large < small * 1.2 < 2 << 20


def stretch(pages):
    """A stream of one run of pages."""
    records = np.zeros((pages, 8 + PAGE), np.uint8)
    words = (np.arange(pages, dtype=np.uint64) * np.uint64(PAGE) | np.uint64(0x28)).astype(">u8")
    records[:, :8] = words.view(np.uint8).reshape(-1, 8)
    records[:, 8:16] = words.view(np.uint8).reshape(-1, 8)
    body = records[1:].tobytes()
    return bytes(plain(page(0, filled(1), "r"), body, pages=pages).finish())


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_streams_that_are_cut_are_compared_as_far_as_they_go(at):
    data = plain(*(named_page(i, i + 1) for i in range(PAGES)), pages=PAGES).finish(vmdesc=False)
    cut = len(data) * (at + 10) // 60
    with qmigtool.open(data) as one:
        try:
            other = qmigtool.open(data[:cut])
        except StreamError:
            return
        with other:
            whole = sum(data[:cut].count(be64(i * PAGE | 8) + b"\x01r" + filled(i + 1)) for i in range(PAGES))
            blocks = compare_ram(one, other).blocks
            assert found(blocks[0]) == [SAME] * whole + [ONLY_A] * (PAGES - whole)
