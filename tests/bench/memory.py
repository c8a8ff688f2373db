"""The index of guest memory: which record holds each page in the end, against a dictionary filled page by page."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import qmigtool
from qmigtool.stream.model import Stream
from tests.bench import synthetic
from tests.bench.measure import Figure, medians, mib, ms, peak
from tests.bench.ram import ram_start
from tests.bench.rivals import index_records
from tests.bench.synthetic import Pattern

TITLE = "Index of guest memory (ratio: our time by the rival's)"
REPEAT = 3
RAM = {Pattern.MIX: 1 << 30, Pattern.ALTERNATING: 1 << 30}
MAPPED = (1 << 30, 64 << 30)
PAGE = 4096
ALIGNMENT = 1 << 20


def index(data: bytes | Path) -> int:
    """Open a stream and find the last writer of every page of its first block; return the number of segments."""
    with qmigtool.open(data) as stream:
        return segments(stream)


def segments(stream: Stream) -> int:
    """Return how many stretches of pages the first block has."""
    return len(stream.ram.final(stream.ram_blocks[0].idstr).start)


def figures() -> Iterator[Figure]:
    """Measure records, then bitmaps."""
    for pattern, ram in RAM.items():
        yield from _records(pattern, synthetic.build(ram, pattern), ram)
    yield from _mapped()


def _records(pattern: Pattern, data: bytes, ram: int) -> Iterator[Figure]:
    start = ram_start(data)
    pages = index_records(data, start)
    times = medians({"ours": lambda: index(data), "rival": lambda: index_records(data, start)}, REPEAT)
    yield Figure(
        f"{mib(ram)} of RAM, {pattern}: {len(pages)} pages in {index(data)} stretches",
        f"{ms(times['ours'])}; peak {mib(peak(lambda: index(data)))}",
        f"dict of pages; peak {mib(peak(lambda: index_records(data, start)))}",
        ms(times["rival"]),
        times["ours"] / times["rival"],
    )


def _mapped() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        paths = {ram: mapped(Path(folder, f"{ram}.mig"), ram) for ram in MAPPED}
        times = medians({str(ram): lambda path=path: index(path) for ram, path in paths.items()}, REPEAT)
        small, large = MAPPED
        for ram, path in paths.items():
            used = path.stat().st_blocks * 512
            what = f"mapped-ram, {mib(ram)} of RAM ({mib(used)} on disk): {index(path)} stretches"
            ours = f"{ms(times[str(ram)])}; peak {mib(peak(lambda path=path: index(path)))}"
            if ram == small:
                yield Figure(what, ours)
            else:
                ratio = times[str(large)] / times[str(small)]
                yield Figure(what, ours, f"{large // small} times less RAM", ms(times[str(small)]), ratio)


def mapped(path: Path, ram: int) -> Path:
    """Write a sparse mapped-ram stream without devices: of every 16 pages one is there, and holds nothing."""
    name = b"pc.ram"
    head = b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", 2) + b"pc"
    head += b"\x05\x1aconfiguration/capabilities" + struct.pack(">II", 1, 1) + b"\x0amapped-ram"
    head += b"\x01" + struct.pack(">I", 1) + b"\x03ram" + struct.pack(">II", 0, 4)
    head += struct.pack(">Q", ram | 4) + bytes([len(name)]) + name + struct.pack(">Q", ram)
    bitmap = len(head) + 28
    pages = -(-(bitmap + ram // PAGE // 8) // ALIGNMENT) * ALIGNMENT
    head += struct.pack(">IQQQ", 1, PAGE, bitmap, pages)
    tail = struct.pack(">Q", 0x10) + b"\x7e\0\0\0\x01\x03\0\0\0\x01" + struct.pack(">Q", 0x10) + b"\x7e\0\0\0\x01\0"
    with path.open("wb") as file:
        file.write(head + b"\x01\x00" * (ram // PAGE // 16))
        file.seek(pages + ram)
        file.write(tail)
    os.sync()
    return path
