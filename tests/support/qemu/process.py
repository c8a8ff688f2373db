"""One real QEMU of any version, talked to by QMP.

QMP goes over a socket pair that is handed to QEMU as a file descriptor: there is no path to choose, to wait for or to
clean up. Every wait has a deadline, the process never outlives its `with` block (nor, where setpriv exists, pytest
itself), and every error carries QEMU's own stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Gone", "QemuError", "QemuProcess", "Refused", "dies_with_us", "find_qemu"]

_POLL = 0.01  # seconds between two looks


class QemuError(Exception):
    """QEMU died, refused a command or was too slow."""


class Gone(QemuError):  # noqa: N818 - what happened, as a table of outcomes records it
    """QEMU has ended, or does not answer; ``lines`` is its standard error, ``status`` its exit status."""

    def __init__(self, what: str, lines: list[str], status: int | None) -> None:
        super().__init__(what)
        self.lines = lines
        self.status = status


class Refused(QemuError):  # noqa: N818 - an answer
    """A QMP command has answered with an error."""


def find_qemu() -> Path | None:
    """Return qemu-system-x86_64: $QMIGTOOL_QEMU, or the one on PATH."""
    named = os.environ.get("QMIGTOOL_QEMU")
    found = shutil.which(named or "qemu-system-x86_64")
    return Path(found) if found else None


def dies_with_us(command: list[str]) -> list[str]:
    """Return the command so that the kernel kills its process when this one ends (where setpriv exists)."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []), *command]


class QemuProcess:
    """A QEMU that ``with`` starts and kills; ``timeout`` seconds for every answer.

    It gets a process group of its own: a version in a chroot is started by a script.
    """

    def __init__(
        self,
        command: list[str],
        *,
        timeout: float = 30,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = command
        self.timeout = timeout
        self.events: list[dict[str, Any]] = []
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._socket, theirs = socket.socketpair()
        qmp = ("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control")
        try:
            with theirs:
                self._process = subprocess.Popen(
                    dies_with_us([*self.command, *qmp]),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._log,
                    start_new_session=True,
                    cwd=self._folder,
                    env=self._environment,
                )
            self._read(time.monotonic() + self.timeout)  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._socket.close()
        self.kill()
        self._log.close()

    def kill(self) -> None:
        """End it, and whatever it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stderr(self) -> str:
        """Return what it has said so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="surrogateescape").strip("\n")

    def lines(self) -> list[str]:
        """Return its standard error in lines, without the program's name."""
        name = Path(self.command[0]).name
        return [line.removeprefix(f"{name}: ") for line in self.stderr().split("\n") if line]

    def wait(self) -> None:
        """Wait for its end."""
        assert self._process is not None
        self._process.wait(self.timeout)

    def gone(self, what: str, patience: float = 0.5) -> Gone:
        """Wait a little for its end, and say how it came: with its exit status, standard error and command."""
        assert self._process is not None
        try:
            status: int | None = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            status = None
        state = "running" if status is None else f"exit status {status}"
        text = f"{what} ({state}): {self.stderr() or 'nothing on stderr'}\n{shlex.join(self.command)}"
        return Gone(text, self.lines(), status)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.gone("QMP does not answer")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise self.gone("QMP does not answer") from None
            except OSError as error:
                raise self.gone(f"QMP connection lost: {error}", self.timeout) from error
            if not data:
                raise self.gone("QEMU has closed its QMP connection", self.timeout)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a QMP command (underscores in argument names become hyphens) and return its `return`.

        Raises :class:`Refused` and :class:`Gone`.
        """
        request = {"execute": command, "arguments": {name.replace("_", "-"): v for name, v in arguments.items()}}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self.gone(f"QMP connection lost: {error}", self.timeout) from error
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._read(deadline)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Refused(f"{command}: {answer['error']['desc']}")
            elif "return" in answer:
                return answer["return"]

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Poll until the condition holds; QemuError after the timeout."""
        deadline = time.monotonic() + self.timeout
        while not condition():
            if time.monotonic() > deadline:
                raise self.gone(f"waited {self.timeout} s for {what}")
            time.sleep(_POLL)

    def wait_while(self, command: str, states: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """Ask until ``status`` is none of ``states``; the last answer, whether or not the time was enough."""
        deadline = time.monotonic() + seconds
        while True:
            answer: dict[str, Any] = self.execute(command)
            if answer.get("status") not in states or time.monotonic() > deadline:
                return answer
            time.sleep(2 * _POLL)

    def save_to(self, path: Path) -> None:
        """Start to save the VM as a migration stream (`migrate exec:cat > PATH`).

        QEMU says "completed" before the last bytes have passed through cat, so the file appears under its name
        only when cat has ended.
        """
        part = shlex.quote(f"{path.absolute()}.part")
        path.unlink(missing_ok=True)
        self.execute("migrate", uri=f"exec:cat > {part} && mv {part} {shlex.quote(str(path.absolute()))}")
