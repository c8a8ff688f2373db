"""The command `ram`: shapes of its output and exit codes."""

import csv
import io
import json
import subprocess
import sys

import pytest

from tests.cli.calling import BROKEN, document
from tests.support.packedsamples import packed
from tests.support.streamwriter import PAGE


def with_channels(name):
    sample = packed(name)
    return [sample.path, *(part for channel in sample.channels for part in ("--channel", channel))]


def test_ram_json(call):
    found = document(call("ram", packed("plain-7.2").path, "--json"))
    assert set(found) >= {
        "page_size", "blocks", "passes", "sent_pages", "distinct_pages", "rewritten_pages", "zero_ratio",
        "switchover_offset", "bytes_after_switchover", "channels", "page_requests", "problems",
    }  # fmt: skip
    assert (found["page_size"], found["channels"], found["page_requests"], found["problems"]) == (4096, 1, 0, [])
    block = next(one for one in found["blocks"] if one["name"] == "pc.ram")
    assert block == {
        "name": "pc.ram", "size": 16 << 20, "pages": 4096, "sent": 4096, "distinct": 4096, "zero": 3753,
        "elsewhere": False, "by_encoding": {"zero": 3753, "normal": 343}, "absent": 0, "discarded": 0,
    }  # fmt: skip
    assert [one["pass"] for one in found["passes"]] == list(range(len(found["passes"])))
    assert sum(one["pages"] for one in found["passes"]) == found["sent_pages"]
    assert found["rewritten_pages"] == 0


def test_ram_of_a_live_migration(call):
    found = document(call("ram", packed("xbzrle-11.1").path, "--json"))
    block = next(one for one in found["blocks"] if one["name"] == "pc.ram")
    assert block["by_encoding"]["xbzrle"] == 1601
    assert found["rewritten_pages"] == found["sent_pages"] - found["distinct_pages"] > 0
    assert len(found["passes"]) > 1


@pytest.mark.parametrize("name", ["multifd-zstd-7.2", "multifd-none-11.1"])
def test_ram_with_channels(call, name):
    without = document(call("ram", packed(name).path, "--json"))
    found = document(call("ram", *with_channels(name), "--json"))
    assert (without["channels"], found["channels"]) == (1, 3)
    sent = next(one for one in found["blocks"] if one["name"] == "pc.ram")["by_encoding"]
    assert sum(sent.values()) == 4096


def test_ram_with_a_return_path(call):
    found = document(call("ram", *with_channels("postcopy-preempt-7.2"), "--json"))
    assert found["page_requests"] > 100
    assert found["switchover_offset"] is not None
    assert (
        found["bytes_after_switchover"]
        == packed("postcopy-preempt-7.2").path.stat().st_size - found["switchover_offset"]
    )
    human = call("ram", *with_channels("postcopy-preempt-7.2"))[1]
    assert f"pages that the destination asked for: {found['page_requests']}" in human


def test_ram_for_people_and_for_spreadsheets(call):
    code, out, err = call("ram", packed("mapped-ignoreshared-11.1").path)
    assert (code, err) == (0, "")
    assert "not in the stream (shared memory): m" in out
    code, out, err = call("ram", packed("plain-7.2").path, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert any("pc.ram" in row.values() for row in rows)


def test_ram_from_a_pipe(call):
    data = packed("xbzrle-11.1").path.read_bytes()
    one = document(call("ram", "-", "--json", stdin=data))
    two = document(call("ram", packed("xbzrle-11.1").path, "--json"))
    assert one == two


def test_exit_codes_of_ram(call, tmp_path):
    broken, bad = tmp_path / "broken", tmp_path / "channel"
    broken.write_bytes(BROKEN)
    bad.write_bytes(b"\x11\x22\x33\x44 and then nothing")
    assert document(call("ram", broken, "--json"), 3)["problems"]
    assert call("ram", packed("plain-7.2").path, "--channel", bad)[0] == 3
    assert call("ram", tmp_path / "none")[0] not in (0, 70)
    assert call("ram")[0] == 2


def test_the_real_program():
    done = subprocess.run(
        [sys.executable, "-m", "qmigtool", "ram", str(packed("plain-5.2").path), "--json"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["page_size"] == PAGE
