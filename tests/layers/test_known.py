"""The layers that scapy has of each declared record: the same bytes, names of values, random values, cut input."""

import importlib
import pkgutil
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.packet import Packet, Padding, Raw, fuzz, rfc
from scapy.utils import hexdump

from qmigtool import parsers
from qmigtool.errors import StreamError, TruncatedError
from qmigtool.layers import known
from qmigtool.layers.packets import layer
from qmigtool.parsers.record import Record
from tests.parsers.test_record import EXAMPLES, all_records

LAYERS = {name: getattr(known, name) for name in known.__all__}
DECLARED = {name: cls for name, cls in LAYERS.items() if cls.record is not None}


def every_record():
    for module in pkgutil.iter_modules(parsers.__path__):
        loaded = importlib.import_module(f"qmigtool.parsers.{module.name}")
        for name, found in vars(loaded).items():
            if isinstance(found, type) and issubclass(found, Record) and found.__module__ == loaded.__name__:
                yield name, found


def test_every_declared_record_has_a_layer():
    declared = dict(every_record())
    del declared["Record"]
    assert {name: cls.record for name, cls in DECLARED.items()} == declared


@pytest.mark.parametrize("name", LAYERS)
def test_no_field_hides_an_attribute_of_scapy(name):
    taken = {*dir(Packet), *Packet.__slots__, "offset", "source", "section", "record"}
    assert not {field.name for field in LAYERS[name].fields_desc} & taken


@pytest.mark.parametrize("name", EXAMPLES)
def test_dissected_built_and_round_trip(name):
    cls = all_records()[name]
    values, text = EXAMPLES[name]
    raw = bytes.fromhex(text)
    made = layer(cls)
    assert made is LAYERS[name]
    assert made.__name__ == name
    packet = made(raw)
    for field, value in values.items():
        if value is not None:
            expected = value.encode() if isinstance(value, str) else list(value) if isinstance(value, tuple) else value
            assert getattr(packet, field) == expected
    assert bytes(packet) == raw
    assert bytes(made(**{field: value for field, value in values.items() if value is not None})) == raw
    packet.clear_cache()
    assert bytes(packet) == raw
    assert bytes(eval(packet.command(), dict(LAYERS))) == raw  # noqa: S307 - scapy's own text


def test_what_follows_is_padding():
    packet = known.FileHeader(b"QEVM\0\0\0\3" + b"rest")
    assert packet[Padding].load == b"rest"
    # A record with a length, or a type byte, is followed by its own record, and then by padding.
    command = known.ItemType(bytes.fromhex("08 0002 0004 00000007") + b"rest")
    assert command.layers() == [known.ItemType, known.CommandHeader, known.Ping, Padding]
    assert (command.value, command.load) == (7, b"rest")
    # A command that has no payload, and one with a payload of another kind.
    assert known.CommandHeader(bytes.fromhex("0001 0000 aa")).layers() == [known.CommandHeader, Padding]
    assert known.CommandHeader(bytes.fromhex("0001 0001 aa bb")).layers() == [known.CommandHeader, Raw, Padding]


def test_names_of_values():
    item = known.ItemType(section_type="QEMU_VM_SECTION_START") / known.SectionHeader(idstr="ram")
    assert bytes(item)[0] == 1
    assert "section_type= QEMU_VM_SECTION_START" in item.show(dump=True)
    assert bytes(known.ItemType() / known.SectionReference(section_id=2)) == b"\x03\0\0\0\2"
    page = known.RamRecord(addr=0x2000, flags="PAGE+CONTINUE", page=b"x")
    assert page.flags == 0x28
    assert bytes(page) == struct.pack(">Q", 0x2028) + b"x" + bytes(4095)
    assert "flags     = PAGE+CONTINUE\n" in page.show(dump=True)
    assert known.RamRecord(flags="EOS+0x400").flags == 0x410
    assert "EOS+0x400" in known.RamRecord(flags=0x410).show(dump=True)
    with pytest.raises(ValueError, match="no value 'NONE'"):
        known.RamRecord(flags="NONE")
    assert bytes(known.MultiFDInit())[:8] == bytes.fromhex("11223344 00000001")
    assert bytes(known.SectionFooter(section_id=1)) == bytes.fromhex("7e 00000001")
    assert bytes(known.FileHeader()) == b"QEVM\0\0\0\3"
    assert "magic     = QEMU_VM_FILE_MAGIC\n" in known.FileHeader().show(dump=True)
    assert "magic     = 0x5145564e\n" in known.FileHeader(magic=0x5145564E).show(dump=True)


