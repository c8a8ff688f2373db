"""An XSAVE area is found in what contains it, or the form is named."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import QmigError, UnsupportedError, UsageError
from qmigtool.parsers.records import QEVM
from qmigtool.xsave.holders import FoundArea, find_area
from tests.support import casefiles
from tests.xsave.holders.areas import AREA, NOTE, core, note, prstatus


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


def test_an_area_alone_stays_what_it_is():
    for data in (AREA, bytes(4096), b"", bytes(100), casefiles.read("xsave", "mshv-page-cet.compacted")):
        assert find_area(data, "a").data == data
    with pytest.raises(UsageError, match="nothing to select"):
        find_area(AREA, "a", "1")


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
