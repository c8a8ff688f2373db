"""`qmigtool check` as its users meet it: exit statuses, formats, files."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

import pytest
from junitparser import JUnitXml

from qmigtool.check import RULES
from qmigtool.cli.main import run
from tests.check.checking import edited, poked, sample
from tests.samplefiles import path

PC, KVM = str(path("pc-7.2")), str(path("kvm-avx512-7.2"))


@pytest.fixture
def bad(tmp_path: Path) -> str:
    target = tmp_path / "bad.mig"
    target.write_bytes(poked("kvm-avx512-7.2", {"cpu@0/env.mxcsr": 0x11F80, "cpu@0/env.xcr0": 7}))
    return str(target)


def test_exit_statuses(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut, text, qcow2 = tmp_path / "cut.mig", tmp_path / "text", tmp_path / "q.qcow2"
    cut.write_bytes(sample("pc-7.2")[:500_000])
    text.write_text("this is none")
    qcow2.write_bytes(b"QFI\xfb" + bytes(5000))
    assert run(["check", KVM]) == 0
    assert run(["check", PC]) == 0  # a note
    assert run(["check", PC, "--fail-on", "note"]) == 1
    assert run(["check", bad]) == 1
    assert run(["check", str(cut)]) == 3
    assert run(["check", str(text)]) == 3
    assert run(["check", str(qcow2)]) == 63
    assert run(["check", str(qcow2), "--fail-on", "error"]) == 63
    assert run(["check", str(qcow2), bad]) == 1
    assert run(["check", KVM, bad, str(cut), str(text)]) == 3
    assert run(["check", KVM, str(tmp_path / "none.mig")]) == 2
    assert run(["check"]) == 2
    capsys.readouterr()


def test_text(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", bad, KVM]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{bad}:"
    assert f"{KVM}: nothing found by 32 rules" in lines
    assert lines[-1] == "2 files, 32 rules: 1 error, 1 warning"
    errors = [line for line in lines if line.startswith("  error ")]
    assert len(errors) == 1
    assert re.search(r"cpu@0/env.mxcsr at 0x[0-9a-f]+: MXCSR is 0x11f80", errors[0])
    assert sum("[mxcsr-reserved]" in line for line in lines) == 1


def test_json(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", bad, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["summary"] == {"error": 1, "warning": 1, "note": 0}
    (file,) = document["files"]
    assert (file["file"], file["broken"], len(file["rules"])) == (bad, False, 32)
    wrong = next(one for one in file["findings"] if one["rule"] == "mxcsr-reserved")
    assert (wrong["severity"], wrong["device"], wrong["field"]) == ("error", "cpu@0", "env.mxcsr")
    assert sample("kvm-avx512-7.2")[int(wrong["offset"], 16) :][: wrong["length"]] == bytes.fromhex("00009fc0")


def test_many_reports_in_one_go(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {form: tmp_path / form for form in ("text", "json", "junit", "sarif", "github", "codequality")}
    options = [option for form, name in names.items() for option in ("--report", f"{form}={name}")]
    assert run(["check", bad, KVM, "--format", "github", *options]) == 1
    assert names["github"].read_text() == capsys.readouterr().out
    assert len(json.loads(names["sarif"].read_text())["runs"][0]["results"]) == 2
    assert len(json.loads(names["codequality"].read_text())) == 2
    assert JUnitXml.fromfile(str(names["junit"])).failures == 2
    assert run(["check", bad, KVM]) == 1
    assert capsys.readouterr().out == names["text"].read_text()


def test_output(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.sarif"
    assert run(["check", bad, "--format", "sarif", "-o", str(out)]) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == f"{out}: 1 file, 32 rules: 1 error, 1 warning\n"
    assert json.loads(out.read_text())["version"] == "2.1.0"


@pytest.mark.parametrize("option", [["-o"], ["--report", "json="]])
def test_no_output_takes_the_place_of_an_input(
    option: list[str], bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, base = tmp_path / "policy.toml", tmp_path / "base.toml"
    policy.write_text('extends = "base.toml"\n')
    base.write_text('extends = "nothing"\n')
    for file in (bad, str(policy), str(base)):
        before = Path(file).read_bytes()
        given = [*option[:-1], option[-1] + file] if "=" in option[-1] else [*option, file]
        assert run(["check", bad, "--policy", str(policy), *given]) == 2
        assert Path(file).read_bytes() == before
    assert "is the input" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [["--report", "xml=o"], ["--report", "json"], ["--report", "json=-"], ["--report", "json="], ["--format", "xml"]],
)
def test_wrong_usage(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", KVM, *options]) == 2
    assert run(["check", KVM, PC, "--channel", KVM]) == 2
    assert run(["check", KVM, "--policy", KVM]) == 2
    capsys.readouterr()


def test_list_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--list-rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rule", "severity", "what", "has", "to", "hold"]
    listed = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    assert listed == list(RULES)
    assert run(["check", "--list-rules", "--json", "--policy", str(path("x").parent / "policy.toml")]) == 0
    rules = {rule["id"]: rule for rule in json.loads(capsys.readouterr().out)["rules"]}
    assert rules["vmdesc-present"]["severity"] == "error"
    assert rules["avx512-fleet"]["title"] == "cpu@*/env.xcr0 is 0xe7 and is the same everywhere"


def test_channels(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.packedsamples import packed

    stream = packed("multifd-none-7.2")
    assert run(["check", str(stream.path), "--fail-on", "note"]) == 1
    given = [option for channel in stream.channels for option in ("--channel", str(channel))]
    assert run(["check", str(stream.path), "--fail-on", "note", *given]) == 0
    capsys.readouterr()


def test_names_from_the_file_do_nothing_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file and a device whose names have escapes, line breaks and half a surrogate pair."""
    evil = tmp_path / "e\x1b[31m\n::error::x\udcff.mig"
    evil.write_bytes(edited("q35-7.2", lambda r: r.rename_section("hpet", "h\x1b]0;\n::warning::et")))
    policy = tmp_path / "policy.toml"
    policy.write_text('[rules.devices]\nforbidden = ["h*et"]\n')
    for form in ("text", "json", "junit", "sarif", "github", "codequality"):
        assert run(["check", str(evil), "--policy", str(policy), "--format", form]) == 1
        out = capsys.readouterr().out
        assert "is a device that the policy forbids" in out
        assert "\x1b" not in out
        lines = [line for line in out.splitlines() if line.startswith("::")]
        assert len(lines) == (form == "github")
        out.encode("utf-8", "strict")
        if form in ("sarif", "codequality"):  # no half surrogate pair, escaped or not
            json.dumps(json.loads(out), ensure_ascii=False).encode("utf-8", "strict")
        elif form == "junit":
            (suite,) = JUnitXml.fromstring(out.encode())
            assert "\\x1b[31m\\n::error::x\\udcff" in suite.name


