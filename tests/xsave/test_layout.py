import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import QmigError, UsageError, XsaveError
from qmigtool.xsave import Format, Layout, layout, layout_names
from tests.xsave import model

# mask, standard size Intel, standard size AMD Zen 3+ (of the user part), compacted size, compacted offsets
GOLDEN = """
0x3      576   576  576
0x7      832   832  832    2@576
0x207    2696  2440 840    2@576 9@832
0x1f     1088  -    960    2@576 3@832 4@896
0xe7     2688  2432 2432   2@576 5@832 6@896 7@1408
0x2e7    2696  2440 2440   2@576 5@832 6@896 7@1408 9@2432
0x2ff    2696  -    2568   2@576 3@832 4@896 5@960 6@1024 7@1536 9@2560
0x602e7  11008 -    10752  2@576 5@832 6@896 7@1408 9@2432 17@2496 18@2560
0xe02e7  11008 -    10880  2@576 5@832 6@896 7@1408 9@2432 17@2496 18@2560 19@10752
0x80207  2696  -    968    2@576 9@832 19@840
0x1807   832   832  872    2@576 11@832 12@848
0x1a07   2696  2440 880    2@576 9@832 11@840 12@856
0x18e7   2688  2432 2472   2@576 5@832 6@896 7@1408 11@2432 12@2448
0x1ae7   2696  2440 2480   2@576 5@832 6@896 7@1408 9@2432 11@2440 12@2456
0x1ce7   2688  2432 2480   2@576 5@832 6@896 7@1408 10@2432 11@2440 12@2456
0x61ae7  11008 -    10752  2@576 5@832 6@896 7@1408 9@2432 11@2440 12@2456 17@2496 18@2560
0x6ffe7  11008 -    11776  2@576 5@832 6@896 7@1408 8@2432 9@2560 10@2568 11@2576 12@2592 13@2616 14@2624 15@2672\
 17@3520 18@3584
0x807    832   832  848    2@576 11@832
0x8e7    2688  2432 2448   2@576 5@832 6@896 7@1408 11@2432
0x9e7    2688  2432 2576   2@576 5@832 6@896 7@1408 8@2432 11@2560
0x1c07   832   832  880    2@576 10@832 11@840 12@856
"""

INTEL_OFFSETS = {2: 576, 3: 960, 4: 1024, 5: 1088, 6: 1152, 7: 1664, 9: 2688, 17: 2752, 18: 2816, 19: 960}
AMD_OFFSETS = {2: 576, 5: 832, 6: 896, 7: 1408, 9: 2432}
SUPERVISOR_SIZES = {8: 128, 10: 8, 11: 16, 12: 24, 13: 8, 14: 48, 15: 808}
USER_SIZES = {2: 256, 3: 64, 4: 64, 5: 64, 6: 512, 7: 1024, 9: 8, 17: 64, 18: 8192, 19: 128}


def everything(offsets):
    """A CPU that has every component, so that each golden vector can be asked of it."""
    user = {bit: (USER_SIZES[bit], offset, 2 if bit in (17, 18) else 0, 0) for bit, offset in offsets.items()}
    supervisor = {bit: (size, 0, 1, 0) for bit, size in SUPERVISOR_SIZES.items()}
    xcr0 = 3 | sum(1 << bit for bit in user)
    rows = {0: (xcr0, 0, 0, 0), 1: (0xF, 0, sum(1 << bit for bit in supervisor), 0), **user, **supervisor}
    return Layout.from_leaf_0xd("everything", rows)


def golden():
    for line in GOLDEN.strip().splitlines():
        mask, intel, amd, size, *places = line.split()
        offsets = {int(bit): int(at) for bit, at in (place.split("@") for place in places)}
        yield pytest.param(int(mask, 16), int(intel), None if amd == "-" else int(amd), int(size), offsets, id=mask)


@pytest.mark.parametrize(("mask", "intel", "amd", "size", "offsets"), list(golden()))
def test_golden_vectors(mask, intel, amd, size, offsets):
    cpu = everything(INTEL_OFFSETS)
    assert cpu.compacted_offsets(mask) == offsets
    assert cpu.compacted_size(mask) == size
    assert cpu.compacted_size(mask | 1 << 63) == size
    assert cpu.standard_size(mask & cpu.user_mask) == intel
    if amd is not None:
        assert everything(AMD_OFFSETS).standard_size(mask & cpu.user_mask) == amd
        assert everything(AMD_OFFSETS).compacted_size(mask) == size


