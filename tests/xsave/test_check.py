import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.xsave import XsaveArea, check_area, layout, layout_names
from tests.support.paths import SAMPLES
from tests.xsave import model

MATRIX = json.loads((Path(__file__).parent / "data" / "fault_matrix.json").read_text())
AREAS = SAMPLES / "areas"
FLAG = 1 << 63
CPU = layout("amd-zen4-kvm")


def edited(data, *edits):
    out = bytearray(data)
    for offset, form, value in edits:
        struct.pack_into(form, out, offset, value)
    return bytes(out)


STANDARD = (AREAS / "zen4-avx512.standard.bin").read_bytes()
COMPACTED = (AREAS / "zen4-avx512.compacted.bin").read_bytes()
XSTATE, XCOMP, MXCSR = 512, 520, 24
BAD_MXCSR = (MXCSR, "<I", 0x80001F80)

# What was done to the area in each measured case: edits, and arguments of check_area.
XRSTOR_CASES = {
    ("standard", "image as written by XSAVE"): ([], {}),
    ("standard", "XCOMP_BV = old low bits, bit63=0 (seed decompact output)"): ([(XCOMP, "<Q", 0xE7)], {}),
    ("standard", "XCOMP_BV = 1"): ([(XCOMP, "<Q", 1)], {}),
    ("standard", "header bytes 23:16 nonzero"): ([(535, "B", 1)], {}),
    ("standard", "header bytes 31:24 nonzero"): ([(536, "B", 1)], {}),
    ("standard", "header bytes 63:56 nonzero"): ([(575, "B", 1)], {}),
    ("standard", "XSTATE_BV bit 11 (not in XCR0), RFBM=all"): ([(XSTATE, "<Q", 0x8E7)], {}),
    ("standard", "XSTATE_BV bit 11, RFBM=7"): ([(XSTATE, "<Q", 0x8E7)], {"rfbm": 7}),
    ("standard", "MXCSR reserved bit, RFBM=all, XSTATE_BV=all"): ([BAD_MXCSR], {}),
    ("standard", "MXCSR reserved bit, RFBM=all, XSTATE_BV=1"): ([BAD_MXCSR, (XSTATE, "<Q", 1)], {}),
    ("standard", "MXCSR reserved bit, RFBM=1"): ([BAD_MXCSR], {"rfbm": 1}),
    ("standard", "MXCSR_MASK garbage"): ([(28, "<I", 0xDEADBEEF)], {}),
    ("standard", "bytes 511:416 garbage"): ([(416, "<Q", 0xDEADBEEF), (504, "<Q", 0xDEADBEEF)], {}),
    ("standard", "misaligned by 16"): ([], {"address": 0x1010}),
    ("compacted", "image as written by XSAVEC"): ([], {}),
    ("compacted", "XCOMP_BV bit 11 (not in XCR0)"): ([(XCOMP, "<Q", FLAG | 0x8E7)], {}),
    ("compacted", "XCOMP_BV bit 62"): ([(XCOMP, "<Q", FLAG | 1 << 62 | 0xE7)], {}),
    ("compacted", "XSTATE_BV[2]=1, XCOMP_BV[2]=0"): ([(XCOMP, "<Q", FLAG | 0xE3)], {}),
    ("compacted", "XCOMP_BV[1:0]=0 with XSTATE_BV[1:0]=3"): ([(XCOMP, "<Q", FLAG | 0xE4)], {}),
    ("compacted", "XCOMP_BV[1:0]=0 with XSTATE_BV=0"): ([(XCOMP, "<Q", FLAG | 0xE4), (XSTATE, "<Q", 0)], {}),
    ("compacted", "XSTATE_BV[63]=1"): ([(XSTATE, "<Q", FLAG | 0xE7)], {}),
    ("compacted", "header bytes 23:16 nonzero"): ([(528, "B", 1)], {}),
    ("compacted", "header bytes 31:24 nonzero"): ([(536, "B", 1)], {}),
    ("compacted", "header bytes 63:56 nonzero"): ([(575, "B", 1)], {}),
    ("compacted", "MXCSR reserved bit, XSTATE_BV[1]=1"): ([BAD_MXCSR], {}),
    ("compacted", "MXCSR reserved bit, XSTATE_BV[1]=0"): ([BAD_MXCSR, (XSTATE, "<Q", 0xE5)], {}),
    ("compacted", "misaligned by 16"): ([], {"address": 0x7FF0}),
}
KVM_CASES = {
    "XCOMP_BV=0xe7": [(XCOMP, "<Q", 0xE7)],
    "XCOMP_BV=1<<63|0xe7": [(XCOMP, "<Q", FLAG | 0xE7)],
    "reserved header bytes nonzero": [(560, "B", 1)],
    "XSTATE_BV bit unknown": [(XSTATE, "<Q", 0x1000E7)],
    "MXCSR reserved bit, XSTATE_BV[1]=1": [BAD_MXCSR],
    "MXCSR reserved bit, XSTATE_BV=0": [BAD_MXCSR, (XSTATE, "<Q", 0)],
    "XSTATE_BV=4, MXCSR=9fc0": [(XSTATE, "<Q", 4)],
    "XSTATE_BV=1, MXCSR=9fc0": [(XSTATE, "<Q", 1)],
}


