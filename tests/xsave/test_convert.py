import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import LiveStateError, XsaveError
from qmigtool.xsave import Format, Layout, XsaveArea, convert, default_mask, layout, mshv_buffer_size
from tests.xsave import model
from tests.xsave.written import COMPACTED_FLAG, area

MXCSR = st.sampled_from([0x1F80, 0x9FC0, 0x1FA5, 0x0, 0xFFFF])


@st.composite
def cases(draw):
    """A layout, an XCOMP_BV of it, a state within, and what MXCSR holds."""
    name = draw(st.sampled_from(sorted(model.LAYOUTS)))
    supervisor = model.LAYOUTS[name][2]
    mask = draw(st.sampled_from(model.legal_xcr0(name))) | 3
    mask |= sum(1 << bit for bit in supervisor if draw(st.booleans()))
    present = draw(st.integers(0, (1 << 63) - 1)) & mask
    return name, mask, model.some_state(name, present, draw(st.integers(0, 1 << 16))), draw(MXCSR)


def without_supervisor(mask):
    return mask & ~sum(1 << bit for bit in model.SUPERVISOR)


def split(state):
    beside = {bit: piece for bit, piece in state.items() if bit in model.SUPERVISOR}
    return {bit: piece for bit, piece in state.items() if bit not in beside}, beside


@settings(max_examples=300, deadline=None)
@given(cases(), st.sampled_from([0, 0xCC, 0xFF]))
def test_standard_to_compacted_and_back_agrees_with_the_naive_model(case, fill):
    name, mask, state, mxcsr = case
    cpu, user_mask = layout(name), without_supervisor(mask)
    user_state, beside = split(state)
    in_memory = model.write(user_state, model.standard_walk(name, user_mask), xcomp_bv=0, mxcsr=mxcsr, fill=fill)
    compacted = convert(in_memory, cpu, Format.COMPACTED, mask=mask, supervisor=beside)
    assert compacted.data == model.clean(state, model.compacted_walk(mask), xcomp_bv=COMPACTED_FLAG | mask, mxcsr=mxcsr)
    assert (compacted.supervisor, compacted.dropped) == ({}, 0)
    back = convert(compacted.data, cpu, Format.STANDARD, mask=user_mask)
    assert back.data == model.clean(user_state, model.standard_walk(name, user_mask), xcomp_bv=0, mxcsr=mxcsr)
    assert back.supervisor == beside
    again = convert(back.data, cpu, Format.COMPACTED, mask=mask, supervisor=back.supervisor)
    assert again.data == compacted.data


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from([0, 0xCC, 0xFF]))
def test_compacted_to_standard_reads_nothing_stale(case, fill):
    name, mask, state, mxcsr = case
    in_memory = model.write(state, model.compacted_walk(mask), xcomp_bv=COMPACTED_FLAG | mask, mxcsr=mxcsr, fill=fill)
    user_state, beside = split(state)
    result = convert(in_memory, layout(name), Format.STANDARD, mask=without_supervisor(mask))
    # In compacted format MXCSR is there only if XSTATE_BV[1] says so.
    assert result.data == model.clean(
        user_state,
        model.standard_walk(name, without_supervisor(mask)),
        xcomp_bv=0,
        mxcsr=mxcsr if 1 in state else 0x1F80,
    )
    assert result.supervisor == beside


@pytest.mark.parametrize("name", sorted(model.LAYOUTS))
def test_every_legal_mask_of_every_layout(name):
    cpu = layout(name)
    everything = sum(1 << bit for bit in model.LAYOUTS[name][2])
    for xcr0 in model.legal_xcr0(name):
        user_mask = xcr0 | 3
        for supervisor in {0, everything}:
            state = model.some_state(name, user_mask | supervisor, xcr0)
            user_state, beside = split(state)
            standard = model.clean(user_state, model.standard_walk(name, user_mask), xcomp_bv=0, mxcsr=0x9FC0)
            compacted = model.clean(
                state,
                model.compacted_walk(user_mask | supervisor),
                xcomp_bv=COMPACTED_FLAG | user_mask | supervisor,
                mxcsr=0x9FC0,
            )
            assert (
                convert(standard, cpu, Format.COMPACTED, mask=user_mask | supervisor, supervisor=beside).data
                == compacted
            )
            assert convert(compacted, cpu, Format.STANDARD, mask=user_mask).data == standard


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(sorted(model.LAYOUTS)), st.sampled_from([Format.STANDARD, Format.COMPACTED]))
def test_between_layouts_state_arrives_or_is_refused_by_name(case, other, to):
    name, mask, state, mxcsr = case
    data = model.clean(state, model.compacted_walk(mask), xcomp_bv=COMPACTED_FLAG | mask, mxcsr=mxcsr)
    target_bits = {0, 1, *model.LAYOUTS[other][0], *model.LAYOUTS[other][2]}
    lost = [bit for bit in state if bit not in target_bits and bit not in model.SUPERVISOR]
    area = XsaveArea(data, layout(name))
    if lost:
        with pytest.raises(LiveStateError) as error:
            area.compact(layout(other)) if to is Format.COMPACTED else area.expand(layout(other))
        assert len(error.value.components) == len(lost)
    else:
        there = area.compact(layout(other)) if to is Format.COMPACTED else area.expand(layout(other))
        assert there.architectural_state() == area.architectural_state()