# CPUID.(0DH,1).EBX of each dump, and the (XCR0, IA32_XSS) that reproduce it. Haswell, Knights Landing and Bulldozer
# have no XSAVEC, so they report 0 there.
LEAF_1_EBX = [
    ("amd-zen1", 0x7, 0, 0x340),
    ("amd-zen2", 0x7, 0, 0x340),
    ("amd-zen2-lwp", 0x7, 0, 0x340),
    ("amd-zen2-linux", 0x7, 0, 0x340),
    ("amd-zen3", 0x7, 0x800, 0x350),
    ("amd-zen4", 0xE7, 0x800, 0x990),
    ("amd-zen4c", 0xE7, 0x800, 0x990),
    ("amd-zen5", 0xE7, 0x800, 0x990),
    ("amd-zen4-kvm", 0xE7, 0x1800, 0x9A8),
    ("hygon-dhyana", 0x7, 0, 0x340),
    ("intel-skl", 0x1F, 0x100, 0x440),
    ("intel-clx", 0xFF, 0x100, 0xA80),
    ("intel-icl", 0xE7, 0x100, 0xA00),
    ("intel-tgl", 0xE7, 0x900, 0xA10),
    ("intel-adl", 0xE7, 0x900, 0xA10),
    ("intel-spr", 0x600E7, 0x500, 0x2A80),
    ("intel-emr", 0x600E7, 0x500, 0x2A80),
    ("intel-gnr", 0x600E7, 0x500, 0x2A80),
    ("intel-spr-linux", 0x602E7, 0x8000, 0x2D00),
    ("intel-lnl", 0x7, 0x900, 0x3D0),
    ("intel-ptl", 0x207, 0x9800, 0x698),
    ("intel-wcl", 0x7, 0x900, 0x3D0),
    ("zhaoxin-cns", 0xFF, 0, 0xA00),
    ("zhaoxin-kx7000", 0x7, 0, 0x340),
    ("hyperv-snp", 0x3, 0, 0x240),
]


@pytest.mark.parametrize(("name", "xcr0", "xss", "ebx"), LEAF_1_EBX)
def test_the_cpus_own_compacted_size(name, xcr0, xss, ebx):
    cpu = layout(name)
    assert cpu.leaf[1][1] == ebx
    assert cpu.compacted_size(xcr0 | xss) == ebx


# CPUID.(0DH,0).ECX: the standard size with all of XCR0 on. Zen 2 counts its bogus bit 9 (832+64), Haswell has nothing.
# A KX-7000 and others agree with their rows; the Hyper-V guest has 832 although its XFEM is 3.
@pytest.mark.parametrize("name", [name for name in model.LAYOUTS if not name.startswith("amd-zen2")])
def test_the_cpus_own_standard_size(name):
    assert layout(name).standard_size() == layout(name).leaf[0][2]


def test_every_built_in_layout():
    assert set(layout_names()) == set(model.LAYOUTS)
    for name, (user, offsets, supervisor) in model.LAYOUTS.items():
        cpu = layout(name)
        where = f"{name}: add the component to LAYOUTS, SIZES and the offsets of tests/xsave/model.py"
        assert cpu.user_mask == 3 | sum(1 << bit for bit in user), where
        assert cpu.supervisor_mask == sum(1 << bit for bit in supervisor), where
        for bit in user:
            assert cpu.standard_offset(bit) == offsets[bit], (name, bit)
        for bit, row in cpu.rows.items():
            assert row.size == model.SIZES[bit], (name, bit)
            assert row.align64 == (bit in (17, 18)), (name, bit)
            assert row.xfd == (bit == 18), (name, bit)
        assert cpu.title
        assert cpu.source


def test_a_layout_is_made_once():
    assert layout("amd-zen4") is layout(" AMD-Zen4 ")


def test_an_unknown_layout_is_told_its_neighbours():
    with pytest.raises(UsageError, match="amd-zen4"):
        layout("amd-zen44")
    with pytest.raises(UsageError, match="SapphireRapids"):
        layout("sapphire")
    with pytest.raises(UsageError, match="intel-spr"):
        layout("zzz")


def test_zen2_offers_a_bit_9_that_is_not_pkru():
    cpu = layout("amd-zen2")
    assert cpu.xcr0_mask == 0x207
    assert cpu.user_mask == 0x7
    assert "64 bytes" in cpu.absent[9]
    with pytest.raises(XsaveError, match="64 bytes"):
        cpu.standard_offset(9)
    with pytest.raises(XsaveError, match="PKRU"):
        cpu.compacted_size(0x207)


def test_a_row_that_no_mask_advertises_is_absent():
    assert set(layout("zhaoxin-cns").absent) == {11, 12}


def test_supervisor_components_have_no_standard_place():
    with pytest.raises(XsaveError, match="CET_U"):
        layout("amd-zen4").standard_offset(11)
    with pytest.raises(XsaveError, match="CET_U"):
        layout("amd-zen4").standard_size(0x807)


