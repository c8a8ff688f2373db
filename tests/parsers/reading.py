"""Drives the forward reader: all bytes at once, or in pieces."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qmigtool.errors import QmigError
from qmigtool.parsers.ramruns import Run
from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.section import Section
from qmigtool.parsers.window import Window
from tests.support.streamwriter import Span


@dataclass
class Outcome:
    """What came out of a reader; comparable, so that two ways of feeding can be compared."""

    sections: list[Section]
    runs: list[Run]
    blocks: list[Any]
    pages: dict[tuple[int, int], int]
    problems: list[str]
    error: str | None


def read_whole(data: bytes, **options: Any) -> Outcome:
    reader = Reader(Window(data, final=True), keep_runs=True, **options)
    return _drain(reader, [])


def read_pieces(data: bytes, sizes: Iterable[int], **options: Any) -> Outcome:
    """Feed ``sizes`` bytes at a time, the rest at once."""
    reader = Reader(Window(), keep_runs=True, **options)
    pieces = []
    at = 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
        if at >= len(data):
            break
    if at < len(data):
        pieces.append(data[at:])
    return _drain(reader, pieces)


def read_steps(data: bytes, step: int, **options: Any) -> Outcome:
    return read_pieces(data, [step] * (len(data) // step + 1), **options)


def _drain(reader: Reader, pieces: list[bytes]) -> Outcome:
    sections: list[Section] = []
    error = None
    try:
        for piece in pieces:
            reader.feed(piece)
            sections += reader.sections()
        if pieces or not reader.window.final:
            reader.close()
        sections += reader.sections()
    except QmigError as raised:
        error = f"{type(raised).__name__} {raised}"
    problems = [str(problem) for problem in reader.problems]
    ram = reader.ram
    return Outcome(sections, list(ram.runs or ()), list(ram.blocks), dict(ram.pages), problems, error)


def as_spans(sections: Iterable[Section]) -> list[Span]:
    return [
        Span(
            s.type.value, s.offset, s.length, s.body_offset, s.body_length,
            s.section_id, s.name, s.instance_id, s.version_id,
        )
        for s in sections
    ]  # fmt: skip