def test_literal_offsets_from_amd_to_intel():
    """PKRU moves from 2432 to 2688, opmask from 832 to 1088; nothing but these literals says so."""
    data = bytearray(2440)
    struct.pack_into("<Q", data, 512, 0x2A7 & ~7 | 0x200)
    data[0:2], data[24:28] = b"\x7f\x03", b"\x80\x1f\x00\x00"
    struct.pack_into("<Q", data, 512, 0x220)
    data[832:840], data[2432:2440] = b"opmask!!", b"PKRU----"
    there = convert(bytes(data), layout("amd-zen4"), Format.STANDARD, target=layout("intel-clx"))
    assert len(there.data) == 2696
    assert there.data[1088:1096] == b"opmask!!"
    assert there.data[2688:2696] == b"PKRU----"
    assert sum(there.data) == sum(data)
    compacted = convert(there.data, layout("intel-clx"), Format.COMPACTED, mask=0x2FF)
    assert len(compacted.data) == 2568
    assert compacted.data[960:968] == b"opmask!!"
    assert compacted.data[2560:2568] == b"PKRU----"
    assert compacted.data[520:528] == bytes.fromhex("ff02000000000080")


def to_compacted(data, name="amd-zen4", **options):
    return convert(data, layout(name), Format.COMPACTED, **options)


def to_standard(data, name="amd-zen4", **options):
    return convert(data, layout(name), Format.STANDARD, **options)


def test_live_state_outside_the_target_is_refused_by_name():
    data = area(2440, 0x2E7, at={576: b"\1", 832: b"\1", 2432: b"\1"})
    with pytest.raises(LiveStateError, match=r"opmask, PKRU$") as error:
        to_compacted(data, mask=0x7)
    assert error.value.components == ("opmask", "PKRU")
    assert error.value.exit_code == 1


def test_drop_allows_exactly_what_it_names():
    data = area(2440, 0x220, at={832: b"\1", 2432: b"\1"})
    with pytest.raises(LiveStateError) as error:
        to_compacted(data, mask=0x7, drop=0x20)
    assert error.value.components == ("PKRU",)
    result = to_compacted(data, mask=0x7, drop=0x220)
    assert result.dropped == 0x220
    assert result.data[512:520] == bytes(8)
    assert any("opmask dropped" in note for note in result.notes)


def test_drop_drops_nothing_that_has_a_place():
    data = area(2440, 0x200, at={2432: b"\1"})
    assert to_compacted(data, drop=-1).data[2432] == 1


def test_declared_but_initial_is_left_out_and_noted():
    result = to_compacted(area(2440, 0x2E7), mask=0x7)
    assert (len(result.data), result.dropped) == (832, 0)
    assert struct.unpack_from("<QQ", result.data, 512) == (0x7, COMPACTED_FLAG | 0x7)
    assert [note.split()[0] for note in result.notes] == ["opmask", "ZMM_Hi256", "Hi16_ZMM", "PKRU"]


def test_initial_is_not_always_zero():
    hwp, hdc = (0x8000FF01).to_bytes(8, "little"), (1).to_bytes(8, "little")
    at = {576: hdc, 584: hwp}
    data = area(592, 0x12000, COMPACTED_FLAG | 0x12003, at)
    rows = {0: (7, 0, 0, 0), 1: (0xF, 0, 0x12000, 0), 2: (256, 576, 0, 0), 13: (8, 0, 1, 0), 16: (8, 0, 1, 0)}
    cpu = Layout.from_leaf_0xd("hdc-and-hwp", rows)
    assert XsaveArea(data, cpu).live == 0
    assert convert(data, cpu, Format.STANDARD).supervisor == {}
    off = area(592, 0x12000, COMPACTED_FLAG | 0x12003)
    assert XsaveArea(off, cpu).live == 0x12000
    assert convert(off, cpu, Format.STANDARD).supervisor == {13: bytes(8), 16: bytes(8)}


@pytest.mark.parametrize(("xstate_bv", "becomes"), [(4, 6), (6, 6), (0, 2), (1, 3)])
def test_mxcsr_of_a_standard_area_survives(xstate_bv, becomes):
    """Standard XRSTOR loads MXCSR whatever XSTATE_BV says (measured); the compacted form needs XSTATE_BV[1]."""
    data = area(832, xstate_bv, at={160: b"\xcc" * 256} if not xstate_bv & 2 else None, mxcsr=0x9FC0)
    for to in (Format.COMPACTED, Format.STANDARD):
        result = convert(data, layout("amd-zen1"), to)
        assert result.data[512:520] == becomes.to_bytes(8, "little")
        assert result.data[24:32] == bytes.fromhex("c09f000000000000")
        assert result.data[160:416] == bytes(256)
        assert any("KVM" in note for note in result.notes) == (xstate_bv & 6 == 0)


@pytest.mark.parametrize(("xstate_bv", "mxcsr", "becomes"), [(4, 0x1F80, 4), (6, 0x9FC0, 6)])
def test_mxcsr_of_a_compacted_area_is_1f80_unless_sse_is_declared(xstate_bv, mxcsr, becomes):
    data = area(832, xstate_bv, COMPACTED_FLAG | 7, mxcsr=0x9FC0)
    result = to_standard(data, "amd-zen1")
    assert struct.unpack_from("<I", result.data, 24) == (mxcsr,)
    assert struct.unpack_from("<Q", result.data, 512) == (becomes,)


def test_an_impossible_mxcsr_that_nothing_declares_is_stale():
    result = to_compacted(area(832, 0, mxcsr=0xCCCCCCCC), "amd-zen1")
    assert struct.unpack_from("<I", result.data, 24) == (0x1F80,)
    assert struct.unpack_from("<Q", result.data, 512) == (0,)
    assert any("0xcccccccc" in note for note in result.notes)
    # With x87, SSE or AVX declared no consumer accepts it, not even KVM; it is carried and not hidden.
    for declared in (1, 2, 4):
        assert to_compacted(area(832, declared, mxcsr=0xCCCCCCCC), "amd-zen1").data[24:28] == b"\xcc" * 4


def test_the_measured_third_state():
    """XSAVEC after VZEROALL and FNINIT into 0xCC: the legacy region is stale, and the area means all initial."""
    data = bytearray(b"\xcc" * 2432)
    data[512:576] = struct.pack("<QQ", 0xA0, 0x80000000000000E7) + bytes(48)
    data[832:896], data[1408:2432] = bytes(64), bytes(1024)
    result = to_standard(bytes(data), "amd-zen4-kvm")
    assert result.data[:32] == bytes.fromhex("7f03") + bytes(22) + bytes.fromhex("801f000000000000")
    assert result.data[32:512] == bytes(480)
    assert result.data[512:576] == bytes.fromhex("a0") + bytes(63)
    assert result.data[576:] == bytes(1856)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (bytes(575), "575 bytes"),
        (b"", "0 bytes"),
        (area(832, 0, 0x7), "XCOMP_BV is 0x7"),
        (area(832, 1 << 63), "bit 63"),
        (area(832, 0, at={528: b"\1"}), "reserved header byte"),
        (area(832, 0, at={575: b"\1"}), "reserved header byte"),
        (area(832, 0, COMPACTED_FLAG | 7, at={536: b"\1"}), "reserved header byte"),
        (area(832, 0x204, COMPACTED_FLAG | 7), "PKRU"),
        (area(832, 1 << 63, COMPACTED_FLAG | 7), "bit 63"),
        (area(832, 2, COMPACTED_FLAG), "SSE"),
        (area(831, 0, COMPACTED_FLAG | 7), "831 bytes"),
        (area(831, 4), "AVX"),
        (area(832, 0, COMPACTED_FLAG | 0x107), "PT"),
        (area(832, 0, (1 << 64) - 1), "BNDREGS"),
    ],
)
def test_areas_that_break_a_rule_are_refused(data, word):
    for to in (Format.STANDARD, Format.COMPACTED):
        with pytest.raises(XsaveError, match=word) as error:
            convert(data, layout("amd-zen4"), to)
        assert not isinstance(error.value, LiveStateError)


