"""Golden vectors worked out by hand from the text of the patch (see qemu_policy's docstring).

Every expectation is a buffer of zeros with literal bytes at literal offsets. Rows are (EAX, EBX, ECX, EDX).
"""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import QmigError, UsageError, XsaveError
from qmigtool.xsave import compact_xsave_area, decompact_xsave_area, layout

FLAG = 1 << 63
POLICIES = ("qemu-v1", "qemu-11.1", "qemu-next")
EVERY = pytest.mark.parametrize("policy", POLICIES)
POSTED = pytest.mark.parametrize("policy", POLICIES[:2])

AVX, OPMASK, ZMM, HI16, PKRU = b"A" * 256, b"k" * 64, b"Z" * 512, b"H" * 1024, b"PKRU----"
CET_U, CET_S = b"u" * 16, b"s" * 24

ZEN4 = {
    0: (0x2E7, 0x988, 0x988, 0),
    1: (0xF, 0x990, 0x1800, 0),
    2: (0x100, 0x240, 0, 0),
    5: (0x40, 0x340, 0, 0),
    6: (0x200, 0x380, 0, 0),
    7: (0x400, 0x580, 0, 0),
    9: (0x8, 0x980, 0, 0),
    11: (0x10, 0, 1, 0),
    12: (0x18, 0, 1, 0),
}
SPR = {
    0: (0x602E7, 0x2B00, 0x2B00, 0),
    2: (0x100, 0x240, 0, 0),
    5: (0x40, 0x440, 0, 0),
    6: (0x200, 0x480, 0, 0),
    7: (0x400, 0x680, 0, 0),
    9: (0x8, 0xA80, 0, 0),
    15: (0x328, 0, 1, 0),
    17: (0x40, 0xAC0, 2, 0),
    18: (0x2000, 0xB00, 6, 0),
}
LEGACY = bytes(range(256)) + bytes(range(255, -1, -1))


def put(size, *pieces):
    """`size` zero bytes with (offset, bytes) put there."""
    out = bytearray(size)
    for offset, piece in pieces:
        assert offset + len(piece) <= size
        out[offset : offset + len(piece)] = piece
    return bytes(out)


def header(xstate_bv, xcomp_bv=0, rest=b""):
    return (512, struct.pack("<QQ", xstate_bv, xcomp_bv) + rest)


def decompact(buf, *, host=ZEN4, guest=None, guest_xcr0=0x2E7, xsave_buf_len=4096, **options):
    return decompact_xsave_area(
        buf, host=host, guest=guest, guest_xcr0=guest_xcr0, xsave_buf_len=xsave_buf_len, **options
    )


def compact(buf, *, host=ZEN4, guest_xcr0=0x2E7, xcr0=0x2E7, buflen=4096, **options):
    return compact_xsave_area(buf, host=host, guest_xcr0=guest_xcr0, xcr0=xcr0, buflen=buflen, **options)


@EVERY
def test_decompact_a_plain_area(policy):
    buf = put(4096, (0, LEGACY), header(0x207, FLAG | 0x207), (576, AVX), (832, PKRU))
    result = decompact(buf, policy=policy)
    assert result.rc == 0
    # Quirk 1: XCOMP_BV loses only its bit 63, so this is not a legal standard area.
    assert result.data == put(4096, (0, LEGACY), header(0x207, 0x207), (576, AVX), (2432, PKRU))


@EVERY
def test_compact_a_plain_area(policy):
    buf = put(4096, (0, LEGACY), header(0x207), (576, AVX), (832, OPMASK), (2432, PKRU))
    result = compact(buf, guest_xcr0=0x207, policy=policy)
    assert result.rc == 840
    assert result.data == put(4096, (0, LEGACY), header(0x207, FLAG | 0x207), (576, AVX), (832, PKRU))


@EVERY
def test_compact_amx_is_aligned(policy):
    """Quirk 16 is xsave_area_size()'s, which ignores ECX[1] and says 10696; these two functions align."""
    tiles = bytes(range(256)) * 32
    buf = put(12288, header(0x602E7), (2688, PKRU), (2752, b"c" * 64), (2816, tiles))
    result = compact(buf, host=SPR, guest_xcr0=0x602E7, xcr0=0x602E7, buflen=12288, policy=policy)
    assert result.rc == 10752
    assert result.data == put(12288, header(0x602E7, FLAG | 0x602E7), (2432, PKRU), (2496, b"c" * 64), (2560, tiles))
    back = decompact(result.data, host=SPR, guest_xcr0=0x602E7, xsave_buf_len=12288, policy=policy)
    assert back.data == put(12288, header(0x602E7, 0x602E7), (2688, PKRU), (2752, b"c" * 64), (2816, tiles))


@EVERY
def test_quirk_2_header_bytes_63_to_16_are_copied(policy):
    rest = bytes(range(1, 49))
    buf = put(832, header(0x7, FLAG | 0x7, rest))
    assert decompact(buf, xsave_buf_len=832, policy=policy).data == put(832, header(0x7, 0x7, rest))
    buf = put(832, header(0x7, 0x1234, rest))
    assert compact(buf, guest_xcr0=7, buflen=832, policy=policy).data == put(832, header(0x7, FLAG | 0x7, rest))


@POSTED
def test_quirk_3_copies_cet_over_the_x87_registers(policy):
    buf = put(880, (0, LEGACY), header(0x1807, FLAG | 0x1807), (576, AVX), (832, CET_U), (848, CET_S))
    result = decompact(buf, policy=policy)
    assert result.rc == 0
    # EBX of rows 11 and 12 is 0: CET_U goes to bytes 0-15, then CET_S to bytes 0-23. XSTATE_BV loses both bits.
    assert result.data == put(4096, (0, LEGACY), header(0x7, 0x1807), (576, AVX), (0, CET_S))
    merged = decompact(buf, policy="qemu-next")
    assert merged.rc == 0
    assert merged.data == put(4096, (0, LEGACY), header(0x7, 0x1807), (576, AVX))


@POSTED
def test_quirk_3_copies_lbr_over_the_header(policy):
    lbr = bytes(range(1, 203)) * 4
    buf = put(2048, (0, LEGACY), header(0x8003, FLAG | 0x8007), (832, lbr))
    assert decompact(buf, host=SPR, policy=policy).data == put(4096, (0, lbr))
    assert decompact(buf, host=SPR, policy="qemu-next").data == put(4096, (0, LEGACY), header(0x3, 0x8007))


@EVERY
def test_quirk_3_needs_the_bit_in_xstate_bv(policy):
    buf = put(880, (0, LEGACY), header(0x7, FLAG | 0x1807), (576, AVX), (832, CET_U), (848, CET_S))
    assert decompact(buf, policy=policy).data == put(4096, (0, LEGACY), header(0x7, 0x1807), (576, AVX))


@EVERY
def test_quirk_4_the_legacy_region_is_copied_though_xstate_bv_declares_nothing(policy):
    stale = b"\xcc" * 512
    buf = put(832, (0, stale), header(0, FLAG | 0x7), (576, AVX))
    # AVX is not declared, so it is not copied; the stale legacy bytes are.
    assert decompact(buf, xsave_buf_len=832, policy=policy).data == put(832, (0, stale), header(0, 0x7))


@EVERY
def test_quirk_5_xstate_bv_is_not_masked_with_xcomp_bv(policy):
    buf = put(4096, header(0x80000000000E02E7), (576, AVX), (2432, PKRU))
    result = compact(buf, guest_xcr0=0x7, policy=policy)
    assert result.rc == 832
    assert result.data == put(4096, header(0x80000000000E02E7, FLAG | 0x7), (576, AVX))


