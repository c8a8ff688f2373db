"""The RAM walk in records per second, and its memory: our Reader against a plain loop on the same bytes."""

from __future__ import annotations

from collections.abc import Iterator

import qmigtool
from qmigtool.parsers.records import RamSaveFlag
from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.section import Type
from qmigtool.parsers.window import Window
from tests.bench import synthetic
from tests.bench.measure import Figure, medians, mib, ms, peak
from tests.bench.rivals import walk_records
from tests.bench.synthetic import Pattern

TITLE = "RAM walk, records in memory (figure: million records/s, time; ratio: our time by the rival's)"
REPEAT = 5
CHUNK = 1 << 20
RAM = {Pattern.NORMAL: 1 << 30, Pattern.ZERO: 4 << 30, Pattern.MIX: 1 << 30, Pattern.ALTERNATING: 1 << 28}


def ram_start(data: bytes) -> int:
    """Return the offset of the first PART."""
    with qmigtool.open(data) as stream:
        return next(section.offset for section in stream.sections if section.type is Type.PART)


def read(data: bytes, *, keep_runs: bool = False) -> Reader:
    """Read a stream up to the END of its RAM."""
    reader = Reader(Window(data, final=True), keep_runs=keep_runs)
    for section in reader.sections():
        if section.type is Type.END:
            break
    return reader


def read_chunks(data: bytes) -> Reader:
    """Read a stream up to the END of its RAM the way it comes from a pipe."""
    reader = Reader(Window())
    for at in range(0, len(data), CHUNK):
        reader.feed(data[at : at + CHUNK])
        for section in reader.sections():
            if section.type is Type.END:
                return reader
    raise ValueError("there is no END")


def counts(reader: Reader) -> tuple[int, int]:
    """Return the pages read: (zero, normal)."""
    zero = normal = 0
    for (_, flags), count in reader.ram.pages.items():
        zero += count if flags == RamSaveFlag.ZERO else 0
        normal += count if flags == RamSaveFlag.PAGE else 0
    return zero, normal


def figures() -> Iterator[Figure]:
    """Measure every pattern."""
    for pattern, ram in RAM.items():
        data = synthetic.build(ram, pattern)
        yield from _pattern(pattern, data)


def _pattern(pattern: Pattern, data: bytes) -> Iterator[Figure]:
    start = ram_start(data)
    expected = walk_records(data, start)
    runs = read(data, keep_runs=True).ram.runs
    assert runs is not None
    assert counts(read(data)) == counts(read_chunks(data)) == expected
    records = sum(expected)
    ways = {
        "Reader": lambda: read(data),
        "Reader, runs kept": lambda: read(data, keep_runs=True),
        "Reader, fed by 1 MiB": lambda: read_chunks(data),
    }
    times = medians({**ways, "rival": lambda: walk_records(data, start)}, REPEAT)

    def rate(name: str) -> str:
        return f"{records / times[name] / 1e6:.2f} M/s, {ms(times[name])}"

    for name, way in ways.items():
        yield Figure(
            f"{pattern}: {name}; peak {mib(peak(way))}",
            rate(name),
            "plain loop",
            rate("rival"),
            times[name] / times["rival"],
        )
    yield Figure(f"{pattern}: what it was", f"{records} records, {len(runs)} runs, {mib(len(data))}")
