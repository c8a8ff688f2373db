"""What an XSAVE area comes in: read where its form says what it is, else named."""

import contextlib
import json
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import LimitError, QmigError, UnsupportedError, UsageError, XsaveError
from qmigtool.parsers.records import QEVM
from qmigtool.xsave import XsaveArea, layout
from qmigtool.xsave.holders import FoundArea, find_area
from qmigtool.xsave.holders.elfcore import is_layout_note, layout_of_note
from qmigtool.xsave.holders.software import software_bytes, software_misfit
from tests.support import casefiles

AREA = casefiles.read("xsave", "core.xstate")
NOTE = casefiles.read("xsave", "core.xlayout")


def note(owner, kind, contents):
    owner += b"\0"
    pad = b"\0" * (-len(owner) % 4), b"\0" * (-len(contents) % 4)
    return struct.pack("<III", len(owner), len(contents), kind) + owner + pad[0] + contents + pad[1]


def prstatus(pid, *, bits=64):
    at = 32 if bits == 64 else 24
    return note(b"CORE", 1, bytes(at) + struct.pack("<I", pid) + bytes(300))


def core(*notes, bits=64, kind=4, before=b""):
    """An ELF core with these notes in one segment, behind one that holds `before`."""
    contents = b"".join(notes)
    if bits == 64:
        start = 64 + 2 * 56
        head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, 2)
        head += bytes(6)
        segments = struct.pack("<IIQQQQQQ", 1, 0, start, 0, 0, len(before), 0, 0)
        segments += struct.pack("<IIQQQQQQ", 4, 0, start + len(before), 0, 0, len(contents), 0, 0)
    else:
        start = 52 + 2 * 32
        head = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHH", kind, 3, 1, 0, 52, 0, 0, 52, 32, 2)
        head += bytes(6)
        segments = struct.pack("<IIIIIIII", 1, start, 0, 0, len(before), 0, 0, 0)
        segments += struct.pack("<IIIIIIII", 4, start + len(before), 0, 0, len(contents), 0, 0, 0)
    return head + segments + before + contents


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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (core(prstatus(7)), "ELF core without a note NT_X86_XSTATE"),
        (core(prstatus(7), note(b"OTHER", 0x202, AREA)), "ELF core without a note NT_X86_XSTATE"),
        (core(note(b"LINUX", 0x202, AREA), kind=2), "not an XSAVE area: an ELF file"),
        (b"\x7fELF" + bytes(600), "not an XSAVE area: an ELF file"),
        (casefiles.read("xsave", "win_xstate.bin"), "not an XSAVE area: Windows' XSTATE of a CONTEXT_EX"),
        (NOTE, "not an XSAVE area: the layout of one"),
        (QEVM + bytes(600), "not an XSAVE area: a migration stream"),
        (b"MDMP" + bytes(600), "not an XSAVE area: a Windows minidump"),
        (b'{"a": 1}', "not an XSAVE area: JSON without an xsave region"),
        (b"[" + b"1, " * 500 + b"2]", "not an XSAVE area: JSON without an xsave region"),
        (casefiles.read("xsave", "dec.cpuid"), "not an XSAVE area: text"),
        (struct.pack("<IIII", 12, 16 + 832, 0, 0) + bytes(16 + 832 - 8), "not an XSAVE area: Xen's record of a PV"),
    ],
)
def test_what_is_no_area_is_named(data, words):
    with pytest.raises(UnsupportedError, match=words):
        find_area(data, "x")


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


def test_windows_xstate_of_other_features():
    for mask, size in ((0x4, 256), (0x1807 & ~3, 256 + 40), (0x60004, 256 + 64 + 8192), (0x800, 16)):
        head = struct.pack("<QQ", mask, mask | 1 << 63) + bytes(48)
        with pytest.raises(UnsupportedError, match="Windows"):
            find_area(head + b"x" * size, "w")
    short = struct.pack("<QQ", 4, 4 | 1 << 63) + bytes(48) + bytes(200)
    assert find_area(short, "w").data == short  # no whole one: what it is, is for others to say


