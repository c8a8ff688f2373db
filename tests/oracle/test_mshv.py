"""Decompaction against real QEMU: a page is given to QEMU 11.1 on a stand-in for MSHV, and what it saves is compared.

The pages have the components that this machine's CPU has, because QEMU asks it for sizes and offsets.
"""

import random
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

import qmigtool
from qmigtool.rewrite import Rewriter
from qmigtool.xsave import PolicyResult, compact_xsave_area, decompact_xsave_area
from tests.oracle.mshv import XSAVE, StandIn
from tests.support import casefiles

FLAG = 1 << 63
CET_U, CET_S = 1 << 11, 1 << 12
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Page:
    """A page of MSHV_GET_VP_STATE: random bytes, or those of a file, under this header."""

    name: str
    xstate_bv: int
    layout: int
    reserved: bytes = bytes(48)
    seed: int = 0
    case: str = ""

    def build(self) -> bytes:
        content = casefiles.read("xsave", self.case) if self.case else random.Random(self.seed).randbytes(PAGE)  # noqa: S311
        page = bytearray(content)
        struct.pack_into("<QQ48s", page, 512, self.xstate_bv, self.layout | FLAG, self.reserved)
        return bytes(page)


PAGES = (
    Page("x87, SSE and AVX", 0x7, 0x7, seed=1),
    Page("AVX in the layout, not in use", 0x3, 0x7, seed=2),
    Page("AVX not in the layout", 0x3, 0x3, seed=3),
    Page("nothing in use: the legacy bytes are stale", 0x0, 0x7, seed=4),
    Page("x87 not in use", 0x6, 0x7, seed=5),
    Page("CET_U and CET_S in use", 0x1807, 0x1807, seed=6),
    Page("CET_S alone in use", 0x1003, 0x1807, seed=7),
    Page("CET_U alone in use, without CET_S", 0x807, 0x807, seed=8),
    Page("CET without its XSTATE_BV bits, as Hyper-V saves it", 0x7, 0x1807, seed=9),
    Page(
        "bits that the guest does not have, and reserved bytes", 0x8000000000000007 | 1 << 40, 0x7, b"r" * 48, seed=10
    ),
    Page("the page of a guest with CET, without its AVX-512", 0x1807, 0x1807, case="mshv-page-cet.compacted"),
)


def policy_says(page: bytes, standin: StandIn, policy: str) -> PolicyResult:
    """What the policy makes of a page, with the CPUID rows that QEMU has used: the host's, and those for the guest."""
    guest = standin.guest_leaf()
    return decompact_xsave_area(
        page, host=standin.host_leaf, guest=guest, guest_xcr0=guest[0][3] << 32 | guest[0][0], xsave_buf_len=PAGE,
        policy=policy,
    )  # fmt: skip


def carried(area: bytes) -> dict[str, bytes]:
    """Return what x86_cpu_xrstor_all_areas() takes of a standard area with x87, SSE and AVX, and a stream carries."""
    pieces = {
        "FCW, FSW": (0, 4), "FTW": (4, 1), "FOP": (6, 2), "FIP": (8, 8), "FDP": (16, 8), "MXCSR": (24, 4),
        **{f"ST{i}": (32 + 16 * i, 10) for i in range(8)},
        **{f"XMM{i}": (160 + 16 * i, 16) for i in range(16)},
        "XSTATE_BV": (512, 8), "AVX": (576, 256),
    }  # fmt: skip
    return {name: area[offset : offset + size] for name, (offset, size) in pieces.items()}


@pytest.mark.mshv
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_qemu_makes_of_a_page_what_the_policy_says(page: Page, tmp_path: Path) -> None:
    data = page.build()
    with StandIn(tmp_path, page=data, layout=page.layout) as standin:
        said = standin.save(tmp_path / "vm.mig")
    expected = policy_says(data, standin, "qemu-11.1")
    if expected.rc:
        pytest.skip(f"this CPU does not have the page's components: the C function returns {expected.rc}")
    assert "decompact" not in said
    with qmigtool.open(tmp_path / "vm.mig", accelerator="mshv") as stream:
        found = stream.vcpus[0].xsave_area(xstate_bv="declared").data
    assert carried(found) == carried(expected.data)
    if page.xstate_bv & (CET_U | CET_S):
        # There the later source differs: the x87 pointers of the page would have survived.
        assert carried(policy_says(data, standin, "qemu-next").data) != carried(found)


@pytest.mark.mshv
@pytest.mark.parametrize("xcr0", [0x1, 0x7])
def test_what_qemu_sets_is_what_the_policy_compacts(xcr0: int, tmp_path: Path) -> None:
    """The way back: with XCR0[2] off QEMU leaves AVX's bytes out, and its XSTATE_BV bit in."""
    folders = [tmp_path / "save", tmp_path / "load"]
    for folder in folders:
        folder.mkdir()
    with StandIn(folders[0], page=PAGES[0].build()) as standin:
        standin.save(tmp_path / "vm.mig")
    with qmigtool.open(tmp_path / "vm.mig", accelerator="mshv") as stream:
        rewriter = Rewriter(stream)
        rewriter.set_xcr0(0, xcr0)
        with (tmp_path / "set.mig").open("wb") as target:
            rewriter.write(target)
        area = stream.vcpus[0].xsave_area(xstate_bv="declared").data
    with StandIn(folders[1]) as standin, standin.qemu(incoming=True) as qemu:
        qemu.load(tmp_path / "set.mig")
    guest = standin.guest_leaf()
    expected = compact_xsave_area(
        area, host=standin.host_leaf, guest_xcr0=guest[0][3] << 32 | guest[0][0], xcr0=xcr0, buflen=PAGE,
        policy="qemu-11.1",
    )  # fmt: skip
    assert expected.rc >= 832
    assert standin.states[0, XSAVE] == expected.data
    assert any(expected.data[576:832]) == (xcr0 == 0x7)
