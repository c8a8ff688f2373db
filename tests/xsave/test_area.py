import pickle
import struct

import pytest

from qmigtool.errors import LiveStateError, UsageError, XsaveError
from qmigtool.xsave import Format, XsaveArea, layout
from tests.support.paths import SAMPLES
from tests.xsave import model

AREAS = SAMPLES / "areas"
STANDARD = (AREAS / "zen4-avx512.standard.bin").read_bytes()
COMPACTED = (AREAS / "zen4-avx512.compacted.bin").read_bytes()
ZEN4 = layout("amd-zen4-kvm")


def area(size=832, xstate_bv=0, xcomp_bv=0, at=None, mxcsr=0x1F80):
    data = bytearray(size)
    struct.pack_into("<I", data, 24, mxcsr)
    struct.pack_into("<QQ", data, 512, xstate_bv, xcomp_bv)
    for offset, piece in (at or {}).items():
        data[offset : offset + len(piece)] = piece
    return bytes(data)


@pytest.fixture(params=["standard", "compacted"])
def real(request):
    return XsaveArea(STANDARD if request.param == "standard" else COMPACTED, ZEN4)


def test_registers_of_the_real_areas(real):
    """One register state of a Zen 4, written by its XSAVE and its XSAVEC."""
    assert real.xstate_bv == real.declared == real.live == 0xE7
    assert (real.fcw, real.fsw, real.ftw, real.fop, real.fip, real.fdp) == (0x37F, 0x3000, 0xC0, 0, 0, 0)
    assert real.st(0) == bytes.fromhex("0000000000000080ff3f")  # 1.0
    assert real.st(1) == bytes.fromhex("35c26821a2da0fc90040")  # pi
    assert real.mxcsr == 0x9FC0
    assert real.mxcsr_mask == 0x2FFFF
    assert real.xmm(0) == bytes(16)
    assert real.xmm(2) == bytes.fromhex("0104070a0d101316191c1f2225282b2e")
    assert real.component("AVX")[32:48] == bytes.fromhex("3134373a3d404346494c4f5255585b5e")
    assert real.component("opmask")[:16] == bytes.fromhex("50004000000000000220020000000000")
    assert real.component("ZMM_Hi256")[64:80] == bytes.fromhex("6164676a6d707376797c7f8285888b8e")
    assert real.component("Hi16_ZMM")[256:260] == bytes.fromhex("0104070a")
    assert real.component("PKRU") == bytes(8)


def test_formats_of_the_real_areas():
    standard, compacted = XsaveArea(STANDARD, ZEN4), XsaveArea(COMPACTED, ZEN4)
    assert (standard.format, standard.xcomp_bv) == (Format.STANDARD, 0)
    assert (compacted.format, compacted.xcomp_bv) == (Format.COMPACTED, 0x80000000000000E7)
    assert standard.offsets == {2: 576, 5: 832, 6: 896, 7: 1408}
    assert standard.architectural_state() == compacted.architectural_state()


def test_the_real_areas_convert_in_both_directions():
    compacted = XsaveArea(STANDARD, ZEN4).compact()
    standard = XsaveArea(COMPACTED, ZEN4).expand()
    assert len(compacted.data) == len(standard.data) == 2432
    # On this CPU the two formats have the same offsets: what the CPU wrote itself is the expectation.
    for ours, cpus, xcomp_bv in ((compacted, COMPACTED, 0x80000000000000E7), (standard, STANDARD, 0)):
        assert ours.data[:28] == cpus[:28]
        assert ours.data[28:32] == bytes(4)
        assert ours.data[32:416] == cpus[32:416]
        assert ours.data[416:512] == bytes(96)
        assert ours.data[512:528] == struct.pack("<QQ", 0xE7, xcomp_bv)
        assert ours.data[528:] == cpus[528:2432]
    assert (
        compacted.architectural_state()
        == standard.architectural_state()
        == XsaveArea(STANDARD, ZEN4).architectural_state()
    )


def test_the_real_area_in_intels_layout():
    there = XsaveArea(COMPACTED, ZEN4).expand(layout("intel-spr"), mask=0xE7)
    assert len(there.data) == 2688
    assert there.data[832:1088] == bytes(256)
    assert there.data[1088:1152] == STANDARD[832:896]
    assert there.data[1152:1664] == STANDARD[896:1408]
    assert there.data[1664:2688] == STANDARD[1408:2432]
    back = there.compact(layout("amd-zen5"), mask=0xE7)
    assert back.architectural_state() == XsaveArea(STANDARD, ZEN4).architectural_state()


def test_a_cpu_without_avx512_refuses_the_real_area():
    with pytest.raises(LiveStateError, match="opmask, ZMM_Hi256, Hi16_ZMM") as error:
        XsaveArea(STANDARD, ZEN4).compact(layout("amd-zen3"))
    assert error.value.components == ("opmask", "ZMM_Hi256", "Hi16_ZMM")
    dropped = XsaveArea(STANDARD, ZEN4).compact(layout("amd-zen3"), drop=0xE0)
    assert dropped.live == 0x7
    assert dropped.component(2) == STANDARD[576:832]


