"""The sections of a stream, as columns: millions of empty PARTs are legal, and occur."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from qmigtool.parsers.section import Section

__all__ = ["SectionIndex"]


class SectionIndex(Sequence[Section]):
    """A list of :class:`~qmigtool.parsers.section.Section` at 28 bytes each; the objects are made on access."""

    def __init__(self, sections: Iterable[Section] = ()) -> None:
        self._spans = array("Q")  # offset, length, body length
        self._kinds = array("I")  # indices of templates
        self._templates: list[tuple[Any, ...]] = []
        self._known: dict[tuple[Any, ...], int] = {}
        for section in sections:
            self.append(section)

    def append(self, section: Section) -> None:
        """Add a section at the end."""
        template = (
            section.type,
            section.body_offset - section.offset,
            section.section_id,
            section.name,
            section.instance_id,
            section.version_id,
            section.measured,
            section.complete,
        )
        kind = self._known.setdefault(template, len(self._templates))
        if kind == len(self._templates):
            self._templates.append(template)
        self._kinds.append(kind)
        self._spans.extend((section.offset, section.length, section.body_length))

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, index: int) -> Section: ...
    @overload
    def __getitem__(self, index: slice) -> list[Section]: ...
    def __getitem__(self, index: int | slice) -> Section | list[Section]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        kind = self._kinds[index]
        index %= len(self._kinds)
        type_, head, section_id, name, instance_id, version_id, measured, complete = self._templates[kind]
        offset, length, body_length = self._spans[3 * index : 3 * index + 3]
        return Section(
            type_, offset, length, offset + head, body_length,
            section_id, name, instance_id, version_id, measured, complete,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Section]:
        return (self[index] for index in range(len(self)))
