"""``dissect``: the bytes that it shows are those of the file, each once, and the values are those that they encode."""

import json
import struct

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.documents import dissect
from tests.support import samplefiles
from tests.support.paths import SAMPLES

PC = samplefiles.path("pc-7.2")


def document(capsys, *arguments):
    assert run(["dissect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def bytes_of(record):
    """Join the bytes of the fields; the two fields of a word have the same."""
    found, end = b"", record["offset"]
    for field in record["fields"]:
        if field["offset"] < end:
            assert field["name"] == "flags"
            continue
        assert field["offset"] == end
        found += bytes.fromhex(field["hex"])
        end += field["length"]
    return found


def test_the_list_covers_the_stream(capsys):
    found = document(capsys, PC)
    assert found["schema"] == 1
    assert found["complete"] is True
    records = found["records"]
    assert [one["record"] for one in records] == list(range(len(records)))
    assert [one["offset"] for one in records[1:]] == [one["offset"] + one["length"] for one in records[:-1]]
    assert records[-1]["offset"] + records[-1]["length"] == PC.stat().st_size
    assert records[0] == {
        "record": 0, "name": "FileHeader", "source": "main", "section": None, "offset": 0, "length": 8,
    }  # fmt: skip
    assert run(["dissect", str(PC)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(records) + 1
    assert lines[1].split() == ["0", "0x0", "8", "FileHeader"]


def test_a_record_by_offset_and_by_number(capsys):
    by_offset = document(capsys, PC, "--offset", "0x35")["records"]
    raw = PC.read_bytes()
    (record,) = by_offset
    assert (record["name"], record["offset"], record["length"]) == ("RamBlockHeader", 0x33, 15)
    assert [(one["name"], one["value"]) for one in record["fields"]] == [
        ("idstr_length", "6"),
        ("idstr", "b'pc.ram'"),
        ("used_length", hex(struct.unpack(">Q", raw[0x3A:0x42])[0])),
    ]
    assert bytes_of(record) == raw[0x33:0x42]
    assert document(capsys, PC, "--record", "4")["records"] == by_offset
    assert run(["dissect", str(PC), "--offset", "0x35"]) == 0
    assert "    0x000034  70 63 2e 72 61 6d  " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pc-7.2", "kvm-avx512-7.2", "microvm-10.0", "arm-7.2"])
def test_every_byte_of_device_state_is_a_field(name, capsys):
    path = samplefiles.path(name)
    raw = path.read_bytes()
    with qmigtool.open(path) as stream:
        for device in stream.devices:
            head, body, *rest = document(capsys, path, "--section", device.label)["records"]
            assert head["name"] == "ItemType/SectionHeader"
            assert body["name"] == "DeviceState"
            assert [one["name"] for one in rest] == ["SectionFooter"]
            for record in (head, body, *rest):
                assert bytes_of(record) == raw[record["offset"] : record["offset"] + record["length"]]
            assert "(not described)" not in [one["name"] for one in body["fields"]]


def test_subsections_have_their_header(capsys):
    _, body, _ = document(capsys, PC, "--section", "cpu@1")["records"]
    heads = [one["value"] for one in body["fields"] if (one["layer"], one["name"]) == ("Subsection", "idstr")]
    assert heads
    assert {one["value"] for one in body["fields"] if one["name"] == "marker"} == {"QEMU_VM_SUBSECTION"}


def test_a_section_with_many_records_says_what_is_not_shown(capsys):
    assert run(["dissect", str(PC), "--section", "ram"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n\n") == 99
    assert "more records of ram are not shown" in printed.err


def test_a_list_has_an_end(capsys, monkeypatch):
    monkeypatch.setattr(dissect, "MOST", 20)
    assert run(["dissect", str(PC)]) == 63
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 21
    assert "only the first 20 records are listed" in printed.err
    assert run(["dissect", str(PC), "--json"]) == 63
    assert len(json.loads(capsys.readouterr().out)["records"]) == 20


def test_channels_and_containers(capsys):
    found = document(capsys, SAMPLES / "containers/postcopy-10.0.pcap.xz")["records"]
    assert {one["source"] for one in found} == {"main", "channel 0: return path"}
    first = next(one["record"] for one in found if one["source"] != "main")
    (message,) = document(capsys, SAMPLES / "containers/postcopy-10.0.pcap.xz", "--record", first)["records"]
    assert [one["value"] for one in message["fields"]] == ["MIG_RP_MSG_PONG", "4", "1"]
    channel = SAMPLES / "packed/multifd-none-7.2.ch0.bin.xz"
    found = document(capsys, SAMPLES / "packed/multifd-none-7.2.mig.xz", "--channel", channel)["records"]
    assert {one["name"] for one in found if one["source"] == "channel 0: multifd"} == {
        "MultiFDInit",
        "MultiFDPagePacket",
    }
    assert run(["dissect", str(SAMPLES / "containers/savevm-7.2.qcow2.xz"), "--record", "0"]) == 0
    assert capsys.readouterr().out.startswith("Qcow2Header at 0x0 of qcow2 image, 104 bytes\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--record", "99999"], "no record 99999"),
        (["--offset", "99999999"], "no byte 0x5f5e0ff in the stream"),
        (["--section", "nothing"], "no section 'nothing'"),
        (["--section", "ram", "--record", "1"], "choose the same thing"),
        (["--record", "x"], "--record is 'x'"),
    ],
)
def test_what_is_not_there_is_wrong_usage(options, words, capsys):
    assert run(["dissect", str(PC), *options]) == 2
    assert words in capsys.readouterr().err


def test_a_truncated_stream(tmp_path, capsys):
    path = tmp_path / "cut.mig"
    path.write_bytes(PC.read_bytes()[:100_000])
    assert run(["dissect", str(path)]) == 3
    printed = capsys.readouterr()
    assert "Unparsed" in printed.out.splitlines()[-1]
    assert "the stream ends here" in printed.err
    assert run(["dissect", str(path), "--offset", "99999"]) == 3
    assert capsys.readouterr().out.startswith("Unparsed at ")


def test_wrong_options_are_named(capsys) -> None:
    for option in ("--offset", "--record"):
        assert run(["dissect", str(PC), option, "foo"]) == 2
        assert f"{option} is 'foo' (expected a number" in capsys.readouterr().err
    assert run(["dissect", str(PC), "--section", "hpett"]) == 2
    assert "no section 'hpett' (expected one like hpet; " in capsys.readouterr().err
