"""Memory written as mapped-ram: the places of pages, bitmaps, and what edits of blocks do to them."""

import pytest

import qmigtool
from qmigtool.parsers.section import Type
from tests.rewrite.formats import BARE, MAPPED, SIZES, before, check_hash, converted, loadable, source
from tests.rewrite.memories import MIB, NORMAL, edited, look, mapped_areas, saved
from tests.support.packedsamples import NAMES, RAM, SHARED, packed
from tests.support.ramwriter import filled, mapped
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    be64,
    eos,
    mem_size,
    str8,
    target_page_bits,
    zero,
)

ALIKE = ("compress-7.2", "dirtybitmap-10.0", "i386-7.2", "mips-malta-7.2", "plain-5.2", "q35-5.2", "xbzrle-7.2")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in BARE + ALIKE])
def test_every_stream_becomes_mapped_ram(name, tmp_path):
    path = converted(name, tmp_path / "mapped", "mapped-ram")
    found = look(path)
    assert found == loadable(name)
    size = SIZES.get(name, PAGE)
    data = path.read_bytes()
    areas = mapped_areas(data, size, mr_addr=name in SHARED)
    assert {area.name: area.length for area in areas} == before(name).sizes
    live = {(area.name, i): page for area in areas for i, page in area.pages.items() if any(page)}
    assert live == before(name).content
    assert {area.name for area in areas if not area.bitmap} == ({"m"} if name in SHARED else set())
    with qmigtool.open(path) as stream:
        assert "mapped-ram" in stream.capabilities
        assert stream.complete
        ends = [s.body_length for s in stream.sections if s.name == "ram" and s.type is not Type.START]
        assert set(ends) <= {8}  # a background snapshot has no END
    if name in RAM and name not in SHARED:
        check_hash(name, found.memory)
    assert path.stat().st_blocks * 512 < path.stat().st_size or path.stat().st_size < 2 * MIB


@pytest.mark.parametrize("name", ["plain-7.2", "multifd-zlib-7.2", "xbzrle-11.1", "tricore-10.0"])
def test_plain_to_mapped_and_back(name, tmp_path):
    once = converted(name, tmp_path / "once", "plain")
    back = saved(saved(once, tmp_path / "m", lambda r: r.ram("mapped-ram")), tmp_path / "p", lambda r: r.ram("plain"))
    assert back.read_bytes() == once.read_bytes()


@pytest.mark.parametrize("name", MAPPED)
def test_places_move_with_what_is_before_them_and_back(name, tmp_path):
    sample = packed(name).path
    old = sample.read_bytes()
    with qmigtool.open(sample) as stream:
        machine = stream.configuration.machine
    path = saved(sample, tmp_path / "long", lambda r: r.machine_type("m" * 200))
    data = path.read_bytes()
    shared = name in SHARED
    areas, moved = mapped_areas(old, mr_addr=shared), mapped_areas(data, mr_addr=shared)
    assert [(a.name, a.length, a.pages) for a in moved] == [(a.name, a.length, a.pages) for a in areas]
    first = next(i for i, area in enumerate(areas) if area.bitmap)
    assert moved[first].bitmap == areas[first].bitmap + 200 - len(machine)
    assert look(path) == source(name)
    assert saved(path, tmp_path / "back", lambda r: r.machine_type(machine)).read_bytes() == old


EDITS = {
    "rename": lambda r: r.rename_block("pc.ram", "another, longer name"),
    "drop": lambda r: r.drop_block("pc.ram"),
    "drop-last": lambda r: r.drop_block("/rom@etc/acpi/rsdp"),
    "smaller": lambda r: r.resize_block("pc.ram", 8 * MIB + PAGE),
    "larger": lambda r: r.resize_block("pc.ram", 17 * MIB + 3 * PAGE),
    "scrub-one": lambda r: r.scrub_ram("pc.rom"),
    "scrub": lambda r: r.scrub_ram(),
    "squeeze": lambda r: r.squeeze_zero_pages(),
    "again": lambda r: r.ram("mapped-ram"),
}


