"""Which snapshot of a qcow2 image is meant, in every command: chosen, listed, or said to hold no machine."""

import json
import struct

import pytest

import qmigtool
from qmigtool.errors import SnapshotsError, UnsupportedError, UsageError
from tests.support import casefiles, samplefiles

PLAIN = str(samplefiles.path("pc-7.2"))


def image_with(*extra):
    """A real image with one snapshot, and more entries (id, name, live) in its table; a live one has the same state."""
    data = bytearray(samplefiles.container("savevm-7.2.qcow2"))
    count, at = struct.unpack_from(">IQ", data, 60)
    assert count == 1
    _, _, id_length, name_length = struct.unpack_from(">QIHH", data, at)
    (more,) = struct.unpack_from(">I", data, at + 36)
    entry = bytes(data[at : at + 40 + more + id_length + name_length])
    table = entry.ljust(-(-len(entry) // 8) * 8, b"\0")
    for id_, name, live in extra:
        head = bytearray(entry[: 40 + more])
        struct.pack_into(">HH", head, 12, len(id_), len(name))
        if not live:
            struct.pack_into(">I", head, 32, 0)
            struct.pack_into(">Q", head, 40, 0)
        one = bytes(head) + id_.encode() + name.encode()
        table += one.ljust(-(-len(one) // 8) * 8, b"\0")
    data += bytes(-len(data) % 65536)
    struct.pack_into(">IQ", data, 60, 1 + len(extra), len(data))
    return bytes(data + table)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "vm.qcow2"
    path.write_bytes(image_with(("2", "two", True), ("3", "disk", False)))
    return str(path)


def test_info_lists_them(call, image):
    status, out, err = call("info", image)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "container     qcow2",
        "snapshots     snap1 (id 1): 681.7 KiB (698078 bytes) of machine state (--snapshot snap1)",
        "              two (id 2): 681.7 KiB (698078 bytes) of machine state (--snapshot two)",
        "              disk (id 3): disks alone",
    ]
    status, out, _ = call("info", image, "--json")
    found = json.loads(out)
    assert status == 0
    assert [(one["name"], one["id"]) for one in found["snapshots"]] == [("snap1", "1"), ("two", "2"), ("disk", "3")]


def test_one_of_a_machine_beside_disks_needs_no_choice(call, tmp_path):
    path = tmp_path / "vm.qcow2"
    path.write_bytes(image_with(("3", "disk", False)))
    status, out, _ = call("info", str(path), "--json")
    assert status == 0
    assert json.loads(out)["container_details"]["snapshot"] == "snap1"


COMMANDS = [
    ["info", "{}"],
    ["sections", "{}"],
    ["show", "{}", "cpu/env.xcr0"],
    ["analyze", "{}"],
    ["ram", "{}"],
    ["check", "{}", "--fail-on", "error"],
    ["xsave", "table", "{}"],
    ["xsave", "export", "{}", "--vcpu", "0", "--format", "standard", "--layout", "intel-skl", "-o", "/dev/null"],
    ["rewrite", "{}", "-o", "/dev/null"],
    ["preflight", "{}", "--target", "7.2"],
    ["diff", "{}", "{}"],
    ["schema", "learn", "{}", "-o", "/dev/null"],
    ["schema", "diff", "{}", "{}"],
    ["schema", "diff", "{}", "{}", "--devices", "{}"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_snapshot_reads_the_same_in_every_command(call, image, command):
    arguments = [part.format(image) for part in command]
    first, out, err = call(*arguments, "--snapshot", "two")
    assert (out, err) == call(*arguments, "--snapshot", "2")[1:]
    assert first in (0, 1, 63)
    assert "snapshot" not in err
    for name, status, words in (("disk", 63, "snapshot 'disk' has no machine state"), ("x", 2, "no snapshot 'x'")):
        found, out, err = call(*arguments, "--snapshot", name)
        assert found == status, (name, err)
        assert words in out + err  # to `check` it is a finding


def test_two_images_are_named_apart(call, image, tmp_path):
    status, out, _ = call("diff", image, image, "--snapshot-a", "snap1", "--snapshot-b", "two")
    assert status == 0
    assert f"A  {image} (snapshot 'snap1')" in out
    assert f"B  {image} (snapshot 'two')" in out
    found = json.loads(call("diff", image, image, "--snapshot", "snap1", "--snapshot-b", "two", "--json")[1])
    assert (found["a"]["snapshot"], found["b"]["snapshot"]) == ("snap1", "two")
    assert call("diff", image, image, "--base", image, "--snapshot", "snap1")[0] == 0
    assert call("diff", PLAIN, image, "--snapshot-b", "two")[0] == 1
    assert call("diff", PLAIN, image)[0] == 2
    assert call("schema", "diff", PLAIN, image, "--snapshot-b", "two")[0] in (0, 1)
    assert call("check", PLAIN, "--baseline", image, "--baseline-snapshot", "two")[0] == 1


def test_a_reference_in_an_image(call, image):
    assert call("preflight", PLAIN, "--target", f"{image}#two")[0] in (0, 1, 63)
    status, _, err = call("preflight", PLAIN, "--target", image)
    assert status == 2
    assert "vm.qcow2#snap1, vm.qcow2#two" in err


def test_a_snapshot_of_a_disk(call, tmp_path):
    path = casefiles.put("load", "n.qcow2", tmp_path)
    status, _, err = call("info", path, "--snapshot", "suspend")
    assert status == 63
    assert "snapshot 'suspend' has no machine state" in err
    status, _, err = call("info", path)
    assert status == 63
    assert "without a snapshot of a running machine: its snapshots are of disks only, 'suspend' (id 1)" in err


def test_in_python(image):
    with pytest.raises(SnapshotsError) as caught:
        qmigtool.open(image)
    assert [one["id"] for one in caught.value.snapshots] == ["1", "2", "3"]
    with pytest.raises(UnsupportedError, match="no machine state"):
        qmigtool.open(image, snapshot="3")
    with pytest.raises(UsageError, match="no snapshot"):
        qmigtool.open(image, snapshot="four")
