"""Captures of a migration: unwrapping 1 GiB, against an earlier version of qmigtool and against scapy's TCPSession.

The capture is made here: a synthetic stream in segments of 16 KiB, as a loopback interface has them, or of 1,448 bytes.
The earlier version is taken out of git; without that commit (a source archive) it is left out. scapy gets the first
32 MiB of the same capture, because 1 GiB would take it five minutes.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench import synthetic
from tests.bench.measure import Command, Figure, mib, run_processes
from tests.bench.synthetic import Frame, Pattern
from tests.support.capturewriter import PSH_ACK, SYN, frame
from tests.support.paths import ROOT

TITLE = "Captures of a migration (figure: bytes of the stream in a second, largest resident size; ratio: ours by its)"
SIZE, SCAPY_SIZE = 1 << 30, 32 << 20
SEGMENTS = (16384, 1448)
REPEAT = 3
BEFORE = "16c5681"
OURS = """
import sys
from pathlib import Path
from qmigtool.parsers.source import FileSource
from qmigtool.stream.unwrap import unwrap
found = unwrap(FileSource(Path(sys.argv[1])))
assert len(found.source.whole) == int(sys.argv[2])
"""
EARLIER = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from qmigtool.parsers.source import FileSource
from qmigtool.unwrap import unwrap
import qmigtool
assert qmigtool.__file__.startswith(sys.argv[3])
found = unwrap(FileSource(Path(sys.argv[1])))
assert len(found.source.whole) == int(sys.argv[2])
"""
SCAPY = """
import sys
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw, bind_layers
from scapy.sendrecv import sniff
from scapy.sessions import TCPSession
from scapy.fields import StrField
class Whole(Packet):
    fields_desc = [StrField("load", b"")]
    @classmethod
    def tcp_reassemble(cls, data, metadata, session):
        return cls(data)
bind_layers(TCP, Whole, dport=4444)
size = 0
def count(packet):
    global size
    size += len(packet[Whole].load) if Whole in packet else 0
sniff(offline=sys.argv[1], session=TCPSession, store=False, prn=count)
assert size == int(sys.argv[2]), size
"""


def figures() -> Iterator[Figure]:
    """Measure both sizes of segments."""
    with tempfile.TemporaryDirectory(prefix="qmigtool-bench-") as folder:
        free = shutil.disk_usage(folder).free
        if free < 4 * SIZE:
            yield Figure(f"left out: {folder} has only {mib(free)} free", "")
            return
        before = earlier(Path(folder, "before"))
        for size in SEGMENTS:
            yield from _segments(Path(folder), size, before)


def _segments(folder: Path, segment: int, before: Path | None) -> Iterator[Figure]:
    large, small = folder / "large.pcap", folder / "small.pcap"
    sizes = {path: write(path, ram, segment) for path, ram in ((large, SIZE), (small, SCAPY_SIZE))}
    ours, theirs, rival = "qmigtool", f"qmigtool at {BEFORE}", "scapy's TCPSession"
    commands = {
        ours: Command.python("-c", OURS, str(large), str(sizes[large])),
        rival: Command.python("-c", SCAPY, str(small), str(sizes[small])),
    }
    if before is not None:
        commands[theirs] = Command.python("-c", EARLIER, str(large), str(sizes[large]), str(before))
    done = run_processes(commands, REPEAT)
    speeds = {name: sizes[small if name == rival else large] / run.wall for name, run in done.items()}
    for name in commands:
        if name != ours:
            yield Figure(
                f"{mib(sizes[large])} in segments of {segment} bytes",
                f"{mib(speeds[ours])}/s, {mib(done[ours].max_rss)}",
                name,
                f"{mib(speeds[name])}/s, {mib(done[name].max_rss)}",
                speeds[ours] / speeds[name],
            )


def write(path: Path, ram: int, segment: int) -> int:
    """Write a capture of a migration with ``ram`` bytes; return the size of its stream."""
    size, packets = 0, 0
    rest = bytearray()
    with path.open("wb", buffering=1 << 20) as file:

        def packet(data: bytes, flags: int, sequence: int) -> None:
            nonlocal packets
            one = frame(40000, 4444, sequence, data, flags)
            packets += 1
            file.write(struct.pack("<4I", packets // 1000, packets % 1000, len(one), len(one)) + one)

        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        packet(b"", SYN, 1000)
        for piece in synthetic.pieces(Frame.of_sample(ram), ram, Pattern.NORMAL):
            rest += piece
            whole = len(rest) // segment * segment
            for at in range(0, whole, segment):
                packet(bytes(rest[at : at + segment]), PSH_ACK, 1001 + size)
                size += segment
            del rest[:whole]
        packet(bytes(rest), PSH_ACK, 1001 + size)
        return size + len(rest)


def earlier(folder: Path) -> Path | None:
    """Put the earlier version into a folder; None where git does not have it."""
    done = subprocess.run(["git", "archive", BEFORE, "qmigtool", "parsers"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder
