"""Memory in another format: every page of every kind of stream, and the places of mapped-ram."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import UnsupportedError, UsageError
from tests.rewrite.formats import BARE, MAPPED, SIZES, before, check_hash, converted, loadable
from tests.rewrite.memories import CONTINUE, MIB, NORMAL, ZERO, edited, look, mapped_areas, pages_of, saved, walk
from tests.rewrite.memories import RAM as RAM_HEADER
from tests.rewrite.memorymodel import DELTA, Model, call, edits, stream_of, streams
from tests.support.packedsamples import NAMES, RAM, SHARED, packed
from tests.support.ramwriter import filled, named_page, plain
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    be64,
    compressed,
    eos,
    mem_size,
    page,
    str8,
    target_page_bits,
    xbzrle,
    zero,
)

UNPLUGGED = ("vmem-11.1",)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_stream_becomes_plain_records(name, tmp_path):
    path = converted(name, tmp_path / "plain", "plain")
    found = look(path)
    assert found == loadable(name)
    size = SIZES.get(name, PAGE)
    footers = "nofooter" not in name and name not in BARE
    walked = walk(path.read_bytes(), size, footers=footers, mr_addr=name in SHARED)
    assert dict(walked.blocks) == before(name).sizes
    # One PART with every page once, in order, named where a block starts; no block that is shared memory.
    assert walked.sections[:2] == [1, 2]
    sent = [block for block in walked.blocks if not (block[0] == "m" and name in SHARED)]
    wanted = [(block, i) for block, length in sent for i in range(length // size)]
    if name in UNPLUGGED:  # memory that a virtio-mem device has not plugged is not sent before, either
        once = {(r.block, r.page) for r in walk(packed(name).path.read_bytes(), size).records}
        assert 0 < len(once) < len(wanted)
        wanted = [place for place in wanted if place in once]
    assert [(r.block, r.page) for r in walked.records] == wanted
    firsts = dict(reversed(wanted))
    assert all(r.named == (r.page == firsts[r.block]) and r.section == 1 for r in walked.records)
    assert all(r.kind == NORMAL or (r.kind, r.data) == (ZERO, b"\0") for r in walked.records)
    if name in RAM and name not in SHARED:
        check_hash(name, found.memory)


@pytest.mark.parametrize("name", MAPPED)
def test_to_plain_and_back_is_what_qemu_wrote(name, tmp_path):
    """A stopped guest has no stale pages, so every byte is QEMU's, but for the PARTs with nothing in them."""
    qemus = packed(name).path.read_bytes()
    path = converted(name, tmp_path / "plain", "plain")
    again = saved(path, tmp_path / "mapped", lambda r: r.ram("mapped-ram"))
    number = qemus[qemus.index(RAM_HEADER) - 4 :][:4]
    part = b"\x02" + number + eos() + b"\x7e" + number
    assert qemus.count(part) == 1
    assert again.read_bytes() == qemus.replace(part, b"")


@pytest.mark.parametrize("form", ["plain", "mapped-ram"])
@pytest.mark.parametrize("name", ["xbzrle-11.1", "compress-live-7.2", "mapped-10.0", "multifd-zstd-live-7.2"])
def test_squeezed_live_pages_are_those_that_are_not_zero(name, form, tmp_path):
    path = converted(name, tmp_path / "out", form, lambda r: r.squeeze_zero_pages())
    data = path.read_bytes()
    if form == "plain":
        live = {(r.block, r.page) for r in walk(data).records if r.kind == NORMAL}
    else:
        live = {(area.name, i) for area in mapped_areas(data) for i in area.pages}
    assert live == set(before(name).content)
    assert pages_of(path) == before(name)


def test_there_is_no_such_format(tmp_path):
    with pytest.raises(UsageError, match="no memory format"):
        converted("plain-7.2", tmp_path / "out", "mapped")
    with pytest.raises(UsageError, match="no configuration section"):
        converted(BARE[0], tmp_path / "out", "mapped-ram")