@EVERY
def test_quirk_6_compact_overflows_its_buffer(policy):
    buf = put(12288, header(0x602E7))
    with pytest.raises(XsaveError, match="8192 bytes at offset 2560 of buf, a buffer overflow: it has 4096"):
        compact(buf, host=SPR, guest_xcr0=0x602E7, xcr0=0x602E7, policy=policy)
    with pytest.raises(XsaveError, match="576 bytes at offset 0 of buf, a buffer overflow: it has 575"):
        compact(buf, buflen=575, policy=policy)
    # With the bits off in env->xcr0 nothing is copied there, and the return value alone is past the buffer.
    result = compact(buf, host=SPR, guest_xcr0=0x602E7, xcr0=0x7, policy=policy)
    assert result.rc == 10752
    assert result.data == put(4096, header(0x602E7, FLAG | 0x602E7))


@EVERY
def test_quirk_6_compact_reads_past_its_source(policy):
    with pytest.raises(XsaveError, match="8 bytes at offset 2432 of xsave_buf, past its end: it has 2432"):
        compact(put(2432, header(0x207)), guest_xcr0=0x207, policy=policy)
    with pytest.raises(XsaveError, match="576 bytes at offset 0 of xsave_buf, past its end: it has 512"):
        compact(bytes(512), policy=policy)


@EVERY
def test_quirk_7_amx_does_not_fit_the_page(policy):
    buf = put(12288, (0, LEGACY), header(0x602E7, FLAG | 0x602E7), (576, AVX), (2432, PKRU), (2496, b"c" * 64))
    result = decompact(buf, host=SPR, guest_xcr0=0x602E7, policy=policy)
    assert result.rc == -7
    # What was written before XTILEDATA (2816 + 8192 > 4096) stays.
    assert result.data == put(4096, (0, LEGACY), header(0x602E7, 0x602E7), (576, AVX), (2688, PKRU), (2752, b"c" * 64))


@EVERY
def test_quirk_8_nothing_checks_that_the_header_is_there(policy):
    with pytest.raises(XsaveError, match=r"area\(\) reads 8 bytes at offset 520 of buf, past its end: it has 527"):
        decompact(bytes(527), policy=policy)
    with pytest.raises(XsaveError, match=r"decompact_xsave_area\(\) reads 8 bytes at offset 512 of buf"):
        decompact(bytes(519), policy=policy)
    short = put(575, header(0x7, FLAG | 0x7))
    with pytest.raises(XsaveError, match="576 bytes at offset 0 of buf, past its end: it has 575"):
        decompact(short, policy=policy)
    with pytest.raises(XsaveError, match="576 bytes at offset 0 of xsave_buf, a buffer overflow: it has 100"):
        decompact(put(576, header(0x3, FLAG | 0x3)), xsave_buf_len=100, policy=policy)


@EVERY
def test_quirk_8_a_standard_area_aborts_qemu(policy):
    with pytest.raises(XsaveError, match=r"assert\(\(compacted_xcomp_bv >> 63\) & 1\)") as error:
        decompact(put(832, header(0x7)), policy=policy)
    assert error.value.offset == 520


@EVERY
def test_quirk_8_the_destination_is_checked_for_what_is_not_copied(policy):
    buf = put(840, header(0x7, FLAG | 0x207), (576, AVX))
    result = decompact(buf, xsave_buf_len=2432, policy=policy)
    assert result.rc == -7
    assert result.data == put(2432, header(0x7, 0x207), (576, AVX))
    # The same for a supervisor component, which the merged version would not copy either.
    guest = {**ZEN4, 11: (16, 4090, 1, 0)}
    assert decompact(put(848, header(0x7, FLAG | 0x807)), guest=guest, policy=policy).rc == -7


