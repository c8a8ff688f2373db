"""Converted areas restore to the same registers on a real CPU: XSAVE, XSAVEC and XRSTOR are executed here.

Whatever CPU runs the tests is the oracle; where it has no XSAVEC the tests skip and say so.
"""

import random
import struct
from collections.abc import Callable

import pytest

from qmigtool.xsave import Format, Layout, XsaveArea, bits, check_area, misfits
from qmigtool.xsave.components import XCOMP_BV_COMPACTED
from tests.oracle import xsave_cpu

pytestmark = pytest.mark.xsavec

PKRU = 1 << 9  # left alone: a random PKRU takes this process's own memory away


@pytest.fixture(scope="module")
def cpu() -> Layout:
    """This CPU's layout, from its own CPUID."""
    return Layout.from_leaf_0xd("this CPU", {i: xsave_cpu.cpuid(0xD, i) for i in range(63)})


@pytest.fixture(scope="module")
def mask() -> int:
    """The components that this process may use."""
    return xsave_cpu.usable_xcr0() & ~PKRU


def random_area(cpu: Layout, mask: int, seed: int) -> bytes:
    """Make a legal standard area with random contents in a random choice of components."""
    rng = random.Random(seed)  # noqa: S311 - test data
    declared = mask & rng.getrandbits(63)
    if declared & 1 << 18:
        declared |= 1 << 17  # tile data without a tile configuration is lost by the CPU itself
    area = bytearray(cpu.standard_size(mask))
    area[0:2] = rng.choice([0x037F, 0x027F, 0x0C7F]).to_bytes(2, "little")
    for i in range(8):
        area[32 + 16 * i : 42 + 16 * i] = rng.randbytes(8) + (0x3FFF + rng.randrange(64)).to_bytes(2, "little")
    area[4] = 0xFF if declared & 1 else 0
    area[24:28] = rng.choice([0x1F80, 0x9FC0, 0x1FBF]).to_bytes(4, "little")
    area[160:416] = rng.randbytes(256)
    for bit in bits(declared & ~3 & mask):
        row = cpu.rows[bit]
        area[row.offset : row.offset + row.size] = tile_configuration() if bit == 17 else rng.randbytes(row.size)
    area[512:520] = declared.to_bytes(8, "little")
    return bytes(area)


def tile_configuration() -> bytes:
    """Return a TILECFG with palette 1 and eight full tiles: LDTILECFG and XRSTOR check it."""
    return bytes([1]) + bytes(15) + (64).to_bytes(2, "little") * 8 + bytes(16) + bytes([16] * 8) + bytes(8)


def registers(cpu: Layout, area: bytes, mask: int, instruction: str = "xsave") -> dict[int | str, bytes | int]:
    """XRSTOR the area, save what the CPU then holds, and return what that means."""
    saved = xsave_cpu.restore_and_save(area, mask, instruction)
    state = XsaveArea(saved, cpu).architectural_state()
    if 0 in state:  # the CPU reports no FOP, FIP, FDP without an exception (AMD), and their selectors vary
        x87 = state[0]
        assert isinstance(x87, bytes)
        state[0] = x87[:6] + bytes(18) + x87[24:]
    return state


@pytest.mark.parametrize("seed", range(40))
def test_standard_to_compacted_restores_to_the_same_registers(cpu: Layout, mask: int, seed: int) -> None:
    area = random_area(cpu, mask, seed)
    before = registers(cpu, area, mask)
    compacted = XsaveArea(area, cpu).compact(mask=mask)
    assert compacted.format is Format.COMPACTED
    assert registers(cpu, compacted.data, mask) == before


@pytest.mark.parametrize("seed", range(40, 80))
def test_what_the_cpu_compacted_expands_to_the_same_registers(cpu: Layout, mask: int, seed: int) -> None:
    area = random_area(cpu, mask, seed)
    before = registers(cpu, area, mask)
    # XSAVEC leaves stale bytes (0xCC here) where a component is in its initial configuration.
    written = xsave_cpu.restore_and_save(area, mask, "xsavec")
    own = XsaveArea(written, cpu)
    assert own.xcomp_bv == XCOMP_BV_COMPACTED | mask
    expanded = own.expand()
    assert registers(cpu, expanded.data, mask) == before
    assert registers(cpu, expanded.compact(mask=mask).data, mask) == before


def test_our_offsets_are_the_ones_the_cpu_uses(cpu: Layout, mask: int) -> None:
    area = random_area(cpu, mask, 7)
    full = bytearray(area)
    full[512:520] = mask.to_bytes(8, "little")
    for bit in bits(mask & ~3):
        row = cpu.rows[bit]
        content = tile_configuration() if bit == 17 else bytes([bit]) * row.size
        full[row.offset : row.offset + row.size] = content
    written = xsave_cpu.restore_and_save(bytes(full), mask, "xsavec")
    for bit, offset in cpu.compacted_offsets(mask).items():
        row = cpu.rows[bit]
        expected = tile_configuration() if bit == 17 else bytes([bit]) * row.size
        assert written[offset : offset + row.size] == expected, bit


def test_check_agrees_with_the_cpu(cpu: Layout, mask: int) -> None:
    """Areas with one thing wrong: the verdict for XRSTOR is what XRSTOR does."""
    standard = random_area(cpu, mask, 11)
    compacted = XsaveArea(standard, cpu).compact(mask=mask).data
    xcr0 = xsave_cpu.xgetbv(0)
    cases = []
    for base in (standard, compacted):
        for offset, value in ((520, 1), (528, 1), (536, 1), (575, 1), (518, 0x40), (519, 0x80), (26, 0x80), (521, 8)):
            broken = bytearray(base)
            broken[offset] ^= value
            cases.append(bytes(broken))
    signals = xsave_cpu.fault_signals([(case, xcr0 & ~PKRU, 0) for case in cases])
    verdicts = [check_area(case, cpu, xcr0, rfbm=xcr0 & ~PKRU)[0] for case in cases]
    assert [verdict.ok for verdict in verdicts] == [signal is None for signal in signals]
    assert {verdict.ok for verdict in verdicts} == {True, False}


@pytest.mark.parametrize("said", [True, False])
def test_mxcsr_bits_are_those_of_this_cpu(cpu: Layout, mask: int, said: bool) -> None:
    """Bit 17 is AMD's. By the vendor, or by the MXCSR_MASK that XSAVE writes: both say what XRSTOR then does."""
    _, ebx, ecx, edx = xsave_cpu.cpuid(0)
    vendor = struct.pack("<III", ebx, edx, ecx).decode("latin-1")
    place = Layout.from_leaf_0xd("this CPU", cpu.leaf, vendor=vendor if said else "")
    real = xsave_cpu.xsave(mask)
    cases = []
    for bit in range(14, 20):
        area = bytearray(real)
        area[24:28] = (0x1F80 | 1 << bit).to_bytes(4, "little")
        area[512] |= 2
        cases.append(bytes(area))
    signals = xsave_cpu.fault_signals([(case, mask, 0) for case in cases])
    verdicts = [check_area(case, place, xsave_cpu.xgetbv(0), rfbm=mask)[0].ok for case in cases]
    assert verdicts == [signal is None for signal in signals]


@pytest.mark.parametrize("instruction", [xsave_cpu.xsave, xsave_cpu.xsavec])
@pytest.mark.parametrize("fill", [0, 0xCC])
def test_what_this_cpu_writes_fits_its_layout(
    cpu: Layout, mask: int, instruction: Callable[..., bytes], fill: int
) -> None:
    assert misfits(instruction(mask, fill=fill), cpu) == ()
