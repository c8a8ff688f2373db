import pytest

from qmigtool.errors import UsageError
from qmigtool.xsave.components import (
    COMPONENTS,
    SUPERVISOR_MASK,
    USER_MASK,
    bits,
    check_xcr0,
    component,
    initial_configuration,
    is_initial,
    mask_names,
    parse_mask,
)

TABLE = [
    (0, "x87", 152, False, False, False),
    (1, "SSE", 256, False, False, False),
    (2, "AVX", 256, False, False, False),
    (3, "BNDREGS", 64, False, False, False),
    (4, "BNDCSR", 64, False, False, False),
    (5, "opmask", 64, False, False, False),
    (6, "ZMM_Hi256", 512, False, False, False),
    (7, "Hi16_ZMM", 1024, False, False, False),
    (8, "PT", 128, True, False, False),
    (9, "PKRU", 8, False, False, False),
    (10, "PASID", 8, True, False, False),
    (11, "CET_U", 16, True, False, False),
    (12, "CET_S", 24, True, False, False),
    (13, "HDC", 8, True, False, False),
    (14, "UINTR", 48, True, False, False),
    (15, "LBR", 808, True, False, False),
    (16, "HWP", 8, True, False, False),
    (17, "XTILECFG", 64, False, True, False),
    (18, "XTILEDATA", 8192, False, True, True),
    (19, "APX_F", 128, False, False, False),
    (62, "LWP", 128, False, False, False),
]
MASKS = (0x40000000000E02FF, 0x1FD00)  # of XCR0, of IA32_XSS


def test_the_table_is_the_manuals():
    rows = [(c.bit, c.name, c.size, c.supervisor, c.align64, c.xfd) for c in COMPONENTS.values()]
    assert rows == TABLE, "add the row of the manual to TABLE, and its bit to MASKS"


def test_masks():
    assert (USER_MASK, SUPERVISOR_MASK) == MASKS, "add the component's bit to MASKS"
    assert COMPONENTS[18].mask == 0x40000


def test_initial_configurations_that_are_not_zero():
    assert COMPONENTS[0].initial == b"\x7f\x03" + bytes(150)
    assert COMPONENTS[13].initial == bytes.fromhex("0100000000000000")
    assert COMPONENTS[16].initial == bytes.fromhex("01ff008000000000")
    assert all(not any(c.initial) for c in COMPONENTS.values() if c.bit not in (0, 13, 16))
    assert all(len(c.initial) == c.size for c in COMPONENTS.values())


def test_lbr_depth_does_not_make_lbr_live():
    assert is_initial(15, bytes(8) + b"\x20" + bytes(799))
    assert not is_initial(15, b"\x01" + bytes(807))
    assert not is_initial(15, bytes(16) + b"\x01" + bytes(791))


def test_initial_configuration_of_an_unknown_component_is_zero():
    assert initial_configuration(20, 96) == bytes(96)
    assert is_initial(20, bytes(96))


@pytest.mark.parametrize(("key", "bit"), [("avx", 2), (" PKRU ", 9), ("zmm_hi256", 6), (62, 62)])
def test_lookup(key, bit):
    assert component(key).bit == bit


@pytest.mark.parametrize("key", ["ymm", 20, 63, -1, ""])
def test_lookup_of_nothing(key):
    with pytest.raises(UsageError):
        component(key)


def test_bits_and_names():
    assert list(bits(0x8000000000000205)) == [0, 2, 9, 63]
    assert list(bits(0)) == []
    assert mask_names(0x100207) == ("x87", "SSE", "AVX", "PKRU", "bit20")


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("0x2e7", 0x2E7),
        ("743", 743),
        ("x87,sse,avx", 7),
        (" X87 , PKRU ", 0x201),
        ("bit20,lwp", 1 << 20 | 1 << 62),
        ("0x3,avx", 7),
        ("0", 0),
    ],
)
def test_parse_mask(text, mask):
    assert parse_mask(text) == mask


@pytest.mark.parametrize("text", ["", "x87,", "ymm", "-1", "bit63", "bit-1", "0x8000000000000000", "0x", "bitx", "1 2"])
def test_parse_mask_refuses(text):
    with pytest.raises(UsageError):
        parse_mask(text)


@pytest.mark.parametrize("mask", [1, 3, 7, 0x1F, 0xE7, 0x2E7, 0x2FF, 0x602E7, 0xE02E7, 0x80207, 0x60003, 1 << 62 | 7])
def test_legal_xcr0(mask):
    assert check_xcr0(mask) == []


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (0, "x87"),
        (0x6, "x87"),
        (0x5, "SSE"),
        (0xF, "BNDREGS"),
        (0x17, "BNDCSR"),
        (0x27, "opmask"),
        (0xC7, "opmask"),
        (0xE3, "AVX-512"),
        (0x20007, "XTILECFG"),
        (0x40007, "XTILEDATA"),
        (0x8001F, "APX_F"),
        (0x807, "CET_U"),
        (1 << 63 | 7, "63"),
    ],
)
def test_illegal_xcr0(mask, word):
    reasons = check_xcr0(mask)
    assert len(reasons) == 1
    assert word in reasons[0]
