"""The splices that turn the source into the output that a draft describes.

Everything that depends on lengths is computed here, in this order: the edited sections, memory (its place in the output
is known then), the length of a postcopy package, and the vmdesc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.parsers.bodies import footer_of
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.vmdesctext import describe, describe_device, find_parts, format_pairs, is_spaced
from qmigtool.rewrite.framing import configuration_splices, footer_splices, save_image_splices
from qmigtool.rewrite.memory import MemoryFormat
from qmigtool.rewrite.splice import Splice, differing, ordered

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.memory import MemoryDraft

__all__ = ["splices_of"]

PACKAGED = "PACKAGED"


def splices_of(draft: Draft) -> list[Splice]:
    """Return the splices, in the order of the source; raises what reading memory raises."""
    around = _around(draft) if draft.bare else save_image_splices(draft)
    found = [*around, *configuration_splices(draft), *_commands(draft), *_devices(draft)]
    behind = list(_inserted(draft))
    ram = _first(draft, Type.START, "ram")
    if ram is not None:
        before = [*found, *footer_splices(draft, found), *behind]
        shift = sum(splice.growth for splice in before if splice.offset <= ram.offset)
        behind += _memory(draft.memory, shift, footers=draft.footers)
    # Order of several insertions at one place: the end of a body, its footer, what follows the section.
    found = [*found, *footer_splices(draft, [*found, *behind]), *behind]
    found += _packages(draft, found)
    found += _vmdesc(draft)
    return ordered(found, len(draft.source.whole))


def _around(draft: Draft) -> Iterator[Splice]:
    for section in draft.stream.sections:
        if section.type in (Type.PREFIX, Type.TAIL):
            yield Splice(section.offset, section.length, b"")


def _first(draft: Draft, type_: Type, name: str | None = None) -> Section | None:
    return next((s for s in draft.stream.sections if s.type is type_ and s.name == name), None)


def _commands(draft: Draft) -> Iterator[Splice]:
    for section in draft.dropped_commands:
        yield Splice(section.offset, section.length, b"")


def _devices(draft: Draft) -> Iterator[Splice]:
    for section in draft.all_sections:
        original = section.original
        if original is None:
            continue
        if section.dropped:
            yield Splice(original.section.offset, original.section.length, b"")
        elif section.touched:
            place = original.section
            head = bytes(draft.source.view(place.offset, place.body_offset - place.offset))
            # START and FULL mean the same to the loader; the type stays.
            yield from differing(place.offset, head, head[:1] + section.header()[1:])
            yield from differing(place.body_offset, original.body, section.body)


def _inserted(draft: Draft) -> Iterator[Splice]:
    for section in draft.all_sections:
        if section.original is None and not section.dropped:
            footer = footer_of(section.section.section_id or 0) if draft.footers else b""
            yield Splice(section.at, 0, section.header() + section.body + footer)


def _memory(memory: MemoryDraft, shift: int, *, footers: bool) -> Iterator[Splice]:
    """Yield the splices of memory; the output's ``ram`` START body is ``shift`` bytes further back."""
    mapped = memory.format is MemoryFormat.MAPPED or (memory.format is MemoryFormat.KEEP and memory.mapped_before)
    if not memory.touched and not (mapped and shift):
        return
    # Imported here: numpy is not needed for device state.
    from qmigtool.rewrite import mapped as mapped_ram
    from qmigtool.rewrite import plain, records

    if mapped:
        yield from mapped_ram.splices(memory, shift)
    elif memory.format is MemoryFormat.PLAIN:
        yield from plain.splices(memory, footers=footers)
    else:
        yield from memory.list_splices()
        yield from records.splices(memory)


def _packages(draft: Draft, splices: list[Splice]) -> Iterator[Splice]:
    """Correct the length of a postcopy package by the growth inside it."""
    for command in draft.commands(PACKAGED):
        length = int.from_bytes(draft.source.view(command.body_offset, 4), "big")
        start = command.end
        growth = sum(s.growth for s in splices if start <= s.offset and s.offset + s.length <= start + length)
        if growth:
            yield from differing(command.body_offset, length.to_bytes(4, "big"), (length + growth).to_bytes(4, "big"))


# -- vmdesc ----------------------------------------------------------------------------------------------------------


def _vmdesc(draft: Draft) -> Iterator[Splice]:
    text, section = draft.stream.vmdesc_text, _first(draft, Type.VMDESC)
    if text is None or section is None:
        return
    new = _vmdesc_text(draft, text)
    if new != text:
        yield from differing(section.offset + 1, len(text).to_bytes(4, "big"), len(new).to_bytes(4, "big"))
        yield from differing(section.body_offset, text, new)


def _vmdesc_text(draft: Draft, text: bytes) -> bytes:
    """Return the text of the vmdesc with the changes made; everything else in it stays."""
    parts, spaced, vmdesc = find_parts(text), is_spaced(text), draft.stream.vmdesc
    devices: list[list[bytes]] = [[], *([text[start:end]] for start, end in parts.devices)]
    at = 0  # in the list: 0 is before the first
    for section in draft.all_sections:
        if section.described is not None:
            at = section.described + 1
            if section.dropped:
                devices[at] = devices[at][1:]
                continue
        entry = section.entry()
        if not section.touched or section.dropped or entry is None:
            continue
        if section.described is not None and vmdesc is not None and entry == vmdesc.devices[section.described]:
            continue  # a value changed, its description did not
        written = format_pairs(describe_device(entry), spaced=spaced)
        if section.described is not None:
            devices[at][:1] = [written]
        else:
            devices[at].append(written)
    entries = b", ".join(one for each in devices for one in each)
    place = (parts.devices[0][0], parts.devices[-1][1]) if parts.devices else parts.array
    replaced = [(*place, entries)]
    configuration = _described_configuration(draft)
    if parts.configuration is not None and draft.configuration is None:
        replaced.append((*_entry_of(text, parts.configuration), b""))
    elif parts.configuration is not None and configuration is not None:
        replaced.append((*parts.configuration, format_pairs(describe(configuration), spaced=spaced)))
    for start, end, new in sorted(replaced, reverse=True):  # from the end: earlier offsets stay valid
        text = text[:start] + new + text[end:]
    return text


def _entry_of(text: bytes, value: tuple[int, int]) -> tuple[int, int]:
    """Return the span of ``"configuration": value``, with the comma that follows it."""
    start = text.rindex(b'"configuration"', 0, value[0])
    behind = text[value[1] :]
    rest = behind.lstrip()
    if rest[:1] == b",":
        return start, len(text) - len(rest[1:].lstrip())
    return text.rindex(b",", 0, start), value[1]


def _described_configuration(draft: Draft) -> Description | None:
    """Return the new ``configuration`` of the vmdesc; None if it does not change."""
    vmdesc, new = draft.stream.vmdesc, draft.configuration
    if vmdesc is None or vmdesc.configuration is None or new is None or new == draft.stream.configuration:
        return None
    return new.described(vmdesc.configuration)
