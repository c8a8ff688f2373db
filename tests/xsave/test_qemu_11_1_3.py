"""The policy qemu-11.1 against a page that the real QEMU 11.1.3 was given on a stand-in for MSHV, and what it saved.

cases/xsave: mshv-page-cet.compacted is the page (AVX-512, CET_U and CET_S in use), qemu-11.1.3-mshv-cet.mig the stream.
"""

import struct

import pytest

import qmigtool
from qmigtool.xsave import XsaveArea, decompact_xsave_area, layout
from tests.support import casefiles

ZEN4 = layout("amd-zen4")


@pytest.fixture(scope="module")
def saved():
    """The standard area that the stream's fields make, with what XSTATE_BV the stream has."""
    with qmigtool.open(casefiles.read("xsave", "qemu-11.1.3-mshv-cet.mig"), accelerator="mshv") as stream:
        return stream.vcpus[0].xsave_area(xstate_bv="declared")


def made(policy):
    page = casefiles.read("xsave", "mshv-page-cet.compacted")
    done = decompact_xsave_area(page, host=ZEN4, guest_xcr0=0x2E7, xsave_buf_len=4096, policy=policy)
    assert done.rc == 0
    # Its XCOMP_BV is none of a legal area; x86_cpu_xrstor_all_areas() does not look at it.
    return XsaveArea(done.data[:520] + bytes(8) + done.data[528:], ZEN4)


@pytest.mark.parametrize("policy", ["qemu-v1", "qemu-11.1"])
def test_the_policy_makes_of_the_page_what_qemu_has_saved(policy, saved):
    area = made(policy)
    assert area.xstate_bv == saved.xstate_bv
    for bit in (1, 2, 5, 6, 7):
        assert area.memory(bit) == saved.memory(bit), bit
    # FCW, FSW, FTW, FOP, FIP, FDP: those of x87 that a stream carries, byte 5 apart.
    for span in (slice(0, 5), slice(6, 28), *(slice(32 + 16 * i, 42 + 16 * i) for i in range(8))):
        assert area.data[span] == saved.data[span], span


def test_cet_s_lies_where_the_x87_pointers_were(saved):
    page = casefiles.read("xsave", "mshv-page-cet.compacted")
    cet_s = ZEN4.compacted_offsets(struct.unpack_from("<Q", page, 520)[0])[12]
    assert saved.data[8:24] == page[cet_s + 8 : cet_s + 24]
    assert saved.data[8:24] != page[8:24]


def test_a_later_qemu_would_have_kept_them(saved):
    page = casefiles.read("xsave", "mshv-page-cet.compacted")
    assert made("qemu-next").data[:24] == page[:24]
    assert made("qemu-next").data[8:24] != saved.data[8:24]
