"""Documents that others wrote are refused where what is made of them would not find room."""

import json
from pathlib import Path

import pytest

from qmigtool.errors import BudgetError
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.vmstatedump import parse_vmstate_dump
from qmigtool.preflight.target.readers import read_target
from qmigtool.util.budget import Limits, limited
from qmigtool.util.documents import load_json
from qmigtool.util.toml import parse_toml

LISTS = b"[], " * 1_000_000 + b"1"
DEVICE = b'{"name": "a%d", "instance_id": 0, "vmsd_name": "x", "version": 1, "fields": []}'


def vmdesc(devices: bytes) -> bytes:
    return b'{"page_size": 4096, "devices": [' + devices + b"]}"


@pytest.mark.parametrize(
    "text",
    [
        vmdesc(b", ".join(DEVICE % i for i in range(20_000))),
        vmdesc(LISTS),
        vmdesc(b'{"name": "a", "instance_id": 0, "vmsd_name": "x", "version": 1, "fields": [' + LISTS + b"]}"),
        vmdesc(DEVICE % 1)[:-1] + b', "more": [' + LISTS + b"]}",
    ],
    ids=["devices", "no-devices", "in-a-device", "beside-them"],
)
def test_a_vmdesc(text: bytes) -> None:
    with limited(Limits(memory=24 << 20)) as budget:
        with pytest.raises(BudgetError, match="bytes of memory") as raised:
            parse_vmdesc(text, 0x100)
        assert (raised.value.offset, raised.value.section) == (0x100, "vmdesc")
        budget.charge("memory", 20 << 20)  # nothing of it stays charged


def test_devices_stay_charged() -> None:
    with limited(Limits(memory=4 << 20)) as budget:
        assert len(parse_vmdesc(vmdesc(b", ".join(DEVICE % i for i in range(2000)))).devices) == 2000
        with pytest.raises(BudgetError):
            budget.charge("memory", 2 << 20)


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, 60_000, 3_000_000])
def test_a_device_of_any_length(size: int) -> None:
    """It is looked at in pieces, which end anywhere in it."""
    fields = [{"name": f"f{i}", "type": "uint8", "size": 1} for i in range(size // 50)]
    device = {"name": "a", "instance_id": 0, "vmsd_name": "x", "version": 1, "fields": fields}
    found = parse_vmdesc(json.dumps({"page_size": 4096, "devices": [device, device]}).encode())
    assert [(one.size, len(one.description.fields)) for one in found.devices] == [(len(fields), len(fields))] * 2


@pytest.mark.slow
def test_a_dump_and_any_json() -> None:
    text = b'{"vmschkmachine": {"Name": "q35"}, "a": [' + LISTS + b"]}"
    with limited(Limits(memory=24 << 20)):
        with pytest.raises(BudgetError, match="in vmstate dump"):
            parse_vmstate_dump(text)
        with pytest.raises(BudgetError):
            load_json(text.decode())
    assert len(load_json(text.decode())["a"]) == 1_000_001


def test_a_target(tmp_path: Path) -> None:
    file = tmp_path / "target.json"
    file.write_bytes(b"[" + LISTS + b"]")
    with limited(Limits(memory=24 << 20)), pytest.raises(BudgetError, match="bytes of memory") as raised:
        read_target(str(file))
    assert raised.value.file == str(file)


@pytest.mark.parametrize("text", ["a = [" + "[]," * 600_000 + "]", "".join(f"a{i}=1\n" for i in range(150_000))])
def test_toml(text: str) -> None:
    with limited(Limits(memory=24 << 20)), pytest.raises(BudgetError, match="in edits"):
        parse_toml(text, "edits", limit=64 << 20)


def test_small_documents_are_not_counted() -> None:
    with limited(Limits(memory=0)):
        assert load_json('{"a": [1, 2]}') == {"a": [1, 2]}
        assert parse_toml("a = 1", "edits") == {"a": 1}