@pytest.mark.parametrize("name", ["plain-7.2", "mapped-11.1"])
def test_the_last_format_counts(name, tmp_path):
    for forms in (("mapped-ram", "plain"), ("plain", "mapped-ram"), ("plain", "plain"), ("mapped-ram", "mapped-ram")):
        one = converted(name, tmp_path / "one", forms[-1])
        both = converted(name, tmp_path / "both", forms[0], lambda r, forms=forms: r.ram(forms[1]))
        assert both.read_bytes() == one.read_bytes()


@pytest.mark.parametrize("form", ["plain", "mapped-ram"])
@pytest.mark.parametrize("name", ["multifd-none-7.2", "postcopy-preempt-11.1"])
def test_pages_in_no_channel_are_refused(name, form, tmp_path):
    path = packed(name).path
    with pytest.raises(UnsupportedError, match="is in none of the given channels"):
        saved(path, tmp_path / "out", lambda r: r.ram(form))
    assert not (tmp_path / "out").exists()
    found = pages_of(saved(path, tmp_path / "out", lambda r: r.ram(form, absent="zero")))
    assert found == pages_of(path)
    assert found != before(name)


@pytest.mark.parametrize("form", ["plain", "mapped-ram"])
def test_absent_pages_become_zero_pages(form, tmp_path):
    data = plain(named_page(2, 7), zero(5 * PAGE, fill=1)).finish()
    with pytest.raises(UnsupportedError, match="page 0x0 of RAM block 'r', one of 6"):
        edited(data, lambda r: r.ram(form))
    path = saved(data, tmp_path / "out", lambda r: r.ram(form, absent="zero"))
    assert pages_of(path) == ({"r": 8 * PAGE}, {("r", 2): filled(7), ("r", 5): b"\1" * PAGE})
    # What is scrubbed or dropped need not be there.
    assert pages_of(saved(data, tmp_path / "scrubbed", lambda r: r.ram(form), lambda r: r.scrub_ram())).content == {}


ROUNDS = stream_of(
    [("a", 4), ("b", 130)],
    [page(0, filled(1), "a"), zero(PAGE), page(2 * PAGE, filled(2)), page(3 * PAGE, filled(3))],
    [zero(0, "b", 0)]
    + [zero(i * PAGE) if i % 2 else page(i * PAGE, filled(i)) for i in range(1, 129)]
    + [zero(129 * PAGE, fill=7)],
    [xbzrle(0, DELTA, "a"), page(PAGE, filled(4)), zero(2 * PAGE), compressed(3 * PAGE, zlib.compress(filled(9)))],
    [xbzrle(0, DELTA[:1] + b"\x01\xff"), zero(PAGE, fill=0), xbzrle(2 * PAGE, DELTA), page(3 * PAGE, bytes(PAGE))],
)


PATCHED = filled(1)[:5] + b"\xff\xbb" + filled(1)[7:]


FINAL = {("a", 0): PATCHED, ("a", 2): bytes(5) + DELTA[2:] + bytes(PAGE - 7), ("b", 129): b"\x07" * PAGE} | {
    ("b", i): filled(i) for i in range(2, 129, 2)
}


@pytest.mark.parametrize("form", ["plain", "mapped-ram"])
@pytest.mark.parametrize("squeeze", [False, True])
def test_the_last_round_is_what_stays(form, squeeze, tmp_path):
    more = [lambda r: r.squeeze_zero_pages()] if squeeze else []
    path = saved(ROUNDS, tmp_path / "out", lambda r: r.ram(form), *more)
    assert pages_of(path) == ({"a": 4 * PAGE, "b": 130 * PAGE}, FINAL)
    # A page that was sent whole though it is zero stays live, unless it is squeezed.
    live = set(FINAL) if squeeze else {*FINAL, ("a", 3)}
    data = path.read_bytes()
    if form == "plain":
        assert {(r.block, r.page) for r in walk(data).records if r.kind == NORMAL} == live
    else:
        assert {(area.name, i) for area in mapped_areas(data) for i in area.pages} == live


