"""What this machine's CPU does with XSAVE, XSAVEC and XRSTOR, against the SDM's rules and a recorded AMD CPU."""

import functools
import json
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oracle import xsave_cpu as cpu

pytestmark = pytest.mark.xsavec

MATRIX = json.loads((Path(__file__).parent / "data" / "xrstor_matrix.json").read_text())
X87, SSE, AVX, AVX512 = 1, 2, 4, 0xE0
COMPACTED = 1 << 63
TILES = 3 << 17
PENDING = 0x027E, 0x8081 | 5 << 11  # FCW with IM 0; FSW with IE, ES, B and TOP 5
QUIET = 0x027F, 5 << 11
POINTERS = 0x1AB, 0x1122334455, 0x66778899AA  # FOP, FIP, FDP
LEGACY_WRITTEN = [*range(28), *range(32, 416)]  # without MXCSR_MASK, which XRSTOR ignores


def put(area: bytes, offset: int, layout: str, value: int) -> bytes:
    """Return the area with one little-endian number changed."""
    out = bytearray(area)
    struct.pack_into(f"<{layout}", out, offset, value)
    return bytes(out)


def header(area: bytes) -> tuple[int, int]:
    """Return (XSTATE_BV, XCOMP_BV)."""
    return struct.unpack_from("<QQ", area, 512)


def mxcsr(area: bytes) -> int:
    return int(struct.unpack_from("<I", area, 24)[0])


def fcw(area: bytes) -> int:
    return int(struct.unpack_from("<H", area, 0)[0])


def pointers(area: bytes) -> tuple[int, int, int]:
    """Return (FOP, FIP, FDP)."""
    return struct.unpack_from("<HQQ", area, 6)


@functools.cache
def usable() -> int:
    return cpu.usable_xcr0()


@functools.cache
def vendor() -> str:
    """Return CPUID's vendor string, e.g. AuthenticAMD."""
    _, ebx, ecx, edx = cpu.cpuid(0)
    return struct.pack("<III", ebx, edx, ecx).decode("latin-1")


@functools.cache
def made_up(mask: int) -> bytes:
    """Return a standard-format area in which every component of mask is live and every register is different.

    An unmasked x87 exception (IE) is pending: without one, AMD's CPUs neither save nor restore FOP, FIP and FDP.
    """
    area = bytearray(cpu.standard_size(mask))
    struct.pack_into("<HHBxHQQ", area, 0, *PENDING, 0xE0, *POINTERS)
    struct.pack_into("<I", area, 24, 0x9FC0)
    for i in range(8):
        struct.pack_into("<QH", area, 32 + 16 * i, 1 << 63 | 0x0123_4567_89AB_0000 | i, 0x3FF0 + i)
    for i in range(16):
        area[160 + 16 * i : 176 + 16 * i] = bytes([0x10 + i] * 8 + [0xA0 + i] * 8)
    for bit, (size, offset, _) in cpu.components().items():
        if not mask >> bit & 1:
            continue
        if bit == 17:  # palette 1, eight tiles of 16 rows of 64 bytes: any other content would be refused
            area[offset : offset + 64] = struct.pack("<BB14x8H16x8B8x", 1, 0, *[64] * 8, *[16] * 8)
        elif bit == 9:  # PKRU: keys 8-15 only
            struct.pack_into("<I", area, offset, 0x5A5A0000)
        elif bit in {3, 4}:
            area[offset : offset + 16] = struct.pack("<QQ", 0x1000, 0x2000)
        else:
            area[offset : offset + size] = bytes((7 * i + (i >> 8) + bit) & 0xFF for i in range(size))
    struct.pack_into("<Q", area, 512, mask)
    return bytes(area)


