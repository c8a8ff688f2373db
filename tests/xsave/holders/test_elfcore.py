"""Areas and their layout in the notes of an ELF core."""

import struct

import pytest

from qmigtool.errors import LimitError, UnsupportedError, UsageError, XsaveError
from qmigtool.xsave import XsaveArea, layout
from qmigtool.xsave.holders import find_area
from qmigtool.xsave.holders.elfcore import is_layout_note, layout_of_note
from tests.support import casefiles
from tests.xsave.holders.areas import AREA, NOTE, core, note, prstatus


def test_a_core_has_an_area_and_its_layout():
    found = find_area(casefiles.read("xsave", "core.elf"), "core.elf")
    assert found.data == AREA
    assert {bit: (row.offset, row.size) for bit, row in found.layout.rows.items()} == {
        2: (576, 256), 5: (832, 64), 6: (896, 512), 7: (1408, 1024),
    }  # fmt: skip
    assert (found.xcr0, found.layout.user_mask, found.layout.standard_size()) == (0xE7, 0xE7, 2432)
    assert "thread 1 (1 in this ELF core); its layout is in NT_X86_XSAVE_LAYOUT" in found.note
    state = XsaveArea(found.data, found.layout).architectural_state()
    assert state == XsaveArea(AREA, layout("amd-zen4")).architectural_state()
    assert state[5][:16] == bytes.fromhex("80008000000000000102030405060708")


@pytest.mark.parametrize("bits", [64, 32])
def test_a_core_with_several_threads(bits):
    other = AREA[:24] + b"\x80\x3f" + AREA[26:]
    notes = [prstatus(10, bits=bits), note(b"LINUX", 0x202, AREA), prstatus(11, bits=bits), note(b"CORE", 2, b"fpu")]
    notes += [note(b"LINUX", 0x202, other), note(b"LINUX", 0x205, NOTE)]
    data = core(*notes, bits=bits, before=b"m" * 5000)
    with pytest.raises(UsageError, match=r"2 threads; name one \(expected c#10, c#11\)"):
        find_area(data, "c")
    assert find_area(data, "c", "10").data == AREA
    assert find_area(data, "c", "11").data == other
    assert find_area(data, "c", "11").layout.standard_offset(7) == 1408
    with pytest.raises(UsageError, match="no thread 12 in c"):
        find_area(data, "c", "12")


def test_a_core_without_the_layout_note():
    found = find_area(core(prstatus(7), note(b"LINUX", 0x202, AREA)), "c")
    assert (found.layout, found.xcr0, found.data) == (None, 0xE7, AREA)
    assert "does not record the layout" in found.note


def test_a_core_that_is_cut():
    data = casefiles.read("xsave", "core.elf")
    with pytest.raises(XsaveError, match=r"a note of type 0x202 has 2432 bytes, but the core ends before that"):
        find_area(data[:2000], "c")
    with pytest.raises(XsaveError, match="ends inside its program headers"):
        find_area(data[:70], "c")
    for length in range(64, len(data)):
        if length % 97 == 0:
            with pytest.raises((XsaveError, UnsupportedError)):
                find_area(data[:length], "c")


@pytest.mark.parametrize("bits", [64, 32])
def test_threads_of_a_core_that_their_id_does_not_tell_apart(bits):
    areas = [AREA[:24] + bytes([0x80, 0x3F - i]) + AREA[26:] for i in range(4)]
    xstate = [note(b"LINUX", 0x202, area) for area in areas]
    status = [prstatus(pid, bits=bits) for pid in (10, 10, 11)]
    data = core(xstate[0], status[0], xstate[1], status[1], xstate[2], status[2], xstate[3], bits=bits)
    with pytest.raises(UsageError, match=r"4 threads; name one \(expected c#@1, c#@2, c#@3, c#11\)"):
        find_area(data, "c")
    with pytest.raises(UsageError, match=r"2 areas of c are of thread 10; select one by its position"):
        find_area(data, "c", "10")
    for place, area in enumerate(areas, 1):
        assert find_area(data, "c", f"@{place}").data == area
    assert find_area(data, "c", "11").data == areas[3]
    assert "area @1 (4 in this ELF core), which has no NT_PRSTATUS of a thread" in find_area(data, "c", "@1").note
    assert "thread 10, area @3 (4" in find_area(data, "c", "@3").note
    for wrong in ("@0", "@5", "@", "@02"):
        with pytest.raises(UsageError, match=f"no area {wrong} in c"):
            find_area(data, "c", wrong)
    with pytest.raises(UsageError, match="no thread 0 in c"):
        find_area(data, "c", "0")


def test_two_areas_behind_one_prstatus_and_one_without():
    twice = core(prstatus(10), note(b"LINUX", 0x202, AREA), note(b"LINUX", 0x202, AREA))
    with pytest.raises(UsageError, match="2 areas of c are of thread 10"):
        find_area(twice, "c", "10")
    alone = find_area(core(note(b"LINUX", 0x202, AREA)), "c")
    assert alone.data == AREA
    assert "which has no NT_PRSTATUS of a thread" in alone.note


@pytest.mark.parametrize(("bits", "need"), [(64, 36), (32, 28)])
def test_a_prstatus_too_short_for_an_id(bits, need):
    """The bytes behind it are another note's."""
    for size in (0, need - 4, need - 1):
        with pytest.raises(XsaveError, match=f"NT_PRSTATUS has {size} bytes"):
            find_area(core(note(b"CORE", 1, b"\1" * size), note(b"LINUX", 0x202, AREA), bits=bits), "c")
    found = find_area(core(note(b"CORE", 1, b"\1" * need), note(b"LINUX", 0x202, AREA), bits=bits), "c")
    assert f"thread {0x01010101} " in found.note


def test_the_layout_note_alone():
    assert is_layout_note(NOTE)
    cpu = layout_of_note(NOTE, "core.xlayout")
    assert (cpu.user_mask, cpu.standard_size()) == (0xE7, 2432)
    for wrong in (b"", NOTE[:-1], NOTE[16:32] + NOTE[:16], NOTE + NOTE[:16], bytes(64), AREA[:64]):
        assert not is_layout_note(wrong)
        with pytest.raises(XsaveError):
            layout_of_note(wrong, "x")


def test_a_core_made_to_hurt():
    """Program headers that all name one segment of notes: what is read has a bound, and nothing is kept twice."""
    small = note(b"LINUX", 0x202, AREA[:576])
    data = bytearray(core(small * 100))
    data[54:58] = struct.pack("<HH", 0, 65535)  # e_phentsize 0, e_phnum 65535: the first header, over and over
    far = bytearray(data)
    far[39] = 0x80  # e_phoff
    with pytest.raises(XsaveError, match="ends inside its program headers"):
        find_area(bytes(far), "c")
    data[64:120] = data[120:176]
    with pytest.raises(LimitError, match="too many notes"):
        find_area(bytes(data), "c")
