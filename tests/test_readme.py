"""Every transcript in the README and the reference is what the program prints; every example in samples/ runs."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import transcripts
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "qmigtool" / "README.md").read_text(encoding="utf-8")
COMMANDS = [*transcripts.transcripts(README), *transcripts.transcripts(REFERENCE)]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `qmigtool` is this checkout's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    return transcripts.environment(programs)


def test_there_are_transcripts() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize(("command", "printed"), COMMANDS, ids=lambda text: text[:60])
def test_transcript(command: str, printed: str, shell: dict[str, str], tmp_path: Path) -> None:
    make_inputs(command, shell, tmp_path)
    assert countless(transcripts.run(command, shell, tmp_path)) == countless(printed)


def countless(text: str) -> str:
    """Return a transcript without the number of rules: a new rule need not change the README."""
    return re.sub(r"\b\d+ rules\b", "N rules", text)


def make_inputs(command: str, shell: dict[str, str], tmp_path: Path) -> None:
    """Run the earlier commands that write what a command reads."""
    written = re.search(r"-o (/tmp/\S+)", command)
    for name in dict.fromkeys(re.findall(r"/tmp/\S+", command)):  # noqa: S108 - the reader's
        maker = next((one for one, _ in COMMANDS if f"-o {name}" in one), None)
        if maker not in {None, command} and name != (written and written[1]):
            make_inputs(maker, shell, tmp_path)
            transcripts.run(maker, shell, tmp_path)


def test_python_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    session = re.findall(r"```pycon\n(.*?)```", README, re.DOTALL)
    assert len(session) == 1
    test = doctest.DocTestParser().get_doctest(session[0], {}, "README", "README.md", 0)
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
    test.globs.clear()


def test_there_are_two_commands() -> None:
    assert len(re.findall(r"<!-- command -->\n+```sh\n.+\n```", README)) == 2


def test_every_path_named_in_the_readme_exists() -> None:
    for path in re.findall(r"\bsamples/[\w./-]+\b", README + REFERENCE):
        assert (ROOT / path).exists(), path


EXAMPLES = [
    ("presence.py", ["pc-7.2.mig"], "name   x87   SSE    AVX  BNDREGS"),
    (
        "compact_all.py",
        ["kvm-avx512-7.2.mig", "amd-zen4", "0x18e7", "."],
        "vCPU 0: XCOMP_BV 0x80000000000018e7, 2472 bytes",
    ),
    ("batch.py", ["kvm-avx512-7.2.mig", "50"], "(50, 2440) standard -> (50, 2440) compacted"),
    ("registers.py", ["pc-7.2.mig"], "cpu 3 env.xcr0"),
    ("scapy_example.py", ["containers/postcopy-10.0.pcap.xz", "."], "is now b'changed by scapy'"),
]


@pytest.mark.parametrize(("script", "arguments", "printed"), EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_example(script: str, arguments: list[str], printed: str, shell: dict[str, str], tmp_path: Path) -> None:
    samples = ROOT / "samples"
    words = [str(samples / word) if (samples / word).is_file() else word for word in arguments]
    done = subprocess.run(
        [sys.executable, samples / script, *words], cwd=tmp_path, env=shell, capture_output=True, text=True, check=True
    )
    assert printed in done.stdout


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "samples").glob("*.py")} == {example[0] for example in EXAMPLES}


def test_the_manifest_names_every_sample() -> None:
    manifest = (ROOT / "samples" / "MANIFEST.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "samples").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.name != "MANIFEST.md":
            name = str(path.relative_to(ROOT / "samples"))
            if path.suffix == ".xz":  # the table of packed streams names a stream and means its channels, too
                name = re.sub(r"^packed/|(\.(ch\d|rp|preempt))?\.(mig|bin)\.xz$", "", name)
            assert f"`{name}`" in manifest, path.name