@functools.cache
def made_up_compacted(mask: int) -> bytes:
    """Return the same state in compacted format, moved by the SDM's formula (13.4.3)."""
    standard = made_up(mask)
    offsets, size = cpu.compacted_offsets(mask)
    area = bytearray(size)
    area[:528] = put(standard, 520, "Q", COMPACTED | mask)[:528]
    for bit, offset in offsets.items():
        length, source, _ = cpu.components()[bit]
        area[offset : offset + length] = standard[source : source + length]
    return bytes(area)


def components_equal(saved: bytes, expected: bytes, offsets: dict[int, int], mask: int) -> None:
    """Assert that the legacy part and all components in mask are equal."""
    assert bytes(saved[i] for i in LEGACY_WRITTEN) == bytes(expected[i] for i in LEGACY_WRITTEN)
    for bit, offset in offsets.items():
        if mask >> bit & 1:
            size = {9: 4, 4: 16}.get(bit, cpu.components()[bit][0])
            assert saved[offset : offset + size].hex() == expected[offset : offset + size].hex(), bit


def standard_offsets() -> dict[int, int]:
    return {bit: offset for bit, (_, offset, _) in cpu.components().items()}


@pytest.mark.parametrize("source", ["standard", "compacted"])
def test_round_trip(source: str) -> None:
    mask = usable()
    area = made_up(mask) if source == "standard" else made_up_compacted(mask)
    saved = cpu.restore_and_save(area, mask, "xsave")
    assert header(saved) == (mask, 0)
    components_equal(saved, made_up(mask), standard_offsets(), mask)
    saved = cpu.restore_and_save(area, mask, "xsavec")
    assert header(saved) == (mask, COMPACTED | mask)
    components_equal(saved, made_up_compacted(mask), cpu.compacted_offsets(mask)[0], mask)


@pytest.mark.parametrize("instruction", ["xsave", "xsavec"])
def test_x87_pointers(instruction: str) -> None:
    """Both vendors keep them while an exception is pending; without one, Intel keeps them and AMD does not.

    What AMD's CPUs write then is 0 with CPUID Fn8000_0008_EBX[2] (RstrFpErrPtrs: Zen and later), else nothing.
    """
    area = made_up(X87)
    assert pointers(cpu.restore_and_save(area, X87, instruction)) == POINTERS
    quiet = put(put(area, 0, "H", QUIET[0]), 2, "H", QUIET[1])
    saved = cpu.restore_and_save(quiet, X87, instruction)
    assert struct.unpack_from("<HH", saved, 0) == QUIET
    if vendor() not in {"AuthenticAMD", "HygonGenuine"}:
        assert pointers(saved) == POINTERS
    elif cpu.cpuid(0x80000008)[1] & 4:
        assert pointers(saved) == (0, 0, 0)
    else:
        assert pointers(saved) == (0xCCCC, 0xCCCC_CCCC_CCCC_CCCC, 0xCCCC_CCCC_CCCC_CCCC)


def masks() -> list[int]:
    candidates = [
        0x1,
        0x2,
        0x3,
        0x4,
        0x6,
        0x7,
        0x5,
        0xE3,
        0xE7,
        0x207,
        0x2E7,
        0x60003,
        0x600E7,
        0x602E7,
        0x20000,
        0x40000,
    ]
    return [*candidates, (1 << 63) - 1]


@pytest.mark.parametrize("mask", masks(), ids=hex)
def test_xcomp_bv_is_rfbm(mask: int) -> None:
    rfbm = mask & cpu.xgetbv(0)
    area = cpu.restore_and_save(made_up(usable()), usable(), "xsavec", save_mask=mask)
    xstate_bv, xcomp_bv = header(area)
    assert xcomp_bv == COMPACTED | rfbm
    assert xstate_bv == rfbm & usable()
    offsets, size = cpu.compacted_offsets(rfbm)
    expected = made_up_compacted(rfbm & usable()) if rfbm == rfbm & usable() else None
    if expected is not None:
        for bit, offset in offsets.items():
            length = cpu.components()[bit][0]
            assert area[offset : offset + length] == expected[offset : offset + length], bit
    assert set(area[size:]) == {cpu.FILL}  # nothing beyond the size of the formula