def test_the_size_is_not_the_end_of_the_highest_bit():
    # APX_F is bit 19 at 960; PKRU is bit 9 and ends at 2696.
    assert layout("qemu").standard_size(0x80207) == 2696


def test_mpx_and_apx_share_their_place():
    assert layout("qemu").overlapping(0xE02FF) == ((3, 19), (4, 19))
    assert layout("qemu").overlapping(0xE02E7) == ()
    assert layout("intel-spr").overlapping(0x602E7) == ()


ROWS = {0: (0x7, 0x340, 0x340, 0), 1: (0xF, 0x340, 0, 0), 2: (0x100, 0x240, 0, 0)}


def test_offsets_by_format():
    cpu = layout("amd-zen3")
    assert cpu.offsets(Format.STANDARD, 0x207) == {2: 576, 9: 2432}
    assert cpu.offsets(Format.COMPACTED, 0x207) == {2: 576, 9: 832}


def test_an_unknown_component_works_by_its_row():
    rows = {**ROWS, 0: (0x100007, 0, 0, 0), 20: (96, 832, 2, 0)}
    cpu = Layout.from_leaf_0xd("future", rows)
    assert cpu.user_mask == 0x100007
    assert cpu.standard_size() == 928
    assert cpu.compacted_offsets(0x100003) == {20: 576}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({0: (0x207, 0, 0, 0)}, "missing"),
        ({0: (0x207, 0, 0, 0), 9: (0, 0, 0, 0)}, "missing"),
        ({0: (0x207, 0, 0, 0), 9: (64, 832, 0, 0)}, "64 bytes"),
    ],
)
def test_what_cannot_be_used_is_absent(change, word):
    cpu = Layout.from_leaf_0xd("odd", {**ROWS, **change})
    assert word in cpu.absent[9]
    assert cpu.user_mask == 7
    assert cpu.xcr0_mask == 0x207


@pytest.mark.parametrize(
    "rows",
    [
        {},
        {1: (0xF, 0, 0, 0)},
        {0: (0, 0, 0, 0)},
        {0: (4, 0, 0, 0)},
        {**ROWS, 0: (0x7, 0, 0, 0x80000000)},
        {**ROWS, 1: (0xF, 0, 0, 0x80000000)},
        {**ROWS, 1: (0xF, 0, 4, 0)},
        {**ROWS, 2: (0x100, 512, 0, 0)},
        {**ROWS, 2: (0x100, 0, 0, 0)},
        {**ROWS, 2: (0x100, 0xFFFFFFF0, 0, 0)},
        {**ROWS, 2: (0x100, 576, 1, 0)},
        {**ROWS, 0: (0x207, 0, 0, 0), 9: (8, 800, 0, 0)},
        {**ROWS, 0: (0x100007, 0, 0, 0), 20: (0xFFFFFFFF, 576, 0, 0)},
        {**ROWS, 0: (0x100007, 0, 0, 0), 20: (96, 600, 0, 0)},
        {**ROWS, 0: (0x807, 0, 0, 0), 11: (16, 832, 0, 0)},
        {**ROWS, 1: (0xF, 0, 0x800, 0), 11: (16, 0, 0, 0)},
        {**ROWS, 64: (1, 1, 1, 1)},
        {**ROWS, -1: (1, 1, 1, 1)},
        {**ROWS, 5: (1, 1, 1)},
        {**ROWS, 5: (-1, 1, 1, 1)},
        {**ROWS, 5: (1 << 32, 1, 1, 1)},
    ],
)
def test_hostile_rows_are_refused(rows):
    with pytest.raises(XsaveError):
        Layout.from_leaf_0xd("hostile", rows)


register = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 2, 7, 64, 256, 576, 832, 0x207, 0xE7])


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 63), st.tuples(register, register, register, register), max_size=12),
    st.integers(0, (1 << 64) - 1),
)
def test_any_rows_give_a_layout_or_a_qmig_error(rows, mask):
    try:
        cpu = Layout.from_leaf_0xd("any", {**ROWS, **rows})
        assert cpu.standard_size() <= 1 << 20
        assert cpu.compacted_size(cpu.mask) < 1 << 27
        cpu.compacted_size(mask)
    except QmigError:
        pass


def test_layouts_travel_to_workers():
    cpu = layout("intel-spr")
    again = pickle.loads(pickle.dumps(cpu))  # noqa: S301
    assert again == cpu
    assert hash(again) == hash(cpu)
    assert (again.title, again.source, again.rows) == (cpu.title, cpu.source, cpu.rows)
    assert cpu != layout("intel-emr")