def test_a_record_of_xen():
    data = casefiles.read("xsave", "xen_xsave.rec")
    found = find_area(data, "xen_xsave.rec")
    assert (found.data, found.xcr0, found.layout) == (data[32:], 0xE7, None)
    assert "vCPU 0 in xen_xsave.rec, a save record of Xen; XCR0 0xe7" in found.note
    other = struct.pack("<HHIQQQ", 16, 3, 24 + 2696, 0x602E7, 0x7, 0x2E7) + bytes(2696)
    assert "vCPU 3" in find_area(other, "x").note
    assert find_area(other, "x").xcr0 == 7
    for wrong in (
        other[:-1],
        struct.pack("<HHIQQQ", 16, 3, 24 + 2696, 0x602E7, 0x7, 0x3) + other[32:],
        b"\x11" + other[1:],
    ):
        assert find_area(wrong, "x").data == wrong


def test_json_of_cloud_hypervisor():
    data = casefiles.read("xsave", "ch_state.json")
    found = find_area(data, "ch_state.json")
    region = json.loads(data)["cpu_states"][0]["Kvm"]["xsave"]["region"]
    assert found.data == struct.pack("<1024I", *region)
    assert (found.xcr0, found.note) == (0xE7, "area 0 in the document, from 0 (1 in this JSON document)")
    with pytest.raises(UsageError, match="no area 1"):
        find_area(data, "ch_state.json", "1")


def test_json_of_several_vcpus_and_of_other_forms():
    def state(byte, **more):
        return {"xsave": {"region": [byte] * 1024, "extra": [byte] * 8}, **more}

    two = json.dumps({"cpu_states": [{"Kvm": state(1)}, {"Kvm": state(2)}]}).encode()
    with pytest.raises(
        UsageError, match=r"2 vCPUs; select one by its position in the document, from 0 \(expected j#0, j#1\)"
    ):
        find_area(two, "j")
    assert find_area(two, "j", "1").data == b"\2\0\0\0" * 1032
    inside = json.dumps({"snapshot": {"state": json.dumps(state(3))}}).encode()
    assert find_area(inside, "j").data[:4] == b"\3\0\0\0"
    mshv = json.dumps({"Mshv": {"xsave": {"buffer": list(bytes(16)) * 256}}}).encode()
    assert find_area(mshv, "j").data == bytes(4096)
    for wrong in ([1 << 32] * 1024, [-1] * 1024, [1.5] * 1024, [0] * 100, "no", None, [True] * 1024):
        with pytest.raises(UnsupportedError):
            find_area(json.dumps({"xsave": {"region": wrong}}).encode(), "j")


def state_of(byte, **more):
    return {"xsave": {"region": [byte] * 1024}, **more}


def test_a_vcpu_of_json_is_the_one_of_its_key():
    """Cloud Hypervisor sorts its keys as strings: 0, 1, 10, 11, 2."""
    keys = sorted(map(str, range(12)))
    snapshots = {key: {"snapshot_data": {"state": json.dumps(state_of(100 + int(key)))}} for key in keys}
    data = json.dumps({"id": "vm", "snapshots": {"cpu-manager": {"snapshots": snapshots}}}).encode()
    for number in range(12):
        found = find_area(data, "j", str(number))
        assert found.data[0] == 100 + number
        assert f"vCPU {number}, by its key or id" in found.note
    with pytest.raises(UsageError, match=r"12 vCPUs; select one by key or id \(expected j#0, j#1, j#2, j#3, "):
        find_area(data, "j")
    for wrong in ("12", "01", "-1", "+1", " 1"):
        with pytest.raises(UsageError, match=f"no vCPU {re.escape(wrong)} in j"):
            find_area(data, "j", wrong)


def test_a_vcpu_of_json_is_the_one_of_its_id():
    data = json.dumps([state_of(7, id="7"), {"id": 3, "inside": {"Kvm": state_of(3)}}]).encode()
    assert (find_area(data, "j", "7").data[0], find_area(data, "j", "3").data[0]) == (7, 3)
    with pytest.raises(UsageError, match="no vCPU 0 in j"):
        find_area(data, "j", "0")


@pytest.mark.parametrize(
    "document",
    [
        [state_of(5), state_of(6, id=0)],  # one has none
        [state_of(5, id=3), state_of(6, id="3")],  # two have the same
        {"1": [state_of(5), state_of(6)]},  # of the list's, not of its elements'
        [state_of(5, id="a"), state_of(6, id=True)],
    ],
)
def test_without_a_key_of_its_own_an_area_of_json_has_its_place(document):
    data = json.dumps(document).encode()
    for place, byte in enumerate((5, 6)):
        found = find_area(data, "j", str(place))
        assert found.data[0] == byte
        assert found.note == f"area {place} in the document, from 0 (2 in this JSON document)"