def test_lengths_are_computed_if_they_are_not_set():
    assert bytes(known.CommandHeader() / known.PageRequest(start=1, size=2))[:4] == bytes.fromhex("0000 000c")
    assert bytes(known.VmDescriptionHeader() / known.VmDescription(load=b"{}")) == b"\6\0\0\0\2{}"
    assert bytes(known.MessageHeader() / known.NamedPageRequest(idstr="m"))[:4] == bytes.fromhex("0003 000e")
    # Wrong on purpose.
    wrong = known.SectionHeader(section_id=1, idstr_length=9, idstr=b"\xff", instance_id=2, version_id=3)
    assert bytes(wrong).hex() == "0000000109ff0000000200000003"
    assert bytes(known.MessageHeader(length=7) / known.PageRequest())[:4] == bytes.fromhex("0004 0007")


def test_pages_keep_their_zeros():
    raw = struct.pack(">Q", 0x28) + b"\1" + bytes(4095)
    packet = known.RamRecord(raw)
    assert packet.page == b"\1" + bytes(4095)
    assert "page      = b'\\x01' and 4095 zeros" in packet.show(dump=True)
    packet.addr = 0x5000
    assert bytes(packet) == struct.pack(">Q", 0x5028) + raw[8:]


def test_lists_longer_than_a_hundred():
    packet = known.MultiFDPagePacket(ramblock="pc.ram", normal_pages=128, offsets=[4096] * 128)
    raw = bytes(known.MultiFDPagePacket(bytes(packet / b"")[:320] + b"".join(struct.pack(">Q", n) for n in range(128))))
    found = known.MultiFDPagePacket(raw)
    assert found.offsets == list(range(128))
    assert bytes(found) == raw
    assert len(bytes(known.MultiFDPagePacket())) == 320 + 8 * 128


@pytest.mark.parametrize("name", EXAMPLES)
def test_cut_input_is_a_typed_error(name):
    raw = bytes.fromhex(EXAMPLES[name][1])
    whole = {4, 12} if name == "PostcopyRamDiscard" else set()
    for cut in set(range(1, len(raw))) - whole:
        with pytest.raises(TruncatedError) as caught:
            LAYERS[name](raw[:cut])
        assert caught.value.offset == cut
        assert name in caught.value.message


def test_cut_input_in_the_record_that_follows():
    with pytest.raises(TruncatedError) as caught:
        known.ItemType(bytes.fromhex("04 000000"))
    assert caught.value.offset == 4
    assert caught.value.message == "SectionHeader is cut"
    with pytest.raises(TruncatedError):
        known.MessageHeader(bytes.fromhex("0002 0004 0000"))


@pytest.mark.parametrize("name", LAYERS)
def test_fuzz_always_builds(name):
    for _ in range(200):
        raw = bytes(fuzz(LAYERS[name]()))
        assert len(raw) < 4 << 20
    fuzz(LAYERS[name]()).show(dump=True)


@pytest.mark.parametrize("name", LAYERS)
def test_scapy_shows_it(name):
    packet = LAYERS[name]()
    raw = bytes(packet)
    assert packet.show(dump=True).startswith(f"###[ {name} ]###\n")
    assert hexdump(packet, dump=True) == hexdump(raw, dump=True)
    assert packet.json().startswith("{")
    assert f"Fig. {name}" in rfc(LAYERS[name], ret=True)
    assert packet.summary()
    assert bytes(eval(packet.command(), dict(LAYERS))) == raw  # noqa: S307 - scapy's own text


@given(st.sampled_from(sorted(LAYERS)), st.binary(min_size=1, max_size=600))
def test_any_bytes_are_a_record_or_a_typed_error(name, raw):
    try:
        packet = LAYERS[name](raw)
    except StreamError:
        return
    assert bytes(packet) == raw
    packet.show(dump=True)


def test_a_copy_has_its_place():
    packet = known.FileHeader()
    packet.offset, packet.source, packet.section = 8, "main", "ram"
    clone = packet.copy()
    assert (clone.offset, clone.source, clone.section) == (8, "main", "ram")