@pytest.mark.parametrize("mask", [m for m in masks() if m.bit_count() > 1], ids=hex)
def test_compacted_size_is_the_formula(mask: int) -> None:
    # CPUID.(0DH,1).EBX is for XCR0 | IA32_XSS, and the kernel may have set IA32_XSS: only a lower bound is known here.
    assert cpu.compacted_offsets(cpu.xgetbv(0))[1] <= cpu.cpuid(0xD, 1)[1]
    assert cpu.standard_size(cpu.xgetbv(0)) == cpu.cpuid(0xD, 0)[1]
    if rfbm := mask & usable():
        area = cpu.restore_and_save(made_up(usable()), usable(), "xsavec", save_mask=rfbm)
        written = max(i for i, byte in enumerate(area) if byte != cpu.FILL)
        assert written < cpu.compacted_offsets(rfbm)[1]


def test_xsave_writes_only_what_it_should() -> None:
    mask = usable() & 0xE7
    # The header is full of 0xcc: XSTATE_BV keeps its bits outside RFBM, XCOMP_BV and the rest are not written.
    area = cpu.restore_and_save(made_up(mask), mask, "xsave", save_mask=0x7, clear_header=False)
    assert header(area) == (0xCCCC_CCCC_CCCC_CCCC & ~0x7 | 0x7, 0xCCCC_CCCC_CCCC_CCCC)
    assert set(area[528:576]) == {cpu.FILL}
    assert set(area[464:512]) == {cpu.FILL}
    assert set(area[832:]) == {cpu.FILL}


def test_xsavec_writes_only_what_it_should() -> None:
    mask = usable() & 0xE7
    area = cpu.restore_and_save(made_up(mask), mask, "xsavec", save_mask=0x7, clear_header=False)
    assert header(area) == (0x7, COMPACTED | 0x7)
    assert set(area[528:576]) == {cpu.FILL}
    assert set(area[464:512]) == {cpu.FILL}


def test_xsave_writes_initial_components_and_xsavec_does_not() -> None:
    mask = usable()
    initial = put(put(made_up(mask), 512, "Q", 0), 24, "I", 0x1F80)
    saved = cpu.restore_and_save(initial, mask, "xsave")
    assert fcw(saved) == 0x037F
    assert mxcsr(saved) == 0x1F80
    assert not any(saved[160:416])
    for bit, (size, offset, _) in cpu.components().items():
        assert not any(saved[offset : offset + size]), bit
    compacted = cpu.restore_and_save(initial, mask, "xsavec", clear_header=False)
    xstate_bv, xcomp_bv = header(compacted)
    assert xcomp_bv == COMPACTED | mask
    offsets, _ = cpu.compacted_offsets(mask)
    for bit, offset in offsets.items():
        if not xstate_bv >> bit & 1:  # stale; XINUSE may be 1 for an initial component
            assert set(compacted[offset : offset + cpu.components()[bit][0]]) == {cpu.FILL}, bit
    if not xstate_bv & X87:
        assert set(compacted[:24]) == {cpu.FILL}
    if not xstate_bv & SSE:
        assert set(compacted[24:32] + compacted[160:416]) == {cpu.FILL}


def test_xsavec_forces_sse_for_mxcsr() -> None:
    area = put(put(made_up(0x7), 512, "Q", 0), 24, "I", 0x9FC0)
    saved = cpu.restore_and_save(area, 0x7, "xsavec")
    assert header(saved)[0] & SSE
    assert mxcsr(saved) == 0x9FC0
    assert not any(saved[160:416])
    # AVX alone neither forces bit 1 nor saves MXCSR in the compacted form; XSAVE does save it.
    saved = cpu.restore_and_save(area, 0x7, "xsavec", save_mask=AVX)
    assert not header(saved)[0] & SSE
    assert mxcsr(saved) == 0xCCCCCCCC
    assert mxcsr(cpu.restore_and_save(area, 0x7, "xsave", save_mask=AVX)) == 0x9FC0
    assert mxcsr(cpu.restore_and_save(area, 0x7, "xsave", save_mask=X87)) == 0xCCCCCCCC


