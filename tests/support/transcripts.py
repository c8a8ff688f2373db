"""The transcripts of a Markdown file: what each `$ command` in its console blocks prints.

`python -m tests.support.transcripts README.md` writes them again, from what the commands print now;
tests/test_readme.py compares them.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

CONSOLE = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.DOTALL | re.MULTILINE)


def transcripts(text: str) -> list[tuple[str, str]]:
    """Return (command, what the text says it prints) of every console block."""
    return [one for block in CONSOLE.findall(text) for one in _commands(block)]


def _commands(block: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def environment(programs: Path) -> dict[str, str]:
    """Return an environment in which `qmigtool` and `pytest` are this checkout's; ``programs`` is an empty folder."""
    for name in ("qmigtool", "pytest"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        program.chmod(0o755)
    shell = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    shell.pop("COLUMNS", None)
    return shell


def run(command: str, shell: dict[str, str], folder: Path) -> str:
    """Run a command in the checkout; the reader's /tmp is ``folder``, here and in what it prints."""
    command = command.replace("/tmp/", f"{folder}/")  # noqa: S108 - the reader's, replaced
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, env=shell, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).replace(str(folder), "/tmp")  # noqa: S108 - as above


def rewritten(text: str, shell: dict[str, str], folder: Path) -> str:
    """Return the text with every transcript as it is now."""

    def block(match: re.Match[str]) -> str:
        return "".join(f"$ {command}\n{run(command, shell, folder)}" for command, _ in _commands(match[0]))

    return CONSOLE.sub(block, text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as bin_:
            path = Path(name)
            text = path.read_text(encoding="utf-8")
            path.write_text(rewritten(text, environment(Path(bin_)), Path(made)), encoding="utf-8")
