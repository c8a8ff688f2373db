"""Judge a stream, and run the command that is proposed."""

from __future__ import annotations

import functools
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import qmigtool
from qmigtool.cli import main
from qmigtool.preflight import Preflight, Target, preflight
from qmigtool.rewrite import Rewriter
from tests.preflight.recorded import target
from tests.support.paths import SAMPLES
from tests.support.qemu.process import find_qemu

PACKED = SAMPLES / "packed"


Edits = Callable[[Rewriter], object]


def judge(path: Path, aim: Target, accelerator: str | None = None) -> Preflight:
    with qmigtool.open(path, accelerator=accelerator) as stream:
        return preflight(stream, aim)


def run_command(result: Preflight, path: Path, out: Path) -> None:
    """Run the command as a shell would, but in this process."""
    assert result.remedy is not None
    assert result.remedy.command is not None
    words = shlex.split(result.remedy.command)
    assert words[:3] == ["qmigtool", "rewrite", str(path)]
    assert words[-2:] == ["-o", "OUT"]
    assert main.run([*words[1:-1], str(out)]) == 0


@functools.cache
def pc() -> Target:
    """The machine that saved pc-7.2.mig, fresh."""
    return target("t00", "7.2")


def remedied(result: Preflight, path: Path, out: Path, aim: Target, accelerator: str | None = None) -> Preflight:
    """Run the command that is proposed; return the preflight of what it wrote."""
    assert result.verdict.loads is False or not result.clean
    run_command(result, path, out)
    assert result.remedy is not None
    after = judge(out, aim, accelerator)
    assert after.verdict == result.remedy.verdict  # what was tried is what comes out
    return after


def _version() -> tuple[int, ...]:
    text = subprocess.run([str(find_qemu()), "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, text.split("version ")[1].split(".")[:2]))