def ask(consumer, data, cpu=CPU, **options):
    options.setdefault("mxcsr_mask", 0x2FFFF)
    (verdict,) = [verdict for verdict in check_area(data, cpu, **options) if verdict.consumer == consumer]
    assert verdict.ok == (not verdict.reasons)
    return verdict


@pytest.mark.parametrize("row", MATRIX["xrstor"], ids=lambda row: f"{row['format']}: {row['case']}")
def test_the_measured_xrstor_matrix(row):
    edits, options = XRSTOR_CASES[row["format"], row["case"]]
    data = edited(STANDARD if row["format"] == "standard" else COMPACTED, *edits)
    assert ask("XRSTOR", data, **options).ok == (row["result"] == "ok")


def test_no_measured_case_is_left_out():
    assert {(row["format"], row["case"]) for row in MATRIX["xrstor"]} == set(XRSTOR_CASES)
    assert {row["case"] for row in MATRIX["kvm_set_xsave"]} == set(KVM_CASES)


@pytest.mark.parametrize("row", MATRIX["kvm_set_xsave"], ids=lambda row: row["case"])
def test_the_measured_kvm_matrix(row):
    verdict = ask("KVM_SET_XSAVE", edited(STANDARD, *KVM_CASES[row["case"]]))
    assert verdict.ok == row["result"].startswith("ok")


@pytest.mark.parametrize(("declared", "ok"), [(0, True), (1, False), (2, False), (4, False), (0xE0, True)])
def test_kvm_looks_at_mxcsr_if_x87_is_declared_too(declared, ok):
    """Measured with QEMU 10.0: "Failed to set XSAVE" with 1, 2 and 4."""
    assert ask("KVM_SET_XSAVE", edited(STANDARD, BAD_MXCSR, (XSTATE, "<Q", declared))).ok is ok


def test_kvm_tells_that_an_undeclared_mxcsr_is_lost():
    assert not ask("KVM_SET_XSAVE", STANDARD).notes
    for xstate_bv in (1, 4):  # XSTATE_BV=4 keeps it in memory, but the CPU runs with 1F80
        (note,) = ask("KVM_SET_XSAVE", edited(STANDARD, (XSTATE, "<Q", xstate_bv))).notes
        assert "0x9fc0" in note


