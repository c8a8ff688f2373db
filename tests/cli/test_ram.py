"""The commands `ram`, `rewrite`, `analyze` and `schema learn`: shapes of their output and exit codes."""

import csv
import io
import json
import subprocess
import sys

import pytest

from qmigtool.cli import main
from tests.support import samplefiles
from tests.support.packedsamples import packed
from tests.support.ramwriter import named_page, plain
from tests.support.streamwriter import PAGE

BROKEN = plain(named_page(0, 1), named_page(3, 2)).finish()[:-3000]


@pytest.fixture
def call(capsys, monkeypatch):
    def run(*arguments, stdin=None):
        arguments = [str(one) for one in arguments]
        monkeypatch.setattr(sys, "argv", ["qmigtool", *arguments])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main.run(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def document(result, code=0):
    assert result[0] == code, result
    found = json.loads(result[1])
    assert found.pop("schema") == 1
    return found


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


def test_learn_and_use_a_schema(call, tmp_path):
    schema = tmp_path / "mine.json.xz"
    found = document(
        call("schema", "learn", samplefiles.path("pc-7.2"), samplefiles.path("novmdesc-7.2"), "-o", schema, "--json")
    )
    assert found["devices"] > 20
    assert found["shapes"] >= found["devices"]
    assert found["skipped"] == [str(samplefiles.path("novmdesc-7.2"))]
    shown = document(call("info", samplefiles.path("novmdesc-7.2"), "--schema", schema, "--json"))
    assert shown["schema_name"] == "mine.json.xz"
    code, out, err = call("schema", "learn", samplefiles.path("pc-7.2"), "-o", tmp_path / "m.json", "--name", "n")
    assert (code, out) == (0, "")
    assert "devices" in err
    assert json.loads((tmp_path / "m.json").read_text())["name"] == "n"


def test_exit_codes_of_learn(call, tmp_path):
    assert call("schema", "learn", samplefiles.path("novmdesc-7.2"), "-o", tmp_path / "x")[0] == 63
    assert not (tmp_path / "x").exists()
    source = tmp_path / "in.mig"
    source.write_bytes(samplefiles.read("arm-7.2"))
    assert call("schema", "learn", source, "-o", source)[0] == 2
    assert source.read_bytes() == samplefiles.read("arm-7.2")
    (tmp_path / "bad.json").write_text("{}")
    assert call("info", samplefiles.path("pc-7.2"), "--schema", tmp_path / "bad.json")[0] == 3
    assert call("schema", "learn")[0] == 2


def test_exit_codes_of_analyze(call, tmp_path):
    assert call("analyze", samplefiles.path("arm-7.2"))[0] == 0
    assert call("analyze", samplefiles.path("novmdesc-7.2"), "-d", "desc")[0] == 63
    assert call("analyze", samplefiles.path("pc-7.2"), "-d", "nothing")[0] == 2
    broken = tmp_path / "broken"
    broken.write_bytes(BROKEN)
    assert call("analyze", broken)[0] == 3


def test_exit_codes_of_rewrite(call, tmp_path):
    target = tmp_path / "out"
    assert call("rewrite", samplefiles.path("pc-7.2"))[0] == 2
    code, out, err = call("rewrite", samplefiles.path("arm-7.2"), "-o", target)
    assert (code, out) == (0, "")
    assert "no edits" in err
    broken = tmp_path / "broken"
    broken.write_bytes(BROKEN)
    assert call("rewrite", broken, "-o", target)[0] == 3
    assert document(call("rewrite", samplefiles.path("arm-7.2"), "-o", target, "--json"))["edits"] == []


def test_the_real_program():
    done = subprocess.run(
        [sys.executable, "-m", "qmigtool", "ram", str(packed("plain-5.2").path), "--json"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["page_size"] == PAGE
