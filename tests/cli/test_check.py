"""`qmigtool check` as its users meet it: exit statuses, formats, files."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
import shutil
import struct
import tomllib
from pathlib import Path

import pytest
from junitparser import JUnitXml

from qmigtool.check import RULES, default_policy
from qmigtool.cli.main import run
from tests.check.checking import edited, poked, sample
from tests.support.samplefiles import path

COUNT = len(default_policy().rules) - 1  # without `baseline`
PC, KVM = str(path("pc-7.2")), str(path("kvm-avx512-7.2"))


@pytest.fixture
def bad(tmp_path: Path) -> str:
    target = tmp_path / "bad.mig"
    target.write_bytes(poked("kvm-avx512-7.2", {"cpu@0/env.mxcsr": 0x11F80, "cpu@0/env.xcr0": 7}))
    return str(target)


def test_findings_have_their_numbers_as_fields(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", bad, "--format", "json"]) == 1
    found = {one["rule"]: one["values"] for one in json.loads(capsys.readouterr().out)["files"][0]["findings"]}
    assert found["mxcsr-reserved"]["value"] == 0x11F80
    outside = found["xstate-bv-within-xcr0"]
    assert outside == {"value": "0xe7", "xcr0": "0x7", "components": ["opmask", "ZMM_Hi256", "Hi16_ZMM"]}


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
    assert f"{KVM}: nothing found by {COUNT} rules" in lines
    assert lines[-1] == f"2 files, {COUNT} rules: 1 error, 1 warning"
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
    assert (file["file"], file["broken"], len(file["rules"])) == (bad, False, COUNT)
    wrong = next(one for one in file["findings"] if one["rule"] == "mxcsr-reserved")
    assert (wrong["severity"], wrong["device"], wrong["field"]) == ("error", "cpu@0", "env.mxcsr")
    assert sample("kvm-avx512-7.2")[wrong["offset"] :][: wrong["length"]] == bytes.fromhex("00009fc0")


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
    assert streams.err == f"{out}: 1 file, {COUNT} rules: 1 error, 1 warning\n"
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


def test_print_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default policy is printed with its comments."""
    assert run(["check", "--print-policy"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# The default policy of `qmigtool check`")
    assert "[[field]]" in printed
    assert list(tomllib.loads(printed)["rules"]) == list(RULES)
    policy = tmp_path / "policy.toml"
    policy.write_text(printed)
    assert run(["check", "--list-rules"]) == 0
    listed = capsys.readouterr().out
    for named in (str(policy), "default"):
        assert run(["check", "--list-rules", "--policy", named]) == 0
        assert capsys.readouterr().out == listed
    assert run(["check", "--print-policy", "--policy", "default"]) == 0
    assert capsys.readouterr().out == printed
    assert run(["check", "--help"]) == 0
    assert "--print-policy" in capsys.readouterr().out


def test_policies_with_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for named, rules in (("default", COUNT), ("nothing", 2)):
        assert run(["check", KVM, "--policy", named, "--policy", named, "--report", f"text={out}"]) == 0
        assert capsys.readouterr().out == f"{KVM}: nothing found by {rules} rules\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([KVM, "--json", "--format", "junit"], "--json contradicts --format junit"),
        ([KVM, "--json", "--format", "text"], "--json contradicts --format text"),
        (["--list-rules", "--format", "sarif"], "rules are not listed as sarif"),
        (["--list-rules", KVM], "only print"),
        (["--list-rules", "-o", "x"], "only print"),
        (["--print-policy", KVM], "only print"),
        (["--print-policy", "--list-rules"], "only print"),
        (["--print-policy", "--report", "json=x"], "only print"),
        (["--print-policy", "--policy", "x"], "prints the default policy"),
        (["--print-policy", "--json"], "prints the default policy"),
    ],
)
def test_options_that_contradict_each_other(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", *options]) == 2
    streams = capsys.readouterr()
    assert says in streams.err


def test_json_is_no_contradiction_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", KVM, "--json"]) == 0
    plain = capsys.readouterr().out
    assert run(["check", KVM, "--json", "--format", "json"]) == 0
    assert capsys.readouterr().out == plain


def test_a_folder_stands_for_its_streams(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(bad, folder / "b.mig")
    shutil.copy(bad, folder / "inner" / "not-this.mig")
    shutil.copy(KVM, folder / "-")
    (folder / "a.mig.gz").write_bytes(gzip.compress(sample("kvm-avx512-7.2"), 1))
    (folder / "late").write_bytes(bytes(8192) + sample("kvm-avx512-7.2"))  # migrate file:late,offset=8192
    for name, data in (
        ("notes.txt", b"seen"),
        ("notes.gz", gzip.compress(b"seen")),
        ("empty", b""),
        ("channel", b"\x11\x22\x33\x44\0\0\0\1"),
        (
            "disk.qcow2",
            b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 2, 0, 0, 16, 1 << 20, 0, 1, 1 << 16, 1 << 17, 1, 0, 0),
        ),
        ("e\x1b[1m", b"x"),
    ):
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe")
    assert run(["check", str(folder), "--json"]) == 1
    streams = capsys.readouterr()
    files = json.loads(streams.out)["files"]
    assert [one["file"] for one in files] == [f"{folder}/{name}" for name in ("-", "a.mig.gz", "b.mig", "late")]
    assert [bool(one["findings"]) for one in files] == [False, False, True, False]
    assert streams.err == (
        f"{folder}: skipped, not streams: channel, disk.qcow2, e\\x1b[1m, empty, inner, notes.gz, notes.txt, pipe\n"
    )
    assert run(["check", f"{folder}/", KVM, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["files"]) == 5
    assert run(["check", str(folder), "--channel", KVM]) == 2
    capsys.readouterr()


def test_a_folder_that_is_named_by_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file called - in it is not standard input."""
    shutil.copy(KVM, tmp_path / "-")
    monkeypatch.chdir(tmp_path)
    assert run(["check", "."]) == 0
    assert capsys.readouterr().out == f"./-: nothing found by {COUNT} rules\n"


def test_a_folder_without_streams_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(tmp_path)]) == 2
    (tmp_path / "notes").write_text("seen")
    assert run(["check", str(tmp_path), KVM]) == 2
    assert "no migration stream in the folder" in capsys.readouterr().err


def test_a_folder_keeps_what_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that begins like a stream, or cannot be looked at, is not skipped silently."""
    (tmp_path / "cut.mig").write_bytes(sample("pc-7.2")[:12])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(sample("pc-7.2"))[:5])
    (tmp_path / "gone").symlink_to("nowhere")
    assert run(["check", str(tmp_path), "--json"]) == 2
    streams = capsys.readouterr()
    assert [one["opened"] for one in json.loads(streams.out)["files"]] == [True, True, False]
    assert "skipped" not in streams.err


def test_a_file_that_is_not_there_keeps_none_from_being_checked(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none, xml = str(tmp_path / "none.mig"), tmp_path / "out.xml"
    assert run(["check", none, bad, KVM, "--json", "--report", f"junit={xml}"]) == 2
    streams = capsys.readouterr()
    files = json.loads(streams.out)["files"]
    assert [(one["file"], one["opened"], one["broken"]) for one in files] == [
        (none, False, True),
        (bad, True, False),
        (KVM, True, False),
    ]
    assert [finding["message"] for finding in files[0]["findings"]] == ["No such file or directory"]
    assert streams.err == f"qmigtool: {none}: No such file or directory\n"
    suites = JUnitXml.fromfile(str(xml))
    assert (suites.errors, suites.failures) == (1, 2)
    # What is not there weighs more than what is broken: it was not even looked at.
    cut = tmp_path / "cut.mig"
    cut.write_bytes(sample("pc-7.2")[:500_000])
    assert run(["check", str(cut), none]) == 2
    capsys.readouterr()
    # One that is no snapshot's image is not opened either; alone, it is the option that is wrong.
    image = path("x").parent / "containers" / "savevm-7.2.qcow2.xz"
    assert run(["check", str(image), KVM, "--snapshot", "snap1", "--json"]) == 2
    files = json.loads(capsys.readouterr().out)["files"]
    assert [one["opened"] for one in files] == [True, False]
    # Options are asked of all files: they are no file's fault.
    assert run(["check", KVM, bad, "--schema", none, "-o", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()
    capsys.readouterr()


def test_the_terminal_is_as_wide_as_it_is(
    bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", bad]) == 1
    plain = capsys.readouterr().out
    for columns in (60, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run(["check", bad]) == 1
        shown = capsys.readouterr().out
        head, *rest = shown.splitlines()
        assert head == f"{bad}:"
        assert columns - 25 < max(map(len, rest)) <= columns
        assert shown.split() == plain.split()


def test_channels(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.packedsamples import packed

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


def test_two_reports_want_two_files(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    pc = str(path("pc-7.2"))
    assert run(["check", pc, "--report", f"junit={out}", "--report", f"sarif={out}"]) == 2
    assert run(["check", pc, "--report", f"junit={out}", "-o", f"{tmp_path}/./out"]) == 2
    assert not Path(out).exists()


def test_a_folder_of_baselines_is_matched_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, other in ((old, "pc-7.2"), (new, "q35-7.2")):
        folder.mkdir()
        (folder / "a.mig").write_bytes(path("microvm-10.0").read_bytes())
        (folder / "b.mig").write_bytes(path(other).read_bytes())
    run(["check", str(new), "--baseline", str(old), "--json"])
    files = {Path(one["file"]).name: one for one in json.loads(capsys.readouterr().out)["files"]}
    differing = {name: [f for f in one["findings"] if f["rule"] == "baseline"] for name, one in files.items()}
    assert not differing["a.mig"]
    assert differing["b.mig"]
    (old / "b.mig").unlink()
    assert run(["check", str(new), "--baseline", str(old)]) == 2
    assert "for b.mig" in capsys.readouterr().err