def test_what_the_source_layout_cannot_place_is_refused_or_dropped():
    """Zen 2's bit 9: declared, at an unknown offset."""
    data = area(896, 0x207)
    with pytest.raises(LiveStateError, match="64 bytes") as error:
        to_compacted(data, "amd-zen2")
    assert error.value.components == ("PKRU",)
    result = to_compacted(data, "amd-zen2", drop=0x200, target=layout("amd-zen3"))
    assert result.dropped == 0x200
    assert struct.unpack_from("<QQ", result.data, 512) == (0x7, COMPACTED_FLAG | 0x207)


def test_a_target_that_offers_a_bogus_component_is_not_a_place():
    with pytest.raises(LiveStateError, match=r"PKRU .CPUID has 64 bytes"):
        to_compacted(area(2440, 0x200, at={2432: b"\1"}), "amd-zen3", target=layout("amd-zen2"))


@pytest.mark.parametrize(
    ("to", "mask", "word"),
    [
        (Format.COMPACTED, 0x1F, "BNDREGS"),
        (Format.COMPACTED, 1 << 62 | 7, "LWP"),
        (Format.STANDARD, 0x807, "CET_U"),
        (Format.STANDARD, 1 << 20, "bit20"),
        (Format.STANDARD, -1, "mask"),
        (Format.COMPACTED, 1 << 64, "mask"),
    ],
)
def test_masks_that_the_target_cannot_have(to, mask, word):
    with pytest.raises(XsaveError, match=word):
        convert(area(832, 0), layout("amd-zen4"), to, mask=mask)


def test_the_buffer_is_respected():
    data = area(832, 0)
    with pytest.raises(XsaveError, match="10752 bytes"):
        to_compacted(data, "intel-spr", max_size=4096)
    assert len(to_compacted(data, "intel-spr", max_size=4096, mask=0x2E7).data) == 2440
    with pytest.raises(XsaveError, match="832 bytes"):
        XsaveArea(data, layout("amd-zen1")).compact(max_size=831)


def test_amx_is_aligned():
    tiles = bytes(range(256)) * 32
    data = area(11008, 0x60200, at={2688: b"PKRU----", 2752: b"\1" * 64, 2816: tiles})
    result = to_compacted(data, "intel-spr")
    assert len(result.data) == 10752
    assert result.data[2432:2440] == b"PKRU----"
    assert result.data[2440:2496] == bytes(56)
    assert result.data[2496:2560] == b"\1" * 64
    assert result.data[2560:10752] == tiles
    assert to_standard(result.data, "intel-spr").data == data


def test_apx_lies_below_pkru():
    data = area(2696, 0x80200, at={960: b"\x5a" * 128, 2688: b"PKRU----"})
    result = to_compacted(data, "qemu", mask=0x80207)
    assert len(result.data) == 968
    assert result.data[832:968] == b"PKRU----" + b"\x5a" * 128
    assert to_standard(result.data, "qemu", mask=0x80207).data == data


def test_mpx_and_apx_are_never_both_written():
    qemu = layout("qemu")
    both = area(1152, 0x80008, COMPACTED_FLAG | 0x8001B)
    walk = {3: 576, 4: 640, 19: 704}
    live = bytearray(both)
    live[walk[3]] = live[walk[19]] = 1
    with pytest.raises(XsaveError, match="BNDREGS and APX_F"):
        convert(bytes(live), qemu, Format.STANDARD, mask=0x8001B)
    for bit in (3, 19):
        one = bytearray(both)
        one[walk[bit]] = 1
        result = convert(bytes(one), qemu, Format.STANDARD, mask=0x8001B)
        assert struct.unpack_from("<Q", result.data, 512) == (1 << bit,)
        assert result.data[960] == 1
    with pytest.raises(XsaveError, match="share bytes"):
        convert(area(2696, 0x80008), qemu, Format.COMPACTED)


def test_default_masks():
    qemu, zen4 = layout("qemu"), layout("amd-zen4")
    assert default_mask(zen4, Format.STANDARD) == 0x2E7
    assert default_mask(zen4, Format.COMPACTED, supervisor=0x1D00) == 0x1AE7
    assert default_mask(zen4, Format.STANDARD, supervisor=0x1D00) == 0x2E7
    known = 0xFFFFF  # this layout also has every component that is defined later
    assert default_mask(qemu, Format.STANDARD) & known == 0x602FF
    assert default_mask(qemu, Format.STANDARD, declared=0x80000) & known == 0xE02E7
    assert default_mask(qemu, Format.STANDARD, declared=0x80018) & known == 0xE02FF


