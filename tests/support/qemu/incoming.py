"""Real QEMU, given a stream: whether it loads it, and what it prints."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.qemu.process import Gone, QemuProcess, find_qemu

TIMEOUT = 30.0
# What a QEMU says of its own command line.
_NOISE = ("is deprecated", "has no peer")


class Outcome(NamedTuple):
    """``loaded``: it left the state inmigrate. ``lines``: its stderr, without the program's name."""

    loaded: bool
    lines: tuple[str, ...]


def version() -> str:
    """Return the version of the QEMU that is there, as 7.2."""
    text = subprocess.run([str(find_qemu()), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+\.\d+)", text)
    assert found is not None
    return found[1]


def load(path: Path, arguments: list[str]) -> Outcome:
    """Start QEMU with ``-S`` and these arguments, and let it load a file."""
    incoming = f"exec:cat {shlex.quote(str(path))}"
    qemu = QemuProcess([str(find_qemu()), "-display", "none", "-S", *arguments, "-incoming", incoming], timeout=TIMEOUT)
    try:
        with qemu:
            end = qemu.wait_while("query-status", ("inmigrate",), TIMEOUT)
            assert end["status"] != "inmigrate"
            qemu.execute("quit")
            qemu.wait()
            return Outcome(True, _said(qemu.lines()))
    except Gone as gone:
        return Outcome(False, _said(gone.lines))


def _said(lines: list[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if not any(noise in line for noise in _NOISE))