def test_reasons_name_field_offset_and_value():
    (reason,) = ask("XRSTOR", edited(STANDARD, (XCOMP, "<Q", 0xE7))).reasons
    assert "XCOMP_BV (byte 520) is 0xe7" in reason
    (reason,) = ask("XRSTOR", edited(STANDARD, (530, "B", 0x5A))).reasons
    assert "byte 530 is 0x5a" in reason
    (reason,) = ask("XRSTOR", edited(STANDARD, (XSTATE, "<Q", 0x8E7))).reasons
    assert "XSTATE_BV (byte 512) is 0x8e7" in reason
    assert reason.endswith("CET_U")
    (reason,) = ask("XRSTOR", edited(STANDARD, BAD_MXCSR)).reasons
    assert "MXCSR (byte 24) is 0x80001f80, whose bits 0x80000000" in reason


def test_a_finding_names_its_rule_and_its_byte():
    (found,) = ask("XRSTOR", edited(STANDARD, BAD_MXCSR)).findings
    assert (found.rule, found.severity, found.offset) == ("mxcsr", "error", 24)
    (found,) = ask("XRSTOR", edited(STANDARD, (530, "B", 0x5A))).findings
    assert (found.rule, found.offset) == ("reserved", 530)
    assert {one.severity for one in ask("KVM_SET_XSAVE", STANDARD[:2432]).findings} == {"note"}


def test_mxcsr_bit_17_is_amds():
    data = edited(STANDARD, (MXCSR, "<I", 0x21F80))
    assert ask("XRSTOR", data, mxcsr_mask=0x2FFFF).ok
    assert not ask("XRSTOR", data, mxcsr_mask=0xFFFF).ok
    assert check_area(data, CPU)[0].ok  # by the layout's vendor
    assert not check_area(data, layout("intel-clx"))[0].ok


CET = model.write({0: b"\x7f\x03" + bytes(150), 11: bytes(16)}, model.compacted_walk(0x1807), xcomp_bv=FLAG | 0x1807)


def test_xrstors_takes_supervisor_state_that_xss_enables():
    assert ask("XRSTORS", CET, xcr0=7, xss=0x1800).ok
    assert not ask("XRSTORS", CET, xcr0=7, xss=0x800).ok
    assert not ask("XRSTORS", CET, xcr0=3, xss=0x1800).ok
    assert not ask("XRSTOR", CET, xcr0=7, xss=0x1800).ok


def test_xrstors_takes_only_the_compacted_format():
    (reason,) = ask("XRSTORS", STANDARD).reasons
    assert "standard" in reason
    assert ask("XRSTORS", COMPACTED).ok
    assert not ask("XRSTORS", COMPACTED, address=8).ok


def test_cpus_without_xsavec_or_xsaves():
    plain = model.write({0: b"\x7f\x03" + bytes(150)}, model.compacted_walk(7), xcomp_bv=FLAG | 7)
    assert "XSAVEC" in ask("XRSTOR", plain, layout("intel-hsw")).reasons[0]
    assert "XSAVES" in ask("XRSTORS", plain, layout("intel-hsw")).reasons[0]
    assert ask("XRSTOR", plain, layout("amd-zen1")).ok
    assert ask("XRSTORS", plain, layout("amd-zen1")).ok


def with_component(bit, mask):
    state = {0: b"\x7f\x03" + bytes(150), bit: bytes(model.SIZES[bit])}
    return model.write(state, model.compacted_walk(mask), xcomp_bv=FLAG | mask)


@pytest.mark.parametrize(
    ("name", "bit", "ok"),
    [
        ("amd-zen4", 9, False),
        ("amd-zen4", 7, True),
        ("amd-zen4", 11, True),
        ("amd-zen4", 12, True),
        ("intel-spr", 10, True),
        ("intel-spr", 17, True),
        ("intel-spr", 8, False),
        ("intel-spr", 14, False),
        ("intel-spr", 15, False),
        ("intel-gnr", 16, False),
        ("intel-skl", 3, True),
        ("qemu", 19, False),
        ("amd-zen2-lwp", 62, False),
    ],
)
def test_what_mshv_can_name(name, bit, ok):
    verdict = ask("MSHV", with_component(bit, 3 | 1 << bit), layout(name))
    assert verdict.ok == ok
    assert ask("WHPX", with_component(bit, 3 | 1 << bit), layout(name)).ok
    if not ok:
        assert all("hv_x64_xsave_xfem_register" in reason for reason in verdict.reasons)