@pytest.mark.parametrize("form", ["plain", "mapped-ram"])
@pytest.mark.parametrize("odds", [0.02, 0.5, 0.98])
def test_zero_pages_among_others_in_one_run(form, odds):
    """All were sent whole, side by side; some more than are read at once."""
    size, count = 256, 1500
    rng = random.Random(odds)  # noqa: S311 - test data
    live = {i for i in range(count) if rng.random() < odds} | {0, 255, 256, count - 1}
    live -= {1, 511, 512}
    pages = [bytes([i % 255 + 1 if i in live else 0]) * size for i in range(count)]
    words = [be64(NORMAL) + str8("a"), *(be64(i * size | NORMAL | CONTINUE) for i in range(1, count))]
    data = stream_of(
        [("a", count)], [head + page for head, page in zip(words, pages, strict=True)], config=target_page_bits(8)
    )
    new = edited(data, lambda r: r.squeeze_zero_pages(), lambda r: r.ram(form))
    if form == "plain":
        walked = walk(new, size).records
        assert [r.page for r in walked] == list(range(count))
        found = {r.page: r.data for r in walked if r.kind == NORMAL}
    else:
        found = mapped_areas(new, size)[0].pages
    assert found == {i: bytes([i % 255 + 1]) * size for i in live}


@pytest.mark.parametrize("form", ["plain", "mapped-ram"])
def test_huge_pages_of_postcopy_are_listed_no_more(form, tmp_path):
    """The word with a block's page size is there only after POSTCOPY_ADVISE, which goes."""
    w = StreamWriter()
    w.command(3, "POSTCOPY_ADVISE", be64(0x201000) + be64(0x1000))
    w.start(1, "ram", 0, 4, mem_size([("m", 2 * MIB, be64(2 * MIB)), ("rom", 2 * PAGE)]) + eos())
    w.part(1, b"".join(zero(i * PAGE, None if i else "m") for i in range(512)) + named_page(0, 1, "rom") + eos())
    w.end(1, page(PAGE, filled(2)) + eos())
    path = saved(w.finish(), tmp_path / "out", lambda r: r.ram(form))
    assert pages_of(path) == ({"m": 2 * MIB, "rom": 2 * PAGE}, {("rom", 0): filled(1), ("rom", 1): filled(2)})
    data = path.read_bytes()
    if form == "plain":
        assert str8("m") + be64(2 * MIB) + str8("rom") + be64(2 * PAGE) + eos() in data
    else:
        assert [area.name for area in mapped_areas(data)] == ["m", "rom"]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(streams, edits, st.sampled_from(["plain", "mapped-ram"]), st.booleans())
def test_any_edits_of_any_records_in_another_format(data, wanted, form, first):
    model = Model(walk(data))
    made = []
    for edit in wanted:
        if model.fits(edit):
            model.make(edit)
            made.append(lambda r, edit=edit: call(r, edit))
    made.insert(0 if first else len(made), lambda r: r.ram(form, absent="zero"))
    new = edited(data, *made)
    if form == "plain":
        found = walk(new)
        assert found.behind == walk(data).behind
        sizes = dict(found.blocks)
        pages = {(r.block, r.page): r.data * (PAGE if r.kind == ZERO else 1) for r in found.records}
        assert len(pages) == len(found.records)
        for name, size in sizes.items():
            # Every page of a block once, from the first on; what a larger size has added is not sent.
            sent = sorted(page for block, page in pages if block == name)
            assert sent == list(range(len(sent)))
            grown = any(edit[0] == "resize" for edit in wanted)
            assert len(sent) <= size // PAGE if grown else len(sent) == size // PAGE
    else:
        areas = mapped_areas(new)
        sizes = {area.name: area.length for area in areas}
        pages = {(area.name, i): data for area in areas for i, data in area.pages.items()}
    assert sizes == model.blocks
    assert {key: data for key, data in pages.items() if any(data)} == model.live
