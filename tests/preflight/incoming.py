"""Real QEMU, given a stream: whether it loads it, and what it prints."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.oracle.qemu import dies_with_us, find_qemu

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
    binary = str(find_qemu())
    ours, theirs = socket.socketpair()
    command = [
        *(binary, "-display", "none", "-S", *arguments),
        *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
        *("-incoming", f"exec:cat {shlex.quote(str(path))}"),
    ]
    with theirs:
        process = subprocess.Popen(
            dies_with_us(command), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    try:
        with ours:
            ours.settimeout(TIMEOUT)
            loaded = _loaded(ours)
        stderr = process.communicate(timeout=TIMEOUT)[1].decode(errors="surrogateescape")
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
    name = f"{Path(binary).name}: "
    lines = (line.removeprefix(name) for line in stderr.split("\n") if line)
    return Outcome(loaded, tuple(line for line in lines if not any(noise in line for noise in _NOISE)))


def _loaded(connection: socket.socket) -> bool:
    """Wait until QEMU has loaded the stream, or is gone."""
    deadline = time.monotonic() + TIMEOUT
    with connection.makefile("r") as stream:

        def ask(command: str) -> Any:
            connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
            while line := stream.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
            raise EOFError

        try:
            stream.readline()
            ask("qmp_capabilities")
            while ask("query-status")["status"] == "inmigrate":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            ask("quit")
        except (EOFError, ConnectionError):
            return False
    return True