def test_xrstor_initialises_what_xcomp_bv_lacks() -> None:
    area = made_up_compacted(0x3)
    saved = cpu.restore_and_save(area, 0x7, "xsave")
    assert not any(saved[576:832])
    components_equal(saved, made_up(0x3), {}, 0x3)


def test_xrstor_keeps_what_rfbm_lacks() -> None:
    # The thread's own SSE and AVX state stays.
    area = made_up(0x7)
    saved = cpu.restore_and_save(area, X87, "xsave", save_mask=0x7)
    assert saved[:24] == area[:24]
    assert saved[160:416] != area[160:416]
    assert saved[576:832] != area[576:832]


def test_xgetbv_1_is_a_subset_of_xcr0() -> None:
    assert cpu.cpuid(0xD, 1)[0] & 4
    assert cpu.xgetbv(1) & ~cpu.xgetbv(0) == 0


def test_the_callers_state_survives() -> None:
    before = cpu.xsave(usable() & 0x3)
    for _ in range(100):
        cpu.restore_and_save(made_up(usable()), usable(), "xsavec")
        assert float("0.30000000000000004") == 0.1 + 0.2
    after = cpu.xsave(usable() & 0x3)
    assert (fcw(after), mxcsr(after) & ~0x3F) == (fcw(before), mxcsr(before) & ~0x3F)


# --- the recorded matrix of XRSTOR -----------------------------------------------------------------------------------

RESERVED_MXCSR = 0x10000


def matrix_mask() -> int:
    """XCR0 of the recorded machine, as far as this CPU has it; `all` in the cases is all of XCR0."""
    return usable() & 0xE7


def case_area(kind: str, name: str) -> tuple[bytes, int, int]:
    """Return (area, RFBM, misalignment) of a row."""
    mask = matrix_mask()
    base = made_up(mask) if kind == "standard" else made_up_compacted(mask)
    bad_mxcsr = put(base, 24, "I", 0x1F80 | RESERVED_MXCSR)
    everything = (1 << 63) - 1 & ~TILES
    xcomp = COMPACTED | mask
    cases: dict[str, dict[str, Callable[[], tuple[bytes, int, int]]]] = {
        "standard": {
            "image as written by XSAVE": lambda: (base, everything, 0),
            "XCOMP_BV = old low bits, bit63=0 (seed decompact output)": lambda: (
                put(base, 520, "Q", mask),
                everything,
                0,
            ),
            "XCOMP_BV = 1": lambda: (put(base, 520, "Q", 1), everything, 0),
            "header bytes 23:16 nonzero": lambda: (put(base, 528, "Q", 1), everything, 0),
            "header bytes 31:24 nonzero": lambda: (put(base, 536, "Q", 1), everything, 0),
            "header bytes 63:56 nonzero": lambda: (put(base, 568, "Q", 1), everything, 0),
            "XSTATE_BV bit 11 (not in XCR0), RFBM=all": lambda: (put(base, 512, "Q", mask | 1 << 11), everything, 0),
            "XSTATE_BV bit 11, RFBM=7": lambda: (put(base, 512, "Q", mask | 1 << 11), 7, 0),
            "MXCSR reserved bit, RFBM=all, XSTATE_BV=all": lambda: (bad_mxcsr, everything, 0),
            "MXCSR reserved bit, RFBM=all, XSTATE_BV=1": lambda: (put(bad_mxcsr, 512, "Q", 1), everything, 0),
            "MXCSR reserved bit, RFBM=1": lambda: (bad_mxcsr, 1, 0),
            "MXCSR_MASK garbage": lambda: (put(base, 28, "I", 0xDEADBEEF), everything, 0),
            "bytes 511:416 garbage": lambda: (base[:416] + b"\xa5" * 96 + base[512:], everything, 0),
            "misaligned by 16": lambda: (base, everything, 16),
        },
        "compacted": {
            "image as written by XSAVEC": lambda: (base, everything, 0),
            "XCOMP_BV bit 11 (not in XCR0)": lambda: (put(base, 520, "Q", xcomp | 1 << 11), everything, 0),
            "XCOMP_BV bit 62": lambda: (put(base, 520, "Q", xcomp | 1 << 62), everything, 0),
            "XSTATE_BV[2]=1, XCOMP_BV[2]=0": lambda: (put(base, 520, "Q", xcomp & ~4), everything, 0),
            "XCOMP_BV[1:0]=0 with XSTATE_BV[1:0]=3": lambda: (put(base, 520, "Q", xcomp & ~3), everything, 0),
            "XCOMP_BV[1:0]=0 with XSTATE_BV=0": lambda: (
                put(put(base, 520, "Q", xcomp & ~3), 512, "Q", 0),
                everything,
                0,
            ),
            "XSTATE_BV[63]=1": lambda: (put(base, 512, "Q", mask | 1 << 63), everything, 0),
            "header bytes 23:16 nonzero": lambda: (put(base, 528, "Q", 1), everything, 0),
            "header bytes 31:24 nonzero": lambda: (put(base, 536, "Q", 1), everything, 0),
            "header bytes 63:56 nonzero": lambda: (put(base, 568, "Q", 1), everything, 0),
            "MXCSR reserved bit, XSTATE_BV[1]=1": lambda: (bad_mxcsr, everything, 0),
            "MXCSR reserved bit, XSTATE_BV[1]=0": lambda: (put(bad_mxcsr, 512, "Q", mask & ~2), everything, 0),
            "misaligned by 16": lambda: (base, everything, 16),
        },
    }
    return cases[kind][name]()


