"""Captures of made-up TCP connections, written without scapy or the code under test: fast enough for any size."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

SYN, FIN, PSH_ACK, SYN_ACK, ACK = 2, 0x11, 0x18, 0x12, 0x10
SEGMENT = 1448


def frame(port: int, to: int, sequence: int, data: bytes, flags: int, *, back: bool = False, ack: int = 0) -> bytes:
    """An Ethernet frame from 10.0.0.1:PORT to 10.0.0.2:TO, or back."""
    here, there = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    if back:
        here, there, port, to = there, here, to, port
    segment = struct.pack(">HHIIBBHHH", port, to, sequence & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 65535, 0, 0)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment) + len(data), 0, 0x4000, 64, 6, 0)
    return bytes(12) + b"\x08\x00" + head + here + there + segment + data


class Packets:
    """The frames of a capture, in order."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self._together: list[list[bytes]] | None = None

    @classmethod
    def of(cls, frames: Iterable[bytes]) -> Packets:
        """Make a capture of these frames."""
        made = cls()
        made.frames += frames
        return made

    def connection(
        self, data: bytes, *, port: int, to: int = 4444, back: bytes = b"", size: int = SEGMENT, start: int = 1000
    ) -> None:
        """Add a connection from its SYN to its FIN; ``back`` is what the other end sends."""
        frames = [
            frame(port, to, start, b"", SYN),
            frame(port, to, 7000, b"", SYN_ACK, back=True, ack=start + 1),
            *(frame(port, to, start + 1 + at, data[at : at + size], PSH_ACK) for at in range(0, len(data), size)),
            *(
                frame(port, to, 7001 + at, back[at : at + size], PSH_ACK, back=True, ack=start + 1 + len(data))
                for at in range(0, len(back), size)
            ),
            frame(port, to, start + 1 + len(data), b"", FIN),
        ]
        if self._together is None:
            self.frames += frames
        else:
            self._together.append(frames)

    def parts(self, parts: Sequence[bytes], *, port: int, to: int = 4444, start: int = 1000) -> None:
        """Add a connection that sends each part in a segment of its own."""
        self.frames += [frame(port, to, start, b"", SYN), frame(port, to, 7000, b"", SYN_ACK, back=True, ack=start + 1)]
        at = start + 1
        for data in parts:
            self.frames.append(frame(port, to, at, data, PSH_ACK))
            at += len(data)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Interleave the frames of the connections that are added in the block."""
        self._together = []
        yield
        together, self._together = self._together, None
        for i in range(max(map(len, together))):
            self.frames += (frames[i] for frames in together if i < len(frames))

    def pcap(self, lengths: Sequence[int] | None = None, *, interval: int = 1000) -> bytes:
        """The capture file, ``interval`` microseconds between frames; ``lengths`` are those of whole frames."""
        out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
        for i, one in enumerate(self.frames):
            wire = len(one) if lengths is None else lengths[i]
            seconds, fraction = divmod(i * interval, 1_000_000)
            out.append(struct.pack("<4I", 1_000_000 + seconds, fraction, len(one), wire) + one)
        return b"".join(out)
