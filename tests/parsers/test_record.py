"""The records: constants against literals, and each record as its declaration makes it."""

import struct
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmigtool.errors import StreamError, TruncatedError
from qmigtool.parsers import records
from qmigtool.parsers.configuration import Capabilities
from qmigtool.parsers.record import Blob, Record, be16, be32, be64, decode_name, encode_name, record, str8, u8
from qmigtool.parsers.saveimage import SaveImageHeader
from qmigtool.parsers.window import NeedMoreData, Window

SECTION_TYPES = {
    "QEMU_VM_EOF": 0x00,
    "QEMU_VM_SECTION_START": 0x01,
    "QEMU_VM_SECTION_PART": 0x02,
    "QEMU_VM_SECTION_END": 0x03,
    "QEMU_VM_SECTION_FULL": 0x04,
    "QEMU_VM_SUBSECTION": 0x05,
    "QEMU_VM_VMDESCRIPTION": 0x06,
    "QEMU_VM_CONFIGURATION": 0x07,
    "QEMU_VM_COMMAND": 0x08,
}
COMMANDS = {
    "MIG_CMD_INVALID": 0,
    "MIG_CMD_OPEN_RETURN_PATH": 1,
    "MIG_CMD_PING": 2,
    "MIG_CMD_POSTCOPY_ADVISE": 3,
    "MIG_CMD_POSTCOPY_LISTEN": 4,
    "MIG_CMD_POSTCOPY_RUN": 5,
    "MIG_CMD_POSTCOPY_RAM_DISCARD": 6,
    "MIG_CMD_PACKAGED": 7,
    "MIG_CMD_ENABLE_COLO": 8,
    "MIG_CMD_POSTCOPY_RESUME": 9,
    "MIG_CMD_RECV_BITMAP": 10,
    "MIG_CMD_SWITCHOVER_START": 11,
}
RAM_FLAGS = {
    "FULL": 0x001,
    "ZERO": 0x002,
    "MEM_SIZE": 0x004,
    "PAGE": 0x008,
    "EOS": 0x010,
    "CONTINUE": 0x020,
    "XBZRLE": 0x040,
    "HOOK": 0x080,
    "COMPRESS_PAGE": 0x100,
    "MULTIFD_FLUSH": 0x200,
}


@pytest.mark.parametrize(
    ("enumeration", "literals"),
    [(records.SectionType, SECTION_TYPES), (records.Command, COMMANDS), (records.RamSaveFlag, RAM_FLAGS)],
)
def test_enumerations(enumeration, literals):
    assert {name: int(member) for name, member in enumeration.__members__.items()} == literals


def test_plain_constants():
    assert records.QEMU_VM_FILE_MAGIC.to_bytes(4, "big") == b"QEVM"
    assert records.QEMU_VM_FILE_VERSION == 3
    assert records.QEMU_VM_FILE_VERSION_COMPAT == 2
    assert records.QEMU_VM_SECTION_FOOTER == 0x7E