def test_baseline(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", KVM, "--baseline", KVM]) == 0
    assert run(["check", bad, "--baseline", KVM, "--json"]) == 1
    findings = json.loads(capsys.readouterr().out.partition("\n")[2])["files"][0]["findings"]
    assert {one["field"] for one in findings if one["rule"] == "baseline"} == {"env.mxcsr", "env.xcr0"}
    cut = tmp_path / "cut.mig"
    cut.write_bytes(sample("kvm-avx512-7.2")[:-1000])
    assert run(["check", KVM, "--baseline", str(cut)]) == 3
    assert str(cut) in capsys.readouterr().err
    assert run(["check", KVM, "--baseline", str(tmp_path / "none")]) == 2


def test_containers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The offsets of findings are the stream's, and SARIF does not call them the file's."""
    folder = path("x").parent / "containers"
    packed = tmp_path / "vm.mig.xz"
    packed.write_bytes(lzma.compress(sample("pc-7.2"), preset=0))
    assert run(["check", str(packed), "--format", "sarif"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert result["properties"] == {"streamOffset": "0x8063f"}
    assert "byteOffset" not in result["locations"][0]["physicalLocation"]["region"]
    image = folder / "savevm-7.2.qcow2.xz"
    assert run(["check", str(image)]) == 0
    assert run(["check", str(image), "--snapshot", "snap1"]) == 0
    assert run(["check", str(image), "--snapshot", "none"]) == 2
    capsys.readouterr()