@EVERY
def test_the_source_is_checked_against_the_length_told(policy):
    buf = put(4096, (0, LEGACY), header(0x207, FLAG | 0x207), (576, AVX), (832, PKRU))
    result = decompact(buf, buflen=839, policy=policy)
    assert result.rc == -7
    assert result.data == put(4096, (0, LEGACY), header(0x207, 0x207), (576, AVX))
    assert decompact(buf, buflen=840, policy=policy).rc == 0
    with pytest.raises(XsaveError, match="256 bytes at offset 576 of buf, past its end: it has 700"):
        decompact(buf[:700], buflen=4096, policy=policy)


@EVERY
def test_quirk_9_xstate_bv_is_not_checked_against_xcomp_bv(policy):
    # PKRU is declared and has no place in the source: its bit stays, with zeros for contents.
    buf = put(832, header(0x207, FLAG | 0x7), (576, AVX))
    assert decompact(buf, policy=policy).data == put(4096, header(0x207, 0x7), (576, AVX))


@EVERY
def test_quirk_9_live_state_is_dropped_by_the_guests_mask(policy):
    # The bytes of PKRU are copied (the guest's CPUID has the row); its XSTATE_BV bit is silently gone.
    buf = put(840, header(0x207, FLAG | 0x207), (576, AVX), (832, PKRU))
    result = decompact(buf, guest_xcr0=0x7, policy=policy)
    assert result.data == put(4096, header(0x7, 0x207), (576, AVX), (2432, PKRU))


@EVERY
def test_quirk_10_the_guests_offset_wins_and_may_be_zero(policy):
    buf = put(840, (0, LEGACY), header(0x207, FLAG | 0x207), (576, AVX), (832, PKRU))
    guest = {2: (256, 576, 0, 0), 9: (8, 2688, 0, 0)}
    assert decompact(buf, guest=guest, policy=policy).data == put(
        4096, (0, LEGACY), header(0x207, 0x207), (576, AVX), (2688, PKRU)
    )
    guest = {2: (256, 576, 0, 0), 9: (8, 0, 0, 0)}
    assert decompact(buf, guest=guest, policy=policy).data == put(
        4096, (0, LEGACY), header(0x207, 0x207), (576, AVX), (0, PKRU)
    )


@EVERY
def test_a_component_unknown_to_the_guest_is_skipped_by_the_hosts_row(policy):
    buf = put(1000, header(0x227, FLAG | 0x227), (576, AVX), (832, OPMASK), (896, PKRU))
    guest = {2: (256, 576, 0, 0), 9: (8, 2432, 0, 0)}
    assert decompact(buf, guest=guest, policy=policy).data == put(4096, header(0x227, 0x227), (576, AVX), (2432, PKRU))
    # The host's alignment counts as well.
    host = {20: (16, 0, 2, 0)}
    buf = put(1000, header(0x200204, FLAG | 0x300204), (576, AVX), (832, PKRU), (896, b"x" * 16), (912, b"y" * 8))
    guest = {2: (256, 576, 0, 0), 9: (8, 2432, 0, 0), 21: (8, 3000, 0, 0)}
    result = decompact(buf, host=host, guest=guest, policy=policy)
    assert result.rc == 0
    assert result.data == put(4096, header(0x204, 0x300204), (576, AVX), (2432, PKRU), (3000, b"y" * 8))


@EVERY
def test_a_skipped_component_must_fit_the_source(policy):
    guest = {2: (256, 576, 0, 0)}
    buf = put(895, header(0x27, FLAG | 0x27), (576, AVX))
    result = decompact(buf, guest=guest, policy=policy)
    assert (result.rc, result.data) == (-7, put(4096, header(0x27, 0x27), (576, AVX)))


@EVERY
def test_a_component_unknown_to_both_is_einval(policy):
    buf = put(4096, (0, LEGACY), header(0x100007, FLAG | 0x100207), (576, AVX))
    result = decompact(buf, policy=policy)
    assert result.rc == -22
    assert result.data == put(4096, (0, LEGACY), header(0x7, 0x100207), (576, AVX))