# One real or hand-made example of each: the fields and the bytes.
EXAMPLES = {
    "FileHeader": ({"magic": 0x5145564D, "version": 3}, "51 45 56 4d 00 00 00 03"),
    "SectionHeader": (
        {"section_id": 1, "idstr": "ram", "instance_id": 0, "version_id": 4},
        "00 00 00 01 03 72 61 6d 00 00 00 00 00 00 00 04",
    ),
    "SectionReference": ({"section_id": 0x0A0B0C0D}, "0a 0b 0c 0d"),
    "SectionFooter": ({"marker": 0x7E, "section_id": 18}, "7e 00 00 00 12"),
    "Subsection": (
        {"marker": 5, "idstr": "cpu/poll_control_msr", "version_id": 1},
        "05 14 63 70 75 2f 70 6f 6c 6c 5f 63 6f 6e 74 72 6f 6c 5f 6d 73 72 00 00 00 01",
    ),
    "CommandHeader": ({"cmd": 11, "length": 0}, "00 0b 00 00"),
    "VmDescriptionHeader": ({"section_type": 6, "length": 0x1E1C9}, "06 00 01 e1 c9"),
    "RamBlockHeader": ({"idstr": "pc.ram", "used_length": 0x1000000}, "06 70 63 2e 72 61 6d 00 00 00 00 01 00 00 00"),
    "ItemType": ({"section_type": 4}, "04"),
    "Ping": ({"value": 9}, "00 00 00 09"),
    "PackageLength": ({"package_length": 0x10203}, "00 01 02 03"),
    "RecvBitmapRequest": ({"idstr": "pc.ram"}, "06 70 63 2e 72 61 6d"),
    "PostcopyRamDiscard": (
        {"version": 0, "idstr": "m", "end_of_name": 0, "ranges": (0x1000, 0x2000)},
        "00 01 6d 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 20 00",
    ),
    "RamBlockPageSize": ({"block_page_size": 0x200000}, "00 00 00 00 00 20 00 00"),
    "RamBlockAddress": ({"mr_addr": 0xFFFC0000}, "00 00 00 00 ff fc 00 00"),
    "RamRecord": (
        {"addr": 0x3000, "flags": 0x40, "idstr": "m", "fill": None, "page": None, "encoding": 1}
        | {"xbzrle_length": 3, "xbzrle": b"\x05\x01\xff", "zlib_length": None, "zlib": None},
        "00 00 00 00 00 00 30 40 01 6d 01 00 03 05 01 ff",
    ),
    "PostcopyAdvise": (
        {"ram_pagesize_summary": 0x201000, "target_page_size": 0x1000},
        "00 00 00 00 00 20 10 00 00 00 00 00 00 00 10 00",
    ),
    "MappedRamHeader": (
        {"version": 1, "page_size": 0x1000, "bitmap_offset": 0x8E, "pages_offset": 0x100000},
        "00 00 00 01 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 8e 00 00 00 00 00 10 00 00",
    ),
}


def all_records():
    return {
        name: found
        for name, found in vars(records).items()
        if isinstance(found, type) and issubclass(found, Record) and found is not Record
    }


def test_every_record_has_an_example():
    assert set(all_records()) == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_parse_and_build(name):
    cls = all_records()[name]
    fields, text = EXAMPLES[name]
    raw = bytes.fromhex(text)
    assert cls(**fields).build() == raw
    junk = b"" if name == "PostcopyRamDiscard" else b"junk"  # its list goes on to the end
    parsed, end = cls.parse(Window(b"??" + raw + junk, base=40, final=True), 42)
    assert (parsed, end) == (cls(**fields), 42 + len(raw))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_cut_is_noticed(name):
    cls = all_records()[name]
    raw = bytes.fromhex(EXAMPLES[name][1])
    whole = {4, 12} if name == "PostcopyRamDiscard" else set()  # its list goes on to the end, wherever that is
    for cut in set(range(len(raw))) - whole:
        with pytest.raises(TruncatedError) as caught:
            cls.parse(Window(raw[:cut], base=7, final=True), 7)
        assert caught.value.offset == 7 + cut
        assert name in caught.value.expected
        with pytest.raises(NeedMoreData):
            cls.parse(Window(raw[:cut], base=7), 7)


