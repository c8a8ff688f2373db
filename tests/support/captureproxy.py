"""A TCP proxy on loopback that writes down what passes, as a capture: for machines without tcpdump."""

from __future__ import annotations

import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from tests.support.capturewriter import FIN, PSH_ACK, SYN, SYN_ACK, frame

TO = 4444  # the port that the capture has


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class CaptureProxy:
    """Forwards each connection to its ``port`` to ``target``; ``frames`` are (nanoseconds, frame)."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.frames: list[tuple[int, bytes]] = []
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in list(self._threads):
            thread.join(30)
            assert not thread.is_alive() or error is not None
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            port = 40000 + number
            number += 1
            self._add(frame(port, TO, 0, b"", SYN))
            self._add(frame(port, TO, 0, b"", SYN_ACK, back=True, ack=1))
            for here, there, back in ((near, far, False), (far, near, True)):
                thread = threading.Thread(target=self._forward, args=(here, there, port, back), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(self, here: socket.socket, there: socket.socket, port: int, back: bool) -> None:
        at = 1
        try:
            while data := here.recv(60_000):
                self._add(frame(port, TO, at, data, PSH_ACK, back=back))
                at += len(data)
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)
        except OSError:  # an end has gone
            pass
        self._add(frame(port, TO, at, b"", FIN, back=back))

    def _add(self, one: bytes) -> None:
        with self._lock:
            self.frames.append((time.time_ns(), one))

    def pcap(self, lost: frozenset[int] = frozenset()) -> bytes:
        """The capture, with nanoseconds, without some of its frames."""
        out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
        for number, (now, one) in enumerate(self.frames):
            if number not in lost:
                out.append(struct.pack("<4I", *divmod(now, 1_000_000_000), len(one), len(one)) + one)
        return b"".join(out)