def test_mshv_and_whpx_take_only_the_compacted_format():
    assert ask("MSHV", COMPACTED).ok
    assert ask("WHPX", COMPACTED).ok
    assert not ask("MSHV", STANDARD).ok
    assert not ask("WHPX", STANDARD).ok
    for bad in (
        edited(COMPACTED, (XSTATE, "<Q", 0x10E7)),
        edited(COMPACTED, (540, "B", 1)),
        edited(COMPACTED, BAD_MXCSR),
    ):
        assert not ask("MSHV", bad).ok
        assert not ask("WHPX", bad).ok


def test_mshv_notes_on_sizes():
    assert not ask("MSHV", COMPACTED).notes
    (note,) = ask("MSHV", COMPACTED[:2432]).notes
    assert "4096 bytes for the 2432" in note
    amx = with_component(17, 0x602E7) + bytes(12288 - 10752)
    notes = ask("MSHV", edited(amx, (XSTATE, "<Q", 1)), layout("intel-spr")).notes
    assert any("10752" in note for note in notes)
    no_legacy = edited(COMPACTED, (XCOMP, "<Q", FLAG | 0xE4), (XSTATE, "<Q", 0))
    assert any("XCOMP_BV[1:0]" in note for note in ask("MSHV", no_legacy).notes)


def test_whpx_passes_a_buffer_of_the_standard_size():
    """On AMD with CET the compacted layout is larger: 0x2E7|0x1800 needs 2480 bytes, CPUID.(0DH,0).ECX says 2440."""
    data = with_component(11, 0x1AE7)
    assert len(data) == 2480
    (note,) = ask("WHPX", data, layout("amd-zen4")).notes
    assert "2480" in note
    assert "2440" in note


def test_areas_that_end_too_early():
    for size in (0, 1, 511, 512, 520, 575):
        for verdict in check_area(STANDARD[:size], CPU):
            assert not verdict.ok
    assert "ends at byte 2432" in ask("XRSTOR", STANDARD[:2431]).reasons[0]
    assert "ends at byte 2432" in ask("KVM_SET_XSAVE", STANDARD[:2431]).reasons[0]
    assert "end at byte 2432" in ask("XRSTOR", COMPACTED[:2431]).reasons[0]
    assert ask("XRSTOR", COMPACTED[:2432]).ok
    assert any("4096" in note for note in ask("KVM_SET_XSAVE", STANDARD[:2432]).notes)


def test_a_compacted_area_of_another_layout():
    data = with_component(9, 0x203)
    assert not ask("MSHV", data, layout("amd-zen1")).ok
    (reason,) = ask("XRSTOR", data, layout("amd-zen1"), xcr0=0x207).reasons
    assert "amd-zen1 cannot place" in reason


def test_what_conversion_makes_is_taken():
    area = XsaveArea(STANDARD, CPU)
    assert [v.ok for v in check_area(area.compact().data, CPU, mxcsr_mask=0x2FFFF)] == [True, True, False, True, True]
    assert [v.ok for v in check_area(area.expand().data, CPU)] == [True, False, True, False, False]


@settings(deadline=None)
@given(
    st.binary(max_size=600),
    st.sampled_from(layout_names()),
    st.integers(0, (1 << 64) - 1) | st.none(),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, 3000]),
)
def test_any_bytes_get_their_verdicts(data, name, xcr0, xss, more):
    verdicts = check_area(data + bytes(more), layout(name), xcr0, xss)
    assert [verdict.consumer for verdict in verdicts] == ["XRSTOR", "XRSTORS", "KVM_SET_XSAVE", "MSHV", "WHPX"]
    assert all(verdict.ok == (not verdict.reasons) for verdict in verdicts)