def expected(sizes, content, edit):
    """The same on the dictionary of pages."""
    name = "pc.ram"
    if edit == "rename":
        new = "another, longer name"
        sizes = {new if one == name else one: size for one, size in sizes.items()}
        return sizes, {(new if one == name else one, i): data for (one, i), data in content.items()}
    if edit.startswith("drop"):
        gone = name if edit == "drop" else "/rom@etc/acpi/rsdp"
        left = {one: size for one, size in sizes.items() if one != gone}
        return left, {key: data for key, data in content.items() if key[0] != gone}
    if edit in ("smaller", "larger"):
        size = 8 * MIB + PAGE if edit == "smaller" else 17 * MIB + 3 * PAGE
        return sizes | {name: size}, {k: data for k, data in content.items() if k[0] != name or k[1] * PAGE < size}
    if edit.startswith("scrub"):
        return sizes, {key: data for key, data in content.items() if edit == "scrub-one" and key[0] != "pc.rom"}
    return sizes, content


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", ["mapped-10.0", "mapped-offset-11.1"])
def test_edits_of_blocks_in_their_places(name, edit, tmp_path):
    sample = packed(name).path
    path = saved(sample, tmp_path / "out", EDITS[edit])
    wanted = expected(*before(name), edit)
    assert look(path) == (wanted, *source(name)[1:])
    areas = mapped_areas(path.read_bytes())
    assert {area.name: area.length for area in areas} == wanted[0]
    assert list(wanted[0]) == [area.name for area in areas]
    if edit in ("scrub", "squeeze"):
        assert {(area.name, i) for area in areas for i in area.pages} == set(wanted[1])
    offset = sample.read_bytes().index(b"QEVM")
    assert path.read_bytes()[: offset + 4] == bytes(offset) + b"QEVM"


def test_stale_pages_stay_until_a_block_is_written_anew(tmp_path):
    data = mapped({1: filled(1)}, 70, stale={2: filled(2), 69: filled(3)})
    longer = edited(data, lambda r: r.machine_type("m" * 99))
    assert filled(2) in longer
    assert edited(longer, lambda r: r.machine_type("pc-i440fx-7.2")) == data
    for edit in (
        lambda r: r.squeeze_zero_pages(),
        lambda r: r.scrub_ram("r"),
        lambda r: r.ram("mapped-ram"),
        lambda r: r.ram("plain"),
        lambda r: r.resize_block("r", 71 * PAGE),
    ):
        new = edited(data, edit)
        assert filled(2) not in new
        assert filled(3) not in new


@pytest.mark.parametrize(("length", "places"), [(202, 2), (203, 2), (204, 3)])
def test_a_bitmap_that_ends_where_pages_may_start(length, places, tmp_path):
    """The second block's bitmap ends one byte before a multiple of 1 MiB, on it, and one byte behind."""
    size = 256
    w = StreamWriter(config=target_page_bits(8))
    first, second = MIB - size, 128 * size
    w.start(1, "ram", 0, 4, mem_size([("a", first), ("b", second)]) + eos())
    records = [zero(0, "a")] + [zero(i * size) for i in range(1, first // size)]
    records += [be64(NORMAL) + str8("b") + b"x" * size] + [zero(i * size) for i in range(1, 128)]
    w.part(1, b"".join(records) + eos())
    w.end(1, eos())
    name = "n" * length
    new = edited(w.finish(), lambda r: r.ram("mapped-ram"), lambda r: r.rename_block("b", name))
    areas = mapped_areas(new, size)
    assert [(area.name, len(area.pages)) for area in areas] == [("a", 0), (name, 1)]
    assert areas[1].bitmap + 16 - 2 * MIB == length - 203
    assert areas[1].offset == places * MIB
    longer = edited(new, lambda r: r.rename_block(name, "n" * 205))
    assert mapped_areas(longer, size)[1].offset == 3 * MIB
    assert edited(longer, lambda r: r.rename_block("n" * 205, name)) == new