@given(
    st.integers(0, 2**32 - 1),
    st.binary(min_size=1, max_size=255),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_a_name_of_any_bytes_survives(section_id, name, instance_id, version_id):
    raw = struct.pack(">IB", section_id, len(name)) + name + struct.pack(">II", instance_id, version_id)
    parsed, end = records.SectionHeader.parse(Window(raw, final=True), 0)
    assert end == len(raw)
    assert parsed.section_id == section_id
    assert (parsed.instance_id, parsed.version_id) == (instance_id, version_id)
    assert parsed.build() == raw
    assert encode_name(parsed.idstr) == name
    assert encode_name(decode_name(name)) == name


def test_an_empty_name_is_refused():
    with pytest.raises(StreamError) as caught:
        records.SectionHeader.parse(Window(bytes(13), base=100, final=True), 100)
    assert caught.value.offset == 104
    with pytest.raises(ValueError, match="1 to 255"):
        records.SectionHeader(1, "", 0, 0).build()
    with pytest.raises(ValueError, match="1 to 255"):
        records.SectionHeader(1, "x" * 256, 0, 0).build()


@record
class Everything(Record):
    """Every kind of field."""

    small: u8
    two: be16
    four: be32
    eight: be64
    name: str8
    five: Annotated[bytes, Blob(5)]


def test_a_blob_has_its_size():
    made = Everything(1, 0x0203, 0x04050607, 0x08090A0B0C0D0E0F, "n", b"12345")
    raw = bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f 01 6e 3132333435")
    assert made.build() == raw
    assert Everything.parse(Window(raw, final=True), 0) == (made, len(raw))
    with pytest.raises(ValueError, match="5 bytes"):
        Everything(1, 2, 3, 4, "n", b"1234").build()


KINDS = [
    ({"flags": 0x22, "addr": 0, "fill": 7}, "00 00 00 00 00 00 00 22 07"),
    ({"flags": 0x02, "addr": 0x1000, "idstr": "m", "fill": 0}, "00 00 00 00 00 00 10 02 01 6d 00"),
    ({"flags": 0x28, "addr": 0x100000000, "page": bytes(4095) + b"x"}, "00 00 00 01 00 00 00 28" + "00" * 4095 + "78"),
    ({"flags": 0x120, "addr": 0, "zlib_length": 2, "zlib": b"ab"}, "00 00 00 00 00 00 01 20 00 00 00 02 61 62"),
    ({"flags": 0x04, "addr": 0x1042000}, "00 00 00 00 01 04 20 04"),
    ({"flags": 0x10, "addr": 0}, "00 00 00 00 00 00 00 10"),
]


@pytest.mark.parametrize(("given_fields", "text"), KINDS)
def test_a_ram_record_of_each_kind(given_fields, text):
    names = [name for name, _ in records.RamRecord.wire]
    made = records.RamRecord(**{name: given_fields.get(name) for name in names})
    raw = bytes.fromhex(text)
    assert made.build() == raw
    assert records.RamRecord.parse(Window(raw + b"next", final=True), 0) == (made, len(raw))


def test_a_ram_record_of_another_page_size():
    small = records.RamRecord.variant(PAGE_SIZE=256)
    assert small is records.RamRecord.variant(PAGE_SIZE=256)
    assert records.RamRecord.variant(PAGE_SIZE=4096) is records.RamRecord
    raw = bytes.fromhex("0000000000000328") + bytes(range(256))
    found, end = small.parse(Window(raw, final=True), 0)
    assert (found.addr, found.flags, found.page, end) == (0x300, 0x28, bytes(range(256)), 264)
    assert found.build() == raw


def test_what_a_record_cannot_hold_is_refused():
    page = {name: None for name, _ in records.RamRecord.wire}
    for fields, words in (
        ({"addr": 0x10, "flags": 0x10}, "multiple of 4096"),
        ({"addr": 0, "flags": 0x1000}, "bits below 0x1000"),
        ({"addr": 0, "flags": 0x02, "idstr": "m"}, "fill is missing"),
        ({"addr": 0, "flags": 0x10, "fill": 1}, "fill is not allowed here"),
    ):
        with pytest.raises(ValueError, match=words):
            records.RamRecord(**(page | fields)).build()


def test_a_count_that_lies_makes_no_list():
    window = Window(b"\xff\xff\xff\xff\x01a", final=True)
    with pytest.raises(TruncatedError):
        Capabilities.parse(window, 0)
    with pytest.raises(ValueError, match="2 elements, not 1"):
        Capabilities(2, ("a",)).build()


def test_integers_of_the_host_have_its_byte_order():
    little, big = (SaveImageHeader.variant(BYTE_ORDER=order) for order in "<>")
    raw = b"LibvirtQemudSave" + struct.pack("<5I", 2, 3, 1, 6, 0) + bytes(56)
    swapped = raw[:16] + struct.pack(">5I", 2, 3, 1, 6, 0) + bytes(56)
    one, _ = little.parse(Window(raw, final=True), 0)
    other, _ = big.parse(Window(swapped, final=True), 0)
    assert (one.version, one.data_length, one.format) == (other.version, other.data_length, other.format) == (2, 3, 6)
    assert (one.build(), other.build()) == (raw, swapped)


def test_records_are_values():
    footer = records.SectionFooter(0x7E, 1)
    assert footer == records.SectionFooter(0x7E, 1)
    with pytest.raises(AttributeError):
        footer.section_id = 2