@EVERY
def test_the_destination_check_wraps_in_32_bits(policy):
    # dst_off + size is uint32_t + uint32_t: 0xfffffff8 + 0x100 is 0xf8, which fits, and memcpy runs wild.
    guest = {2: (0x100, 0xFFFFFFF8, 0, 0)}
    with pytest.raises(XsaveError, match="256 bytes at offset 4294967288 of xsave_buf, a buffer overflow"):
        decompact(put(832, header(0x7, FLAG | 0x7)), guest=guest, policy=policy)
    assert decompact(put(832, header(0x3, FLAG | 0x7)), guest=guest, policy=policy).rc == 0


@EVERY
def test_quirk_12_a_component_off_in_xcr0_becomes_zeros_that_are_marked_in_use(policy):
    buf = put(4096, header(0x207), (576, AVX), (2432, PKRU))
    result = compact(buf, guest_xcr0=0x207, xcr0=0x203, policy=policy)
    assert result.rc == 840
    assert result.data == put(4096, header(0x207, FLAG | 0x207), (832, PKRU))


@EVERY
def test_quirk_13_mxcsr_is_not_declared(policy):
    # 9FC0 with XSTATE_BV[1] = 0: a compacted XRSTOR loads 1F80 from this.
    buf = put(832, (24, b"\xc0\x9f"), header(0x4), (576, AVX))
    assert compact(buf, guest_xcr0=7, buflen=832, policy=policy).data == put(
        832, (24, b"\xc0\x9f"), header(0x4, FLAG | 0x7), (576, AVX)
    )


@EVERY
def test_quirk_14_xstate_bv_of_a_tcg_stream_stays_zero(policy):
    buf = put(832, (0, LEGACY), header(0), (576, AVX))
    assert compact(buf, guest_xcr0=7, buflen=832, policy=policy).data == put(
        832, (0, LEGACY), header(0, FLAG | 0x7), (576, AVX)
    )


@EVERY
def test_quirk_15_zen2_moves_64_bytes_for_pkru(policy):
    zen2 = {0: (0x207, 0x340, 0x380, 0), 2: (0x100, 0x240, 0, 0), 9: (0x40, 0x340, 0, 0)}
    buf = put(4096, header(0x207), (576, AVX), (832, b"?" * 64))
    result = compact(buf, host=zen2, guest_xcr0=0x207, xcr0=0x207, policy=policy)
    assert result.rc == 896
    assert result.data == put(4096, header(0x207, FLAG | 0x207), (576, AVX), (832, b"?" * 64))
    assert compact(buf, host=layout("amd-zen2"), guest_xcr0=0x207, xcr0=0x207, policy=policy) == result


@EVERY
def test_a_row_of_size_zero_is_skipped_and_stays_in_xcomp_bv(policy):
    host = {0: (0x227, 0, 0, 0), 2: (0x100, 0x240, 0, 0), 5: (0, 0x340, 2, 0), 9: (8, 0x980, 0, 0)}
    buf = put(4096, header(0x227), (576, AVX), (832, OPMASK), (2432, PKRU))
    result = compact(buf, host=host, guest_xcr0=0x227, xcr0=0x227, policy=policy)
    assert (result.rc, result.data) == (840, put(4096, header(0x227, FLAG | 0x227), (576, AVX), (832, PKRU)))


@EVERY
def test_the_high_half_of_the_masks_counts(policy):
    # LWP is bit 62: EDX of (0xD,0), and FEAT_XSAVE_XCR0_HI.
    host = {0: (0x7, 0, 0, 0x40000000), 2: (0x100, 0x240, 0, 0), 62: (0x80, 0x340, 0, 0)}
    buf = put(4096, header(1 << 62 | 7), (576, AVX), (832, b"L" * 128))
    mask = 1 << 62 | 7
    result = compact(buf, host=host, guest_xcr0=mask, xcr0=mask, policy=policy)
    assert (result.rc, result.data) == (960, put(4096, header(mask, FLAG | mask), (576, AVX), (832, b"L" * 128)))
    back = decompact(result.data, host=host, guest_xcr0=mask, policy=policy)
    assert back.data == put(4096, header(mask, mask), (576, AVX), (832, b"L" * 128))