def test_a_key_twice_in_json():
    one = json.dumps(state_of(5))
    for text in (f'{{"0": {one}, "0": {one}}}', json.dumps({"state": f'{{"0": {one}, "0": {one}}}'})):
        with pytest.raises(XsaveError, match="has the key '0' twice"):
            find_area(text.encode(), "j")


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


def test_an_area_alone_stays_what_it_is():
    for data in (AREA, bytes(4096), b"", bytes(100), casefiles.read("xsave", "mshv-page-cet.compacted")):
        assert find_area(data, "a").data == data
    with pytest.raises(UsageError, match="nothing to select"):
        find_area(AREA, "a", "1")


def test_the_layout_note_alone():
    assert is_layout_note(NOTE)
    cpu = layout_of_note(NOTE, "core.xlayout")
    assert (cpu.user_mask, cpu.standard_size()) == (0xE7, 2432)
    for wrong in (b"", NOTE[:-1], NOTE[16:32] + NOTE[:16], NOTE + NOTE[:16], bytes(64), AREA[:64]):
        assert not is_layout_note(wrong)
        with pytest.raises(XsaveError):
            layout_of_note(wrong, "x")


def test_software_bytes():
    assert software_bytes(AREA) == (0xE7, None)
    frame = bytearray(AREA + b"EXPF")
    struct.pack_into("<IIQI", frame, 464, 0x46505853, 2432 + 4, 0xE7, 2432)
    assert software_bytes(bytes(frame)) == (0xE7, 2432)
    for behind, said in ((b"", True), (b"EX", True), (bytes(99), True), (b"EXPG", False), (b"\1" * 99, False)):
        assert (software_bytes(bytes(frame[:2432]) + behind) is not None) is said
    for mask in (0, 1, 0x6, 0x1807, 0x27, 1 << 63 | 3, 0xCCCCCCCCCCCCCCCC):
        other = bytearray(AREA)
        struct.pack_into("<Q", other, 464, mask)
        assert software_bytes(bytes(other)) is None
    assert software_bytes(AREA[:500]) is None
    assert software_bytes(AREA[:500] + b"\1" + AREA[501:]) is None


def test_software_bytes_contradict_a_layout():
    assert software_misfit(AREA, layout("amd-zen4")) is None
    words = "an area with XCR0 0xe7 has 2432 bytes, but one of intel-spr has 2688"
    assert words in software_misfit(AREA, layout("intel-spr"))
    assert software_misfit(AREA, layout("intel-hsw")) is None  # it has no AVX-512: XSTATE_BV is what tells
    assert software_misfit(AREA + bytes(4096 - len(AREA)), layout("intel-spr")) is None
    frame = bytearray(AREA + bytes(4096 - len(AREA)))
    struct.pack_into("<IIQI", frame, 464, 0x46505853, 2436, 0xE7, 2432)
    assert words in software_misfit(bytes(frame), layout("intel-spr"))
    assert software_misfit(bytes(frame), layout("amd-zen5")) is None


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


def test_json_made_to_hurt():
    deep = b"[" * 3000 + b"]" * 3000
    with pytest.raises(UnsupportedError, match="JSON without an xsave region"):
        find_area(deep, "j")
    with pytest.raises(LimitError):
        find_area(b'{"xsave": [' + b"0," * (2 << 20) + b"0]}", "j")
    with pytest.raises(UsageError, match="no area"):
        find_area(json.dumps({"xsave": {"region": [0] * 1024}}).encode(), "j", "\N{SUPERSCRIPT TWO}")


@settings(deadline=None)
@given(
    st.sampled_from([casefiles.read("xsave", name) for name in ("core.elf", "xen_xsave.rec", "ch_state.json")]),
    st.lists(st.tuples(st.integers(0, 3500), st.binary(max_size=8)), max_size=6),
    st.integers(0, 8000),
    st.sampled_from([None, "0", "1"]),
)
def test_any_bytes_give_an_area_or_a_qmig_error(data, changes, length, choice):
    changed = bytearray(data)
    for at, piece in changes:
        changed[at : at + len(piece)] = piece
    with contextlib.suppress(QmigError):
        assert isinstance(find_area(bytes(changed[:length]), "x", choice), FoundArea)
