"""``qmigtool preflight``: its words, its JSON, its exit status; and targets that are anything but a target."""

from __future__ import annotations

import contextlib
import json
import lzma
import random
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import QmigError
from qmigtool.preflight import read_target
from tests.preflight.recorded import reference
from tests.support import paths
from tests.support.paths import SAMPLES

DATA = paths.DATA / "preflight" / "targets"
PC = str(SAMPLES / "pc-7.2.mig")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the program in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qmigtool", "preflight", *arguments])
        code = main.run(["preflight", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def fresh(tmp_path: Path) -> str:
    """A stream that the machine of pc-7.2.mig saved fresh."""
    path = tmp_path / "fresh.mig"
    path.write_bytes(reference("t00-7.2"))
    return str(path)


def test_it_loads(call: Call, fresh: str) -> None:
    code, out, err = call(PC, "--target", fresh, "--target", "7.2")
    assert code == 0
    assert out.startswith("loads\n")
    assert not err


def test_it_does_not_load(call: Call, tmp_path: Path) -> None:
    aim = tmp_path / "hpet-off.mig"
    aim.write_bytes(reference("t12-7.2"))
    code, out, _ = call(PC, "--target", str(aim), "--target", "7.2")
    lines = out.splitlines()
    with qmigtool.open(PC) as stream:
        offset = stream.device("hpet").section.offset
    assert code == 1
    assert lines[0] == f"does not load: unknown-section at offset {offset:#x} in hpet"
    # Case I7, as QEMU 7.2 printed it.
    assert lines[1:3] == [
        "qemu-system-x86_64: Unknown savevm section or instance 'hpet' 0. Make sure that your current VM setup matches "
        "your saved VM setup, including any hotplugged devices",
        "qemu-system-x86_64: load of migration failed: Invalid argument",
    ]
    assert f"  qmigtool rewrite {PC} --drop-section hpet@0 -o OUT" in lines
    assert "  loses: the state of hpet@0" in lines


def test_it_loads_and_loses(call: Call) -> None:
    code, out, _ = call(str(SAMPLES / "twin-tcg-10.0.mig"), "--target", str(SAMPLES / "target.toml"))
    assert code == 1
    assert out.startswith("loads, but loses state: 2 errors, 2 warnings\n")
    assert "undeclared-state" in out
    assert "--to-accelerator kvm --xcr0 0xe7 -o OUT" in out


def test_the_remedy_says_how_its_output_is_judged(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aim = str(SAMPLES / "target.toml")
    _, out, _ = call(str(SAMPLES / "twin-tcg-10.0.mig"), "--target", aim)
    lines = [line.strip() for line in out.splitlines()]
    rewrite = next(shlex.split(line)[1:] for line in lines if line.startswith("qmigtool rewrite "))
    then = next(shlex.split(line)[4:] for line in lines if line.startswith("to verify: qmigtool preflight "))
    made = str(tmp_path / "made.mig")
    assert main.run([made if word == "OUT" else word for word in rewrite]) == 0
    capsys.readouterr()
    code, out, _ = call(*(made if word == "OUT" else word for word in then))
    assert (code, out.splitlines()[0]) == (0, "loads")
    code, out, _ = call(made, "--target", aim)
    assert code == 63
    said = "loads, but the accelerator that saved the file is unknown: --accelerator NAME decides what it loses"
    assert out.splitlines()[0] == said


def test_a_version_that_is_not_known(call: Call, fresh: str) -> None:
    for version in ("12.0", "11.2", "11.1.50", "999.1", "5.1", "4.2.1"):
        code, out, _ = call(PC, "--target", fresh, "--target", version)
        assert code == 63, version
        assert out.startswith("cannot be decided\n"), version
        assert f"- QEMU {version} is not known (known: 5.2 to 11.1); QEMU " in out


@pytest.mark.parametrize(
    "version", ["5.2", "6.1", "7.2", "8.0", "8.2", "9.1", "10.1", "10.2", "11.0", "11.1", "11.1.3"]
)
def test_a_version_between_those_that_are_known(call: Call, fresh: str, version: str) -> None:
    _, out, _ = call(PC, "--target", fresh, "--target", version)
    assert "is not known (known:" not in out


def test_a_refusal_by_a_version_that_is_not_known(call: Call, tmp_path: Path) -> None:
    aim = tmp_path / "hpet-off.mig"
    aim.write_bytes(reference("t12-7.2"))
    code, out, _ = call(PC, "--target", str(aim), "--target", "12.0", "--json")
    document = json.loads(out)
    assert (code, document["loads"], document["rule"]) == (63, None, None)
    assert any("QEMU 11.1 would refuse it: " in one["message"] for one in document["doubts"])
    other = tmp_path / "other"
    other.write_bytes(b"no stream at all, whatever the version")
    _, out, _ = call(str(other), "--target", "12.0", "--json")
    assert (json.loads(out)["loads"], json.loads(out)["rule"]) == (False, "magic")


def test_json(call: Call) -> None:
    code, out, _ = call(str(SAMPLES / "twin-tcg-10.0.mig"), "--target", str(SAMPLES / "target.toml"), "--json")
    document = json.loads(out)
    assert code == 1
    assert document["schema"] == 1
    assert document["loads"] is True
    assert document["errors"] == []
    assert document["target"]["xcr0"] == "0xe7"
    assert document["target"]["qemu"] == "10.0"
    first = document["losses"][0]
    assert (first["rule"], first["severity"], first["device"]) == ("undeclared-state", "error", "cpu@0")
    with qmigtool.open(SAMPLES / "twin-tcg-10.0.mig") as stream:
        assert first["offset"] == stream.field("cpu@0/env.xstate_bv").offset
    remedy = document["remedy"]
    assert remedy["edits"] == [{"op": "to-accelerator", "name": "kvm", "xcr0": "0xe7"}]
    assert remedy["then"]["loads"] is True
    assert all(one["severity"] == "note" for one in remedy["then_lost"])
    assert remedy["why"] is None
    assert document["problems"] == []


def test_json_of_a_refusal(call: Call, fresh: str) -> None:
    code, out, _ = call(str(SAMPLES / "q35-7.2.mig"), "--target", fresh, "--target", "7.2", "--json")
    document = json.loads(out)
    assert code == 1
    assert (document["loads"], document["rule"], document["section"]) == (False, "machine-type", "configuration")
    assert document["offset"] == 9
    assert document["remedy"]["command"] is None
    assert document["remedy"]["needed"] == ["-M pc-q35-7.2"]


def test_a_target_of_which_little_is_known(call: Call) -> None:
    code, out, _ = call(PC, "--target", "7.2")
    assert code == 63  # neither what loads, nor what does not
    assert out.startswith("cannot be decided\n")
    # One line for all that are alike.
    (line,) = [line for line in out.splitlines() if "the target's format of the section is unknown" in line]
    assert line.startswith("- timer@0, cpu_common@0, cpu@0 and 37 more: ")


def test_what_cannot_be_decided_in_json(call: Call) -> None:
    code, out, _ = call(PC, "--target", "7.2", "--json")
    assert code == 63
    assert json.loads(out)["loads"] is None


def test_a_dump_has_no_list_of_instances(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    path.write_bytes(lzma.decompress((DATA / "dump-pc-7.2.json.xz").read_bytes()))
    code, out, _ = call(PC, "--target", str(path))
    assert code == 63
    (line,) = [line for line in out.splitlines() if "-dump-vmstate" in line]
    assert line.endswith("give a stream saved by the target")


def test_what_is_needed_comes_before_it_loads(call: Call, tmp_path: Path) -> None:
    # The stream has 16 MiB and hpet; the target 15 MiB (t07) and no hpet.
    aim, toml = tmp_path / "t07.mig", tmp_path / "no-hpet.toml"
    aim.write_bytes(reference("t07-7.2"))
    toml.write_text('absent = ["hpet@0"]')
    _, out, _ = call(PC, "--target", str(aim), "--target", str(toml), "--target", "7.2")
    lines = out.splitlines()
    at = lines.index("fix")
    assert lines[at + 1] == f"  qmigtool rewrite {PC} --drop-section hpet@0 -o OUT"
    assert lines[at + 2 : at + 4] == ["  needed: -m 16M", "  with both it loads"]


def test_less_vcpus_than_the_guest_has(call: Call, tmp_path: Path) -> None:
    # As QEMU 7.2 with -smp 1 says it; known with a reference of four, and with none.
    aim, toml = tmp_path / "t00.mig", tmp_path / "one.toml"
    aim.write_bytes(reference("t00-7.2"))
    toml.write_text("vcpus = 1")
    for more in (["--target", str(aim)], []):
        code, out, _ = call(PC, *more, "--target", str(toml), "--target", "7.2")
        assert code == 1
        assert out.splitlines()[1] == (
            "qemu-system-x86_64: Unknown savevm section or instance 'cpu_common' 1. Make sure that your current VM "
            "setup matches your saved VM setup, including any hotplugged devices"
        )
        assert "  needed: -smp 4" in out.splitlines()


def test_a_fix_names_the_command_that_verifies_it(call: Call) -> None:
    _, out, _ = call(str(SAMPLES / "twin-tcg-10.0.mig"), "--target", str(SAMPLES / "target.toml"))
    lines = out.splitlines()
    at = lines.index("fix")
    assert lines[at + 2] == "  after this it loads"
    assert lines[at + 3].startswith("  to verify: qmigtool preflight OUT --target ")


def test_the_template(call: Call) -> None:
    code, out, _ = call("--print-target")
    assert code == 0
    assert out == (SAMPLES / "target.toml").read_text()


def test_colours_on_a_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (str(SAMPLES / "twin-tcg-10.0.mig"), "--target", str(SAMPLES / "target.toml"))
    plain = call(*arguments)[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert call(*arguments)[1] == plain
    monkeypatch.delenv("NO_COLOR")
    coloured = call(*arguments)[1]
    assert "\x1b[31merror\x1b[0m     undeclared-state  " in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_who_saved_it_may_be_given(call: Call, tmp_path: Path) -> None:
    aim = tmp_path / "t.toml"
    aim.write_text('accelerator = "kvm"\nxcr0 = 7')
    _, out, _ = call(str(SAMPLES / "twin-tcg-10.0.mig"), "--target", str(aim), "--accelerator", "kvm", "--json")
    assert "x87-order" not in {one["rule"] for one in json.loads(out)["losses"]}


def test_a_truncated_stream(call: Call, fresh: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.mig"
    path.write_bytes(Path(PC).read_bytes()[:150_000])
    code, out, err = call(str(path), "--target", fresh, "--target", "7.2")
    assert code == 3
    assert out.splitlines()[0].startswith("does not load: ram-cut")
    assert "qemu-system-x86_64: error while loading state section id 2(ram)" in out  # case H1
    assert "broken and cannot be edited" in out
    assert "the stream ends here" in err


def test_no_stream_at_all(call: Call, tmp_path: Path) -> None:
    # Case A1; QEMU waits for ever for the first byte of an empty file (A4).
    path = tmp_path / "x"
    path.write_bytes(b"XEVM" + Path(PC).read_bytes()[4:1000])
    code, out, err = call(str(path), "--target", "7.2")
    assert code == 3
    assert "qemu-system-x86_64: Not a migration stream\n" in out
    assert "not a migration stream" in err
    path.write_bytes(b"")
    code, out, err = call(str(path), "--target", "7.2", "--json")
    assert code == 3
    assert json.loads(out)["loads"] is False


CONTAINERS = sorted((SAMPLES / "containers").iterdir())


@pytest.mark.parametrize("packed", CONTAINERS, ids=lambda path: path.name)
def test_a_stream_in_a_container_begins_where_it_begins(packed: Path, call: Call, tmp_path: Path) -> None:
    path = tmp_path / packed.stem
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    with qmigtool.open(path) as stream:
        container, machine = stream.container, stream.machine
    aim = tmp_path / "t.toml"
    aim.write_text(f'machine = "{machine}"\npage_size = 4096')
    _, out, _ = call(str(path), "--target", str(aim), "--json")
    document = json.loads(out)
    assert container is not None
    assert document["rule"] not in ("magic", "version", "empty", "configuration-missing", "machine-type")
    command = (document["remedy"] or {}).get("command")
    assert command is None or f"rewrite {path} " in command  # and not the flow that was captured
    assert not any("offset=" in note["message"] for note in document["notes"])


def test_usage(call: Call, tmp_path: Path) -> None:
    assert call(PC)[0] == 2
    assert call(PC, "--target", str(tmp_path / "nosuch"))[0] == 2
    code, _, err = call(PC, "--target", str(SAMPLES / "edits.toml"))
    assert code == 2
    assert "edits.toml" in err
    assert call(str(tmp_path / "nosuch"), "--target", "7.2")[0] == 2


def test_names_from_a_file_reach_no_terminal(call: Call, tmp_path: Path) -> None:
    path, aim = tmp_path / "evil.mig", tmp_path / "aim.mig"
    shutil.copy(PC, aim)
    with qmigtool.open(PC) as stream:
        rewriter = qmigtool.Rewriter(stream)
        rewriter.rename_section("hpet", "\x1b[31mred")
        rewriter.save(path)
    code, out, _ = call(str(path), "--target", str(aim), "--target", "7.2")
    assert code == 1
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out


# -- targets that are anything ---------------------------------------------------------------------------------------


def _originals() -> dict[str, bytes]:
    return {
        "toml": (SAMPLES / "target.toml").read_bytes().replace(b'files = ["twin-kvm-10.0.mig"]', b""),
        "session": (DATA / "qmp-session-7.2.json").read_bytes(),
        "partition": (DATA / "partition.txt").read_bytes(),
        "cpuid": (SAMPLES / "cpuid" / "intel-spr-guest.txt").read_bytes(),
        "dump": lzma.decompress((DATA / "dump-pc-7.2.json.xz").read_bytes())[:40_000],
        "stream": reference("t20-7.2"),
    }


@pytest.mark.parametrize("name", sorted(_originals()))
def test_whatever_a_target_is_made_of_it_is_an_error_of_ours(name: str, tmp_path: Path) -> None:
    rng = random.Random(name)  # noqa: S311 - repeatable, not secret
    original = _originals()[name]
    path = tmp_path / "target"
    for _ in range(60):
        raw = bytearray(original)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(raw))
            kind = rng.randrange(3)
            if kind == 0:
                raw[at] = rng.randrange(256)
            elif kind == 1:
                del raw[at : at + rng.randrange(1, 40)]
            else:
                raw[at:at] = raw[rng.randrange(len(raw)) :][: rng.randrange(1, 40)]
            raw = raw or bytearray(b"x")
        path.write_bytes(raw)
        with contextlib.suppress(QmigError):  # any other exception would be a defect
            read_target(str(path))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"return": None},
        {"return": {"model": {"props": {}}}},
        {"model": {"name": [], "props": {"xsave": True}}},
        {"QMP": []},
        {"qemu": {"major": "7"}},
        {"vmschkmachine": {"Name": "pc"}, "x": {"Description": {"name": [], "version_id": 1}}},
        {"XSAVE_STATES": "zzz"},
        [{"capability": 1, "state": True}],
        [[[[[[]]]]]],
    ],
)
def test_json_that_is_no_target(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    with pytest.raises(QmigError):
        read_target(str(path))


def test_json_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a":' * 100_000)
    with pytest.raises(QmigError):
        read_target(str(path))
    path.write_text("{}" * 100_000)
    with pytest.raises(QmigError, match="too many"):
        read_target(str(path))
    path.write_text("[" + "9" * 5000 + "]")
    with pytest.raises(QmigError):
        read_target(str(path))


@pytest.mark.parametrize(
    ("word", "near"),
    [("foo", None), ("q35-7.2", "q35"), ("v7.2", None), ("7,2", None), ("kvmm", "kvm"), ("amd-zen", "amd-zen4")],
)
def test_a_mistaken_target_is_told_what_there_is(call: Call, word: str, near: str | None) -> None:
    code, _, err = call(PC, "--target", word)
    assert code == 2
    assert f"neither a file nor another kind of target: '{word}'" in err
    assert "a version of QEMU (7.2), a machine type or an accelerator" in err
    assert ("close to it" in err) == (near is not None)
    assert near is None or near in err


def test_losses_and_remarks_are_records(call: Call) -> None:
    _, out, _ = call("samples/kvm-avx512-7.2.mig", "--target", "tcg", "--json")
    document = json.loads(out)
    lost = next(one for one in document["losses"] if one["rule"] == "component-not-in-target")
    assert lost["values"]["value"] == "0xe7"
    assert lost["values"]["allowed"] == "0x21f"
    assert lost["values"]["components"] == ["opmask", "ZMM_Hi256", "Hi16_ZMM"]
    assert document["unknown"]
    for one in (*document["unknown"], *document["doubts"], *document["notes"]):
        assert set(one) >= {"rule", "severity", "message", "device", "field", "offset", "values"}


def test_a_signed_number_is_no_register(call: Call) -> None:
    _, out, _ = call("samples/kvm-avx512-7.2.mig", "--target", "mshv", "--json")
    lost = next(one for one in json.loads(out)["losses"] if one["rule"] == "pit-times")
    assert lost["field"] == "channels[0]/count_load_time"
    assert lost["values"] == {"value": -122853, "expected": 16195709936}


def test_what_is_needed_is_named_as_such(call: Call) -> None:
    code, out, _ = call(PC, "--target", "7.2")
    assert code == 63
    lines = out[out.index("needed for a decision") :].splitlines()
    assert lines[1] == "- the machine type of the target"
    assert "- the RAM blocks of the target" in lines