def test_supervisor_state_stays_or_travels_but_is_never_lost():
    cet_u, cet_s = b"\1" * 16, b"\2" * 24
    data = area(872, 0x1800, COMPACTED_FLAG | 0x1807, at={832: cet_u, 848: cet_s})
    standard = XsaveArea(data, layout("amd-zen4")).expand()
    assert standard.supervisor == {11: cet_u, 12: cet_s}
    assert standard.xstate_bv == 0
    again = standard.compact(mask=0x1807)
    assert (again.data, again.supervisor) == (data, {})
    # By default they go back to where they came from, and what a target lacks stays outside it.
    assert standard.compact().xcomp_bv == COMPACTED_FLAG | 0x1AE7
    assert standard.compact(mask=0x807).supervisor == {12: cet_s}
    assert standard.compact(layout("intel-skl")).supervisor == {11: cet_u, 12: cet_s}
    assert XsaveArea(data, layout("amd-zen4")).compact().xcomp_bv == COMPACTED_FLAG | 0x1AE7


def test_lbr_depth_travels_though_it_is_not_live():
    depth = bytes(8) + b"\x20" + bytes(799)
    data = area(1384, 0x8000, COMPACTED_FLAG | 0x8003, at={576: depth})
    assert XsaveArea(data, layout("intel-spr")).live == 0
    assert to_standard(data, "intel-spr").supervisor == {15: depth}


def test_supervisor_state_cannot_be_in_two_places():
    data = area(848, 0x800, COMPACTED_FLAG | 0x807, at={832: b"\1"})
    with pytest.raises(XsaveError, match="CET_U"):
        to_standard(data, supervisor={11: bytes(16)})


@pytest.mark.parametrize("beside", [{11: bytes(17)}, {9: bytes(8)}, {0: bytes(152)}, {33: b""}])
def test_supervisor_state_is_checked(beside):
    with pytest.raises(XsaveError):
        to_compacted(area(832, 0), supervisor=beside)


def test_hyperv_forgets_the_supervisor_bits_of_xstate_bv():
    data = area(872, 0, COMPACTED_FLAG | 0x1807, at={832: b"\1" * 16})
    assert to_standard(data).supervisor == {}
    assert to_standard(data, hyperv_quirk=True).supervisor == {11: b"\1" * 16}
    kept = to_compacted(data, hyperv_quirk=True)
    assert struct.unpack_from("<Q", kept.data, 512) == (0x1800,)
    # The quirk is about what Hyper-V wrote; a standard area is not touched by it.
    assert to_compacted(area(832, 0), hyperv_quirk=True, mask=0x1807).data[512:520] == bytes(8)


def test_masks_that_xcr0_could_not_have_are_fine_for_xcomp_bv():
    """XSAVEC with the mask 0xE3 writes XCOMP_BV 0x80000000000000E3 (measured): AVX-512 moves down by 256."""
    data = area(2176, 0x20, COMPACTED_FLAG | 0xE3, at={576: b"opmask!!"})
    assert to_standard(data).data[832:840] == b"opmask!!"


def test_relayout_of_a_compacted_area():
    data = area(2176, 0x20, COMPACTED_FLAG | 0xE3, at={576: b"opmask!!"})
    result = to_compacted(data, mask=0x2E7)
    assert len(result.data) == 2440
    assert result.data[832:840] == b"opmask!!"


def test_a_cpu_without_xsavec_is_noted():
    assert any("XSAVEC" in note for note in to_compacted(area(832, 0), "intel-hsw").notes)
    assert to_compacted(area(832, 0), "amd-zen1").notes == ()


def test_unknown_components_move_by_their_rows():
    rows = {0: (0x100007, 0, 0, 0), 1: (0xF, 0, 0, 0), 2: (256, 576, 0, 0), 20: (96, 4096, 2, 0)}
    cpu = Layout.from_leaf_0xd("future", rows)
    data = area(4192, 0x100000, at={4096: b"\7" * 96})
    result = convert(data, cpu, Format.COMPACTED)
    assert len(result.data) == 832 + 96
    assert result.data[832:] == b"\7" * 96
    assert convert(result.data, cpu, Format.STANDARD).data == data
    with pytest.raises(LiveStateError, match="bit20"):
        convert(data, cpu, Format.COMPACTED, target=layout("amd-zen4"))


@pytest.mark.parametrize(("size", "buffer"), [(0, 4096), (576, 4096), (4096, 4096), (4097, 8192), (10752, 12288)])
def test_mshv_buffers_are_whole_pages(size, buffer):
    assert mshv_buffer_size(size) == buffer
