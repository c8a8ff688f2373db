"""Areas in the JSON of virtual machine monitors, selected by key, id or position."""

import json
import re
import struct

import pytest

from qmigtool.errors import LimitError, UnsupportedError, UsageError, XsaveError
from qmigtool.xsave.holders import find_area
from tests.support import casefiles


def test_json_of_cloud_hypervisor():
    data = casefiles.read("xsave", "ch_state.json")
    found = find_area(data, "ch_state.json")
    region = json.loads(data)["cpu_states"][0]["Kvm"]["xsave"]["region"]
    assert found.data == struct.pack("<1024I", *region)
    assert (found.xcr0, found.note) == (0xE7, "area 0 in the document, from 0 (1 in this JSON document)")
    with pytest.raises(UsageError, match="no area 1"):
        find_area(data, "ch_state.json", "1")


def test_json_of_several_vcpus_and_of_other_forms():
    def state(byte, **more):
        return {"xsave": {"region": [byte] * 1024, "extra": [byte] * 8}, **more}

    two = json.dumps({"cpu_states": [{"Kvm": state(1)}, {"Kvm": state(2)}]}).encode()
    with pytest.raises(
        UsageError, match=r"2 vCPUs; select one by its position in the document, from 0 \(expected j#0, j#1\)"
    ):
        find_area(two, "j")
    assert find_area(two, "j", "1").data == b"\2\0\0\0" * 1032
    inside = json.dumps({"snapshot": {"state": json.dumps(state(3))}}).encode()
    assert find_area(inside, "j").data[:4] == b"\3\0\0\0"
    mshv = json.dumps({"Mshv": {"xsave": {"buffer": list(bytes(16)) * 256}}}).encode()
    assert find_area(mshv, "j").data == bytes(4096)
    for wrong in ([1 << 32] * 1024, [-1] * 1024, [1.5] * 1024, [0] * 100, "no", None, [True] * 1024):
        with pytest.raises(UnsupportedError):
            find_area(json.dumps({"xsave": {"region": wrong}}).encode(), "j")


def state_of(byte, **more):
    return {"xsave": {"region": [byte] * 1024}, **more}


def test_a_vcpu_of_json_is_the_one_of_its_key():
    """Cloud Hypervisor sorts its keys as strings: 0, 1, 10, 11, 2."""
    keys = sorted(map(str, range(12)))
    snapshots = {key: {"snapshot_data": {"state": json.dumps(state_of(100 + int(key)))}} for key in keys}
    data = json.dumps({"id": "vm", "snapshots": {"cpu-manager": {"snapshots": snapshots}}}).encode()
    for number in range(12):
        found = find_area(data, "j", str(number))
        assert found.data[0] == 100 + number
        assert f"vCPU {number}, by its key or id" in found.note
    with pytest.raises(UsageError, match=r"12 vCPUs; select one by key or id \(expected j#0, j#1, j#2, j#3, "):
        find_area(data, "j")
    for wrong in ("12", "01", "-1", "+1", " 1"):
        with pytest.raises(UsageError, match=f"no vCPU {re.escape(wrong)} in j"):
            find_area(data, "j", wrong)


def test_a_vcpu_of_json_is_the_one_of_its_id():
    data = json.dumps([state_of(7, id="7"), {"id": 3, "inside": {"Kvm": state_of(3)}}]).encode()
    assert (find_area(data, "j", "7").data[0], find_area(data, "j", "3").data[0]) == (7, 3)
    with pytest.raises(UsageError, match="no vCPU 0 in j"):
        find_area(data, "j", "0")


@pytest.mark.parametrize(
    "document",
    [
        [state_of(5), state_of(6, id=0)],  # one has none
        [state_of(5, id=3), state_of(6, id="3")],  # two have the same
        {"1": [state_of(5), state_of(6)]},  # of the list's, not of its elements'
        [state_of(5, id="a"), state_of(6, id=True)],
    ],
)
def test_without_a_key_of_its_own_an_area_of_json_has_its_place(document):
    data = json.dumps(document).encode()
    for place, byte in enumerate((5, 6)):
        found = find_area(data, "j", str(place))
        assert found.data[0] == byte
        assert found.note == f"area {place} in the document, from 0 (2 in this JSON document)"


def test_a_key_twice_in_json():
    one = json.dumps(state_of(5))
    for text in (f'{{"0": {one}, "0": {one}}}', json.dumps({"state": f'{{"0": {one}, "0": {one}}}'})):
        with pytest.raises(XsaveError, match="has the key '0' twice"):
            find_area(text.encode(), "j")


def test_json_made_to_hurt():
    deep = b"[" * 3000 + b"]" * 3000
    with pytest.raises(UnsupportedError, match="JSON without an xsave region"):
        find_area(deep, "j")
    with pytest.raises(LimitError):
        find_area(b'{"xsave": [' + b"0," * (2 << 20) + b"0]}", "j")
    with pytest.raises(UsageError, match="no area"):
        find_area(json.dumps({"xsave": {"region": [0] * 1024}}).encode(), "j", "\N{SUPERSCRIPT TWO}")