@pytest.fixture(scope="module")
def matrix_results() -> dict[tuple[str, str], signal.Signals | None]:
    """All rows at once: their child processes run side by side."""
    names = [(row["format"], row["case"]) for row in MATRIX["xrstor"]]
    return dict(zip(names, cpu.fault_signals([case_area(*name) for name in names]), strict=True))


@pytest.mark.parametrize("row", MATRIX["xrstor"], ids=lambda row: f"{row['format']}: {row['case']}")
def test_xrstor_matrix(row: dict[str, str], matrix_results: dict[tuple[str, str], signal.Signals | None]) -> None:
    expected = None if row["result"] == "ok" else signal.SIGSEGV
    assert matrix_results[row["format"], row["case"]] == expected


@pytest.mark.parametrize("row", MATRIX["mxcsr_result"], ids=lambda row: f"{row['format']}-{row['xstate_bv']}")
def test_mxcsr_that_xrstor_loads(row: dict[str, str]) -> None:
    base = made_up(0x7) if row["format"] == "standard" else made_up_compacted(0x7)
    area = put(put(base, 512, "Q", int(row["xstate_bv"])), 24, "I", int(row["mem"], 16))
    assert mxcsr(cpu.restore_and_save(area, 0x7, "xsave")) == int(row["loaded"], 16)


@pytest.mark.parametrize("row", MATRIX["x87_result"], ids=lambda row: f"{row['format']}-{row['xstate_bv0']}")
def test_fcw_that_xrstor_loads(row: dict[str, str]) -> None:
    area = put(put(made_up_compacted(0x7), 512, "Q", 0x6 | int(row["xstate_bv0"])), 0, "H", int(row["mem_fcw"], 16))
    assert fcw(cpu.restore_and_save(area, 0x7, "xsave")) == int(row["loaded"], 16)


def test_would_fault() -> None:
    assert not cpu.would_fault(made_up(0x7), 0x7)
    assert cpu.would_fault(put(made_up(0x7), 520, "Q", 7), 0x7)