@EVERY
def test_bit_63_of_the_hosts_mask_is_the_flag(policy):
    host = {0: (0x7, 0, 0, 0x80000000), 2: (0x100, 0x240, 0, 0)}
    result = compact(put(832, header(0x3)), host=host, guest_xcr0=(1 << 64) - 1, xcr0=3, buflen=832, policy=policy)
    assert (result.rc, result.data) == (832, put(832, header(0x3, FLAG | 0x7)))


@EVERY
def test_the_return_value_is_a_c_int(policy):
    host = {0: (0x7, 0, 0, 0), 2: (0x80000000, 0x240, 0, 0)}
    result = compact(put(832, header(0x3)), host=host, guest_xcr0=7, xcr0=3, buflen=832, policy=policy)
    assert result.rc == -(1 << 31) + 576


@EVERY
def test_supervisor_bits_never_reach_xcomp_bv(policy):
    """Quirk 11: the image that the hypervisor returned had 0x1800 in XCOMP_BV; the one sent back has not."""
    result = compact(put(4096, header(0x1807)), guest_xcr0=(1 << 64) - 1, xcr0=0x7, policy=policy)
    assert result.rc == 2440
    assert result.data == put(4096, header(0x1807, FLAG | 0x2E7))


def test_a_built_in_layout_is_as_good_as_raw_rows():
    buf = put(4096, (0, LEGACY), header(0x2E7), (576, AVX), (832, OPMASK), (896, ZMM), (1408, HI16), (2432, PKRU))
    assert compact(buf, host=layout("amd-zen4")) == compact(buf)
    compacted = compact(buf).data
    assert decompact(compacted, host=layout("amd-zen4"), guest=layout("amd-zen4")) == decompact(compacted)


def test_wrong_arguments():
    buf = put(832, header(0x7, FLAG | 0x7))
    with pytest.raises(UsageError, match="qemu-v1"):
        decompact(buf, policy="qemu-v2")
    with pytest.raises(UsageError, match="qemu-v1"):
        compact(buf, policy="strict")
    for mask in (-1, 1 << 64):
        with pytest.raises(UsageError):
            decompact(buf, guest_xcr0=mask)
        with pytest.raises(UsageError):
            compact(buf, xcr0=mask)
    for length in (-1, 1 << 40):
        with pytest.raises(XsaveError):
            decompact(buf, xsave_buf_len=length)
        with pytest.raises(XsaveError):
            compact(buf, buflen=length)


register = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 2, 3, 8, 64, 256, 576, 832, 0x207, 4096])
rows = st.dictionaries(st.integers(0, 63), st.tuples(register, register, register, register), max_size=20)
masks = st.integers(0, (1 << 64) - 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=1200), rows, rows, masks, masks, masks, st.integers(0, 5000), st.sampled_from([0, 4096]))
def test_any_input_gives_a_result_or_a_qmig_error(legacy, host, guest, xstate_bv, xcomp_bv, xcr0, length, more):
    buf = legacy + bytes(more)
    if len(buf) >= 528:
        buf = buf[:512] + struct.pack("<QQ", xstate_bv, xcomp_bv | FLAG) + buf[528:]
    for policy in POLICIES:
        try:
            result = decompact(buf, host=host, guest=guest, guest_xcr0=xcr0, xsave_buf_len=length, policy=policy)
            assert len(result.data) == length
            assert result.rc in (0, -7, -22)
        except QmigError:
            pass
        try:
            result = compact(buf, host=host, guest_xcr0=xcr0, xcr0=xstate_bv, buflen=length, policy=policy)
            assert len(result.data) == length
        except QmigError:
            pass