def test_stale_bytes_are_never_state():
    stale = bytearray(b"\xcc" * 2432)
    stale[512:576] = struct.pack("<QQ", 0, 0x80000000000000E7) + bytes(48)
    found = XsaveArea(bytes(stale), ZEN4)
    assert (found.live, found.mxcsr, found.fcw, found.fsw) == (0, 0x1F80, 0x37F, 0)
    assert found.component(0) == b"\x7f\x03" + bytes(150)
    assert all(found.component(bit) == bytes(len(found.component(bit))) for bit in (1, 2, 5, 6, 7, 9, 11))
    assert found.memory(2) == b"\xcc" * 256
    assert found.architectural_state() == {"mxcsr": 0x1F80}


def test_mxcsr_alone_makes_sse_live():
    assert XsaveArea(area(mxcsr=0x1FA0), layout("amd-zen1")).live == 2
    assert XsaveArea(area(mxcsr=0x1F80), layout("amd-zen1")).live == 0


def test_declared_is_not_live():
    found = XsaveArea(area(2440, 0x207, at={0: b"\x7f\x03", 2432: b"\x01"}), layout("amd-zen3"))
    assert (found.declared, found.live) == (0x207, 0x200)


def test_undeclared_is_not_live_and_redeclared_finds_it():
    """A TCG stream: XSTATE_BV is 0 and the registers are there."""
    tcg = layout("tcg")
    silent = XsaveArea(area(2696, at={0: b"\x7f\x03", 160: b"\x01", 576: b"\x02", 2688: b"\x03"}), tcg)
    assert silent.live == 0
    assert silent.redeclared().live == silent.redeclared().declared == 0x206
    assert silent.redeclared(0x7).declared == 0x6
    assert XsaveArea(area(2696, mxcsr=0x1FA0, at={0: b"\x7f\x03"}), tcg).redeclared().declared == 2


def test_redeclared_does_not_choose_between_mpx_and_apx():
    found = XsaveArea(area(2696, at={0: b"\x7f\x03", 960: b"\x01"}), layout("qemu"))
    with pytest.raises(XsaveError, match="BNDREGS and APX_F"):
        found.redeclared()
    assert found.redeclared(0x207 | 0x18).declared == 0x8
    assert found.redeclared(0x80207).declared == 0x80000


def test_redeclared_refuses_a_compacted_area():
    with pytest.raises(XsaveError, match="stale"):
        XsaveArea(COMPACTED, ZEN4).redeclared()


def test_supervisor_components_beside_the_area():
    cet = bytes(range(16))
    found = XsaveArea(area(832), layout("amd-zen4"), {11: cet, 12: bytes(24)})
    assert found.live == 0x800
    assert found.component("CET_U") == cet
    assert found.architectural_state() == {"mxcsr": 0x1F80, 11: cet}


@pytest.mark.parametrize("supervisor", [{2: bytes(256)}, {11: bytes(15)}, {20: bytes(8)}, {9: bytes(8)}])
def test_what_cannot_be_beside_the_area(supervisor):
    with pytest.raises(XsaveError):
        XsaveArea(area(832), layout("amd-zen4"), supervisor)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(575),
        area(831, xstate_bv=0x7),
        area(831, xcomp_bv=1 << 63 | 7),
        area(832, xcomp_bv=1 << 63 | 1 << 40),
        area(4096, xcomp_bv=(1 << 64) - 1),
    ],
)
def test_areas_that_are_too_short_or_of_another_layout(data):
    with pytest.raises(XsaveError):
        XsaveArea(data, layout("amd-zen4"))


def test_a_short_standard_area_is_fine_while_it_declares_nothing_beyond():
    assert XsaveArea(area(832, xstate_bv=0x7), layout("amd-zen4")).declared == 7


def test_an_unreadable_component_counts_as_live_and_names_its_reason():
    found = XsaveArea(area(896, xstate_bv=0x200, at={0: b"\x7f\x03"}), layout("amd-zen2"))
    assert found.live == 0x200
    with pytest.raises(XsaveError, match="64 bytes"):
        found.component("PKRU")


@pytest.mark.parametrize(
    "ask",
    [
        lambda a: a.st(8),
        lambda a: a.st(-1),
        lambda a: a.xmm(16),
        lambda a: a.xmm(-1),
        lambda a: a.component("ymm"),
        lambda a: a.component(63),
        lambda a: a.memory(-1),
    ],
)
def test_there_is_no_such_register(ask):
    with pytest.raises(UsageError):
        ask(XsaveArea(STANDARD, ZEN4))


def test_nobody_knows_the_size_of_an_unknown_component():
    with pytest.raises(XsaveError, match="bit20"):
        XsaveArea(STANDARD, ZEN4).component(20)


def test_areas_travel_to_workers():
    found = XsaveArea(STANDARD, ZEN4, {11: bytes(16)})
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301


def test_lbr_travels_beside_a_standard_area():
    lbr = bytes([1]) + bytes(7) + bytes([32]) + bytes(799)
    data = model.write({15: lbr}, model.compacted_walk(0x8003), xcomp_bv=1 << 63 | 0x8003)
    standard = XsaveArea(data, layout("intel-spr")).expand()
    assert standard.supervisor == {15: lbr}
    assert standard.compact(mask=0x8003).data[576:1384] == lbr
