"""A client of QEMU's gdbstub, as small as changing one register needs (gdb's remote serial protocol).

The registers' numbers are not fixed: they are those of the target description that the stub itself sends.
"""

import re
import socket
from pathlib import Path
from types import TracebackType
from typing import Self


class GdbStub:
    """A connection to the gdbstub behind a Unix socket, made by `with GdbStub(path) as stub`; it stops the VM."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._buffer = b""

    def __enter__(self) -> Self:
        self.ask("qSupported:xmlRegisters=i386")
        text = self._description("target.xml")
        for name in re.findall(r'include href="([^"]+)"', text):
            text += self._description(name)
        text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
        registers = re.findall(r'<reg name="([^"]+)" bitsize="(\d+)"', text)
        self._registers = {name: (number, int(bits) // 8) for number, (name, bits) in enumerate(registers)}
        self.ask("g")  # only reading all of them takes them out of KVM, so that what is written counts
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def read(self, name: str) -> bytes:
        """Return a register's bytes, the least significant first."""
        number, size = self._registers[name]
        return bytes.fromhex(self.ask(f"p{number:x}"))[:size]

    def write(self, name: str, value: bytes) -> None:
        """Set a register."""
        number, size = self._registers[name]
        assert len(value) == size
        answer = self.ask(f"P{number:x}={value.hex()}")
        assert answer == "OK", answer

    def ask(self, command: str) -> str:
        """Send a packet and return the answer's payload."""
        data = command.encode()
        self._socket.sendall(b"$%s#%02x" % (data, sum(data) % 256))
        while (found := re.search(rb"\$([^#]*)#..", self._buffer)) is None:
            more = self._socket.recv(65536)
            assert more, "the stub has closed the connection"
            self._buffer += more
        self._buffer = self._buffer[found.end() :]
        self._socket.sendall(b"+")
        return found[1].decode("latin-1")

    def _description(self, name: str) -> str:
        """Fetch one file of the target description."""
        text, more = "", "m"
        while more == "m":
            answer = self.ask(f"qXfer:features:read:{name}:{len(text):x},800")
            more, part = answer[0], answer[1:]
            text += part
        return text
