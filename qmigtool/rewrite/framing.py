"""Edits of the framing: the configuration section and the footers, which old machine types do without.

Both are a property of the whole stream: QEMU expects them or not (``migration.send-configuration``,
``migration.send-section-footer``, off in machine types up to 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.errors import LiveStateError, UsageError
from qmigtool.parsers.bodies import FOOTER_SIZE, footer_of
from qmigtool.parsers.configuration import MAX_NAME, Configuration
from qmigtool.parsers.records import SectionType
from qmigtool.parsers.saveimage import FORMAT_OFFSET, format_word
from qmigtool.parsers.section import Type
from qmigtool.rewrite.header import MAPPED_RAM, ORDER
from qmigtool.rewrite.memory import IGNORE_SHARED
from qmigtool.rewrite.splice import Splice, differing
from qmigtool.rewrite.values import name_bytes

if TYPE_CHECKING:
    from qmigtool.parsers.section import Section
    from qmigtool.rewrite.draft import Draft

__all__ = [
    "add_configuration",
    "configuration_splices",
    "drop_configuration",
    "footer_splices",
    "save_image_splices",
    "set_footers",
]

_CLOSED = (Type.START, Type.PART, Type.END, Type.FULL)


def add_configuration(draft: Draft, machine: str, page_size: int | None = None, why: str = "") -> None:
    """Add a configuration section: the machine type, and the capabilities that the block list shows.

    ``page_size`` in bytes, for targets whose page size differs between CPUs (Arm).
    """
    if draft.configuration is not None:
        raise UsageError("this stream has a configuration section already", expected="--machine-type")
    if not 1 <= len(name_bytes(machine)) <= MAX_NAME:
        raise UsageError(f"a machine type of {len(name_bytes(machine))} bytes", expected=f"1 to {MAX_NAME}")
    if page_size is not None and (page_size & page_size - 1 or not 1 << 8 <= page_size <= 1 << 20):
        raise UsageError(f"a page size of {page_size} bytes", expected="a power of two, 0x100 to 0x100000")
    memory = draft.memory
    shown = {IGNORE_SHARED: memory.ignore_shared, MAPPED_RAM: memory.mapped_before}
    capabilities = tuple(name for name in ORDER if shown.get(name))
    draft.change("configuration", None, None, " ".join((machine, *capabilities)), why)
    draft.configuration = Configuration(machine, page_size, capabilities)


def drop_configuration(draft: Draft, why: str = "") -> None:
    """Drop the configuration section, for a loader that expects none.

    Raises :class:`~qmigtool.errors.LiveStateError` where its capabilities decide how memory is read.
    """
    old = draft.configuration
    if old is None:
        raise UsageError("this stream has no configuration section")
    if old.capabilities:
        raise LiveStateError(
            f"the configuration section decides how memory is read: {', '.join(old.capabilities)} (--ram plain, or "
            "--drop-capability, before this edit)",
            section="configuration",
        )
    draft.change("configuration", _offset(draft), old.machine, None, why)
    if old.uuid is not None:
        draft.lose("the VM's UUID in the configuration section")
    draft.configuration = None


def set_footers(draft: Draft, on: bool, why: str = "") -> None:
    """Add a footer to every section, or remove all footers."""
    if draft.footers is on:
        raise UsageError(f"this stream has {'footers already' if on else 'no footers'}")
    if not on and draft.stream.vmdesc is None:
        raise UsageError("without footers and a vmdesc the device state cannot be read again")
    words = "none", "one after every section"
    draft.change("footers", None, words[not on], words[on], why)
    draft.footers = on


def configuration_splices(draft: Draft) -> Iterator[Splice]:
    """Yield the splices of the configuration section: changed, inserted after the header, or dropped."""
    old, new = draft.stream.configuration, draft.configuration
    section = _section(draft, Type.CONFIGURATION)
    if new == old:
        return
    if new is None:
        if section is not None:
            yield Splice(section.offset, section.length, b"")
    elif section is not None:
        body = bytes(draft.source.view(section.body_offset, section.body_length))
        yield from differing(section.body_offset, body, new.build())
    else:
        header = _section(draft, Type.HEADER)
        if header is None:
            raise UsageError("this stream has no header", expected="one that begins with QEVM")
        yield Splice(header.end, 0, bytes([SectionType.QEMU_VM_CONFIGURATION]) + new.build())


def footer_splices(draft: Draft, others: list[Splice]) -> Iterator[Splice]:
    """Yield the splices of the footers if they change: of every section that none of ``others`` removes."""
    before = draft.stream.footers
    if draft.footers is before:
        return
    gone = sorted((one.offset, one.offset + one.length) for one in others if one.length)
    at = 0
    for section in draft.stream.sections:
        if section.type not in _CLOSED:
            continue
        while at < len(gone) and gone[at][1] < section.end:
            at += 1
        # A splice that removes a whole section removes its footer, too.
        if at < len(gone) and gone[at][0] <= section.offset:
            continue
        if before:
            yield Splice(section.end - FOOTER_SIZE, FOOTER_SIZE, b"")
        else:
            yield Splice(section.end, 0, footer_of(section.section_id or 0))


def save_image_splices(draft: Draft) -> Iterator[Splice]:
    """Yield the splice of a libvirt save image's header, which records the memory format."""
    if draft.save_format is not None:
        word = format_word(draft.source, draft.save_format)
        yield from differing(FORMAT_OFFSET, bytes(draft.source.view(FORMAT_OFFSET, len(word))), word)


def _section(draft: Draft, type_: Type) -> Section | None:
    return next((one for one in draft.stream.sections if one.type is type_), None)


def _offset(draft: Draft) -> int | None:
    found = _section(draft, Type.CONFIGURATION)
    return None if found is None else found.offset
