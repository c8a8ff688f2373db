"""Other distributions add rules, formats and containers: tried with a small one, installed by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import SAMPLES

STREAM = SAMPLES / "pc-7.2.mig"
MODULE = """
from qmigtool.check.rule import on, rule
from qmigtool.stream.containers import Packing


@rule("house-no-hpet", "The machine has no HPET", "The house does not support it.", severity="error")
def no_hpet(context, options):
    for device in context.named("hpet"):
        yield on(device, "there is an HPET")


def csv(reports, threshold, version):
    return "".join(f"{one.rule},{one.device}\\n" for report in reports for one in report.findings)


def swapped(data):
    for at in range(8, len(data), 4096):
        yield bytes(byte ^ 0xFF for byte in data[at : at + 4096])


INVERTED = Packing("inverted", b"INVERTED", swapped)
BROKEN = Packing("inverted", b"INVERTED", lambda data: 1 // 0)
OTHER = object()
"""
ENTRIES = """
[qmigtool.rules]
house = house:no_hpet

[qmigtool.formats]
csv = house:csv

[qmigtool.containers]
inverted = house:INVERTED
"""


def install(place: Path, entries: str = ENTRIES) -> dict[str, str]:
    """Put a distribution in a folder; return the environment in which it is installed."""
    (place / "house.py").write_text(MODULE, encoding="utf-8")
    info = place / "house_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-rules\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entries, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(place)}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmigtool", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def inverted(tmp_path: Path) -> str:
    path = tmp_path / "inverted"
    path.write_bytes(b"INVERTED" + bytes(byte ^ 0xFF for byte in STREAM.read_bytes()))
    return str(path)


def test_a_rule_and_a_format(tmp_path: Path) -> None:
    done = run(install(tmp_path), "check", str(STREAM), "--format", "csv")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "house-no-hpet,hpet@0")
    listed = run({**os.environ, "PYTHONPATH": str(tmp_path)}, "check", "--list-rules", "--json")
    assert "house-no-hpet" in listed.stdout


def test_a_policy_sets_an_installed_rule(tmp_path: Path) -> None:
    environment = install(tmp_path)
    policy = tmp_path / "policy.toml"
    policy.write_text('[rules.house-no-hpet]\nseverity = "off"\n', encoding="utf-8")
    assert run(environment, "check", str(STREAM), "--policy", str(policy)).returncode == 0


def test_a_container(tmp_path: Path, inverted: str) -> None:
    environment = install(tmp_path)
    document = json.loads(run(environment, "info", inverted, "--json").stdout)
    assert (document["container"], document["machine"]) == ("inverted", "pc-i440fx-7.2")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(Path(inverted).read_bytes())
    (folder / "b").write_bytes(b"no stream")
    done = run(environment, "check", str(folder), "--format", "csv")
    assert done.stdout.splitlines()[-1] == "house-no-hpet,hpet@0"
    assert "skipped" in done.stderr


def test_without_the_distribution(inverted: str) -> None:
    assert run({**os.environ}, "info", inverted).returncode == 3
    done = run({**os.environ}, "check", str(STREAM), "--format", "csv")
    assert done.returncode == 2
    assert "codequality" in done.stderr


@pytest.mark.parametrize(
    ("entries", "words", "told"),
    [
        ("[qmigtool.rules]\nx = house:OTHER\n", ("check", str(STREAM)), "CheckRule"),
        ("[qmigtool.rules]\nx = house:no_hpet\ny = house:no_hpet\n", ("check", str(STREAM)), "exists already"),
        ("[qmigtool.rules]\nx = nowhere:x\n", ("check", str(STREAM)), "cannot be loaded"),
        ("[qmigtool.formats]\njunit = house:csv\n", ("check", str(STREAM), "--format", "text"), "another format"),
        ("[qmigtool.containers]\nx = house:OTHER\n", ("info", "INVERTED"), "Packing"),
    ],
)
def test_a_distribution_that_does_not_fit(
    tmp_path: Path, inverted: str, entries: str, words: tuple[str, ...], told: str
) -> None:
    done = run(install(tmp_path, entries), *(inverted if word == "INVERTED" else word for word in words))
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "house-rules" in done.stderr


def test_a_container_that_fails_is_a_broken_input(tmp_path: Path, inverted: str) -> None:
    done = run(install(tmp_path, "[qmigtool.containers]\nx = house:BROKEN\n"), "info", inverted)
    assert done.returncode == 3
    assert "inverted cannot be read: ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit", "raise GeneratorExit", "1 // 0"])
@pytest.mark.parametrize("group", ["rules", "formats", "containers"])
def test_a_distribution_that_exits_on_import_is_named(tmp_path: Path, group: str, code: str) -> None:
    environment = install(tmp_path, f"[qmigtool.{group}]\nx = house:x\n")
    (tmp_path / "house.py").write_text(code, encoding="utf-8")
    (tmp_path / "other").write_bytes(b"neither a stream nor a container that is known")
    done = run(environment, "check", str(STREAM if group != "containers" else tmp_path / "other"), "--format", "junit")
    assert done.returncode == 2
    assert "house-rules" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "code", ["sys.exit(0)", "1 // 0", "return None", "return b'x'", "raise OSError(2, 'x', 'y')", "raise KeyError"]
)
def test_a_format_that_fails_is_named(tmp_path: Path, code: str) -> None:
    environment = install(tmp_path, "[qmigtool.formats]\nx = house:x\n")
    (tmp_path / "house.py").write_text(f"import sys\ndef x(*_):\n    {code}\n", encoding="utf-8")
    for words in (["--format", "x"], ["--report", f"x={tmp_path}/out"]):
        done = run(environment, "check", str(STREAM), *words)
        assert done.returncode == 2
        assert "the entry point 'x' of house-rules" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_container_that_exits_is_an_error(tmp_path: Path, inverted: str) -> None:
    environment = install(tmp_path, "[qmigtool.containers]\ninverted = house:EXITS\n")
    more = "\nimport sys\nEXITS = Packing('inverted', b'INVERTED', lambda data: sys.exit(0))\n"
    (tmp_path / "house.py").write_text(MODULE + more, encoding="utf-8")
    done = run(environment, "info", inverted)
    assert done.returncode == 3
    assert "SystemExit" in done.stderr


@pytest.mark.parametrize("code", ["sys.exit(0)", "1 // 0", "yield 'text'", "raise OSError(2, 'x', 'y')", "return 5"])
def test_a_rule_that_fails_is_named(tmp_path: Path, code: str) -> None:
    environment = install(tmp_path, "[qmigtool.rules]\nx = house:x\n")
    rule = f'@rule("r", "t", "w")\ndef x(context, options):\n    {code}\n'
    (tmp_path / "house.py").write_text(f"import sys\nfrom qmigtool.check.rule import rule\n{rule}", encoding="utf-8")
    done = run(environment, "check", str(STREAM))
    assert done.returncode == 2
    assert "the entry point 'x' of house-rules in qmigtool.rules has a rule 'r' that" in done.stderr
    assert "Traceback" not in done.stderr
