"""One real QEMU of any version, talked to by QMP."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

__all__ = ["Gone", "Qemu", "Refused"]


class Gone(Exception):  # noqa: N818 - what happened, as the table records it
    """QEMU has ended; ``lines`` is its standard error."""

    def __init__(self, what: str, lines: list[str], status: int | None) -> None:
        super().__init__(what)
        self.lines = lines
        self.status = status


class Refused(Exception):  # noqa: N818 - an answer
    """A QMP command has answered with an error."""


class Qemu:
    """A QEMU that ``with`` starts and kills; ``timeout`` seconds for every answer.

    It gets a process group of its own: a version in a chroot is started by a script.
    """

    def __init__(self, command: list[str], *, timeout: float = 30, folder: Path | None = None) -> None:
        self.command = command
        self.timeout = timeout
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._socket, theirs = socket.socketpair()
        setpriv = shutil.which("setpriv")
        with theirs:
            self._process = subprocess.Popen(
                [
                    *([setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []),
                    *self.command,
                    *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                start_new_session=True,
                cwd=self._folder,
            )
        self._socket.settimeout(self.timeout)
        self._answers = self._socket.makefile("r")
        try:
            self._line()
            self.execute("qmp_capabilities")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._answers.close()
        self._socket.close()
        self.kill()
        self._log.close()

    def kill(self) -> None:
        """End it, and whatever it has started."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def lines(self) -> list[str]:
        """Return its standard error, without the program's name."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), size, 0).decode(errors="replace")
        name = Path(self.command[0]).name
        return [line.removeprefix(f"{name}: ") for line in text.split("\n") if line]

    def gone(self, what: str) -> Gone:
        """Wait for its end, and say how it came."""
        assert self._process is not None
        try:
            status: int | None = self._process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            status = None
        return Gone(what, self.lines(), status)

    def _line(self) -> dict[str, Any]:
        try:
            line = self._answers.readline()
        except TimeoutError:
            raise Gone("QMP does not answer", self.lines(), None) from None
        except OSError:
            line = ""
        if not line:
            raise self.gone("it has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a QMP command and return its answer; raises :class:`Refused` and :class:`Gone`."""
        request = {"execute": command, "arguments": {name.replace("_", "-"): v for name, v in arguments.items()}}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self.gone("it has ended") from None
        while True:
            answer = self._line()
            if "error" in answer:
                raise Refused(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def wait_while(self, command: str, states: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """Ask until ``status`` is none of ``states``; the last answer, whether or not the time was enough."""
        deadline = time.monotonic() + seconds
        while True:
            answer: dict[str, Any] = self.execute(command)
            if answer.get("status") not in states or time.monotonic() > deadline:
                return answer
            time.sleep(0.02)
