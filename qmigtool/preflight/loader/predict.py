"""Whether a target loads a stream, and its error message if not: a model of ``qemu_loadvm_state``.

The walk follows the steps and the order of the target's QEMU, up to the first error. QEMU never reads the vmdesc, so
it is not read here; the format of the target's own bodies decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.parsers.records import (
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    QEMU_VM_FILE_VERSION_COMPAT,
    SectionType,
)
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader.commands import load_command
from qmigtool.preflight.loader.configuration import load_configuration
from qmigtool.preflight.loader.cursor import Cursor
from qmigtool.preflight.loader.guestmemory import GuestMemory
from qmigtool.preflight.loader.postload import put_registers
from qmigtool.preflight.loader.ramblocks import RamLoader
from qmigtool.preflight.loader.sections import Registry, load_part, load_start
from qmigtool.preflight.loader.state import Load, Undecided
from qmigtool.preflight.loader.verdict import Verdict
from qmigtool.preflight.loader.versions import judge_versions
from qmigtool.preflight.loader.words import Refusal
from qmigtool.preflight.remark import remark
from qmigtool.preflight.target.versions import version_text
from qmigtool.stream.probe import find_start

if TYPE_CHECKING:
    from qmigtool.preflight.target.model import Target
    from qmigtool.preflight.target.versions import Possible
    from qmigtool.stream.model import Stream

__all__ = ["Verdict", "predict", "predict_source"]

MAX_PACKAGES = 2  # nested; QEMU is limited only by its stack


def predict(stream: Stream, target: Target) -> Verdict:
    """Predict whether ``target`` loads a stream, which may be broken."""
    stream.prove()
    source = stream.source
    if isinstance(source, BufferSource):
        memory = GuestMemory(lambda: stream)
        # A hole precedes the stream itself, inside any other container; libvirt reads its own header.
        contained = stream.container.name == "libvirt" and stream.container.in_place
        return predict_source(source, target, stream.start, contained=contained, memory=memory)
    pipe = remark("the stream was read from a pipe and its RAM was not kept; save it in a file first")
    return Verdict(None, unknown=(pipe,))


def predict_source(
    source: BufferSource,
    target: Target,
    start: int | None = None,
    *,
    contained: bool = False,
    memory: GuestMemory | None = None,
) -> Verdict:
    """Predict whether ``target`` loads bytes, which need not be a stream.

    ``start`` is the offset of the stream, by default after a hole; ``contained`` means that a container with a header
    precedes it, such as libvirt's, which libvirt reads itself. ``memory`` is the guest memory in the stream.

    If the target's version is not known, every possible version is tried, and the verdict is what all of them have in
    common.
    """
    begin = find_start(source) if start is None else start
    known = GuestMemory.of(source) if memory is None else memory

    def walk(versions: Possible, target: Target) -> Verdict:
        blocks = None if target.blocks is None else {name: block.used_length for name, block in target.blocks.items()}
        ram = RamLoader.of(blocks, target.page_bits)
        load = Load(Cursor(source, begin), target, versions, ram, known)
        if begin and not contained:
            load.note(f"the stream begins at {begin:#x}: assumed to be loaded from file:PATH,offset={begin:#x}")
        verdict = _walk(load)
        if verdict.loads is False and load.supposed:
            # Refused with these capabilities and without them: use the message of a target that has them off.
            off = dict.fromkeys(load.supposed, False)
            return walk(versions, replace(target, capabilities={**target.capabilities, **off}))
        return verdict

    return judge_versions(target, walk)


def _walk(load: Load) -> Verdict:
    """Load the stream and return the verdict; raises :class:`~.versions.Split` where versions differ."""
    try:
        _load_state(load)
    except Refusal as refusal:
        if load.shaky:
            # The refusal follows from an assumption.
            load.doubt(f"{load.shaky}; if so: {refusal.lines()[0] if refusal.lines() else refusal.rule}")
            return _verdict(load, None, None)
        return _verdict(load, False, refusal)
    except Undecided as doubt:
        load.doubt(doubt.remark.message, doubt.remark.device or "")
    return _verdict(load, None if load.doubts else True, None)


def _verdict(load: Load, loads: bool | None, refusal: Refusal | None) -> Verdict:
    # Warnings before a refusal are on stderr, too.
    warnings, doubts = tuple(load.warnings), tuple(load.doubts)
    unknown = doubts + tuple(one for one in load.unseen if one not in doubts)
    notes = list(load.notes)
    if warnings or refusal is not None:
        version, family = load.target.qemu, load.words.family
        if version is not None and version[:2] != family:
            notes.insert(0, remark(f"the messages are those of QEMU {version_text(family)}, the nearest known version"))
    if refusal is None:
        return Verdict(
            loads, (), warnings, doubts=doubts, unknown=unknown, notes=tuple(notes), dead=tuple(load.dead.values())
        )
    return Verdict(
        loads=False,
        errors=(*warnings, *refusal.lines()),
        rule=refusal.rule,
        offset=refusal.offset,
        section=refusal.section,
        values=refusal.values,
        # It is refused, so no doubt can change the verdict.
        unknown=unknown,
        notes=tuple(notes),
    )


def _load_state(load: Load) -> None:
    """Model ``qemu_loadvm_state``; raises :class:`Refusal` or :class:`Undecided`."""
    cursor = load.cursor
    # QEMU waits for the first byte before it checks anything.
    if cursor.left == 0:
        load.note("QEMU waits forever for the first byte")
        raise load.refuse("empty")
    if load.target.unmigratable:
        raise load.refuse("unmigratable-device", idstr=load.target.unmigratable[0])
    start = cursor.pos
    magic = cursor.be32()
    if magic != QEMU_VM_FILE_MAGIC:
        raise load.refuse("magic", start, magic=magic)
    version = cursor.be32()
    if version == QEMU_VM_FILE_VERSION_COMPAT:
        raise load.refuse("version-obsolete", start + 4)
    if version != QEMU_VM_FILE_VERSION:
        raise load.refuse("version", start + 4, version=version)
    load_configuration(load)
    _items(load, Registry.of(load.target.sections), 0)
    _vmdesc(load)
    put_registers(load)


def _items(load: Load, registry: Registry, depth: int) -> None:
    """Load items up to EOF, or up to the end of a package."""
    cursor = load.cursor
    while True:
        at = cursor.pos
        if depth and not cursor.left:
            return
        kind = cursor.u8()
        if cursor.failed:
            raise load.refuse("cut", at)
        if kind == SectionType.QEMU_VM_EOF:
            return
        if kind in (SectionType.QEMU_VM_SECTION_START, SectionType.QEMU_VM_SECTION_FULL):
            load_start(load, registry)
        elif kind in (SectionType.QEMU_VM_SECTION_PART, SectionType.QEMU_VM_SECTION_END):
            load_part(load, registry)
        elif kind == SectionType.QEMU_VM_COMMAND:
            length = load_command(load)
            if length is not None:
                _package(load, registry, length, depth)
        else:
            raise load.refuse("section-type", at, type=kind)


def _package(load: Load, registry: Registry, length: int, depth: int) -> None:
    """Load the items of a package, which are read like a separate stream."""
    if depth == MAX_PACKAGES:
        raise Undecided(f"nested packages at {load.cursor.pos:#x}")
    cursor = load.cursor
    end, cursor.end = cursor.end, cursor.pos + length
    _items(load, registry, depth + 1)
    cursor.pos, cursor.end = cursor.end, end


def _vmdesc(load: Load) -> None:
    """Read the byte after EOF: a missing vmdesc is only a warning."""
    if load.is_on("suppress-vmdesc", False) or load.postcopy:
        return
    found = load.cursor.u8()
    load.cursor.failed = False
    if found != SectionType.QEMU_VM_VMDESCRIPTION:
        load.warn("vmdesc", found=found)
