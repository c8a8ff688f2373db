"""Whether a target loads a stream, and if not, in which words it says so: ``qemu_loadvm_state``, acted out.

The stream is walked as the target's QEMU walks it, step by step and in its order, up to the first thing that it
refuses. QEMU never reads the vmdesc, so it is not read here; what the target's own bodies look like decides.
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
from qmigtool.preflight.remark import Remark
from qmigtool.preflight.target.versions import version_text
from qmigtool.stream.probe import find_start

if TYPE_CHECKING:
    from qmigtool.preflight.target.model import Target
    from qmigtool.preflight.target.versions import Possible
    from qmigtool.stream.model import Stream

__all__ = ["Verdict", "predict", "predict_source"]

MAX_PACKAGES = 2  # in each other; QEMU's own stack is the only limit there


def predict(stream: Stream, target: Target) -> Verdict:
    """Predict what ``target`` does with a stream. A stream that is broken is no reason not to."""
    stream.prove()
    source = stream.source
    if isinstance(source, BufferSource):
        memory = GuestMemory(lambda: stream)
        # A hole is before the stream itself, whatever else that was taken out of; libvirt reads its own head.
        contained = stream.container.name == "libvirt" and stream.container.in_place
        return predict_source(source, target, stream.start, contained=contained, memory=memory)
    pipe = Remark("the stream came through a pipe and its RAM was not kept: save it in a file first")
    return Verdict(None, unknown=(pipe,))


def predict_source(
    source: BufferSource,
    target: Target,
    start: int | None = None,
    *,
    contained: bool = False,
    memory: GuestMemory | None = None,
) -> Verdict:
    """Predict what ``target`` does with bytes, which need not be a stream at all.

    ``start`` is where it begins to read, by default behind a hole; ``contained`` says that somebody else's format lies
    before it, such as libvirt's, who reads that himself. ``memory`` is what the stream holds of guest memory.

    Where the target's version is not known, every version that it may be is tried, and a verdict is what all of them
    agree in.
    """
    begin = find_start(source) if start is None else start
    known = GuestMemory.of(source) if memory is None else memory

    def walk(versions: Possible, target: Target) -> Verdict:
        blocks = None if target.blocks is None else {name: block.used_length for name, block in target.blocks.items()}
        ram = RamLoader.of(blocks, target.page_bits)
        load = Load(Cursor(source, begin), target, versions, ram, known)
        if begin and not contained:
            load.note(f"the stream begins at {begin:#x}: taken as loaded from file:PATH,offset={begin:#x}")
        verdict = _walk(load)
        if verdict.loads is False and load.supposed:
            # Refused with these capabilities and without them: the words are those of a target that has them off.
            off = dict.fromkeys(load.supposed, False)
            return walk(versions, replace(target, capabilities={**target.capabilities, **off}))
        return verdict

    return judge_versions(target, walk)


def _walk(load: Load) -> Verdict:
    """Load the stream, and say what came of it; raises :class:`~.versions.Split` where versions differ."""
    try:
        _load_state(load)
    except Refusal as refusal:
        if load.shaky:
            # What is refused follows from what was only supposed.
            load.doubt(f"{load.shaky}; if so: {refusal.lines()[0] if refusal.lines() else refusal.rule}")
            return _verdict(load, None, None)
        return _verdict(load, False, refusal)
    except Undecided as doubt:
        load.doubt(doubt.remark.text, doubt.remark.place)
    return _verdict(load, None if load.doubts else True, None)


def _verdict(load: Load, loads: bool | None, refusal: Refusal | None) -> Verdict:
    # What was said before a refusal is on stderr with it.
    warnings, doubts = tuple(load.warnings), tuple(load.doubts)
    unknown = doubts + tuple(one for one in load.unseen if one not in doubts)
    notes = list(load.notes)
    if warnings or refusal is not None:
        version, family = load.target.qemu, load.words.family
        if version is not None and version[:2] != family:
            notes.insert(0, Remark(f"the words are those of QEMU {version_text(family)}, the nearest that is known"))
    if refusal is None:
        return Verdict(
            loads, (), warnings, doubts=doubts, unknown=unknown, notes=tuple(notes), dead=tuple(load.dead.items())
        )
    return Verdict(
        loads=False,
        errors=(*warnings, *refusal.lines()),
        rule=refusal.rule,
        offset=refusal.offset,
        section=refusal.section,
        values=refusal.values,
        # It is refused, whatever else may be.
        unknown=unknown,
        notes=tuple(notes),
    )


def _load_state(load: Load) -> None:
    """Act out ``qemu_loadvm_state``; raises :class:`Refusal` or :class:`Undecided`."""
    cursor = load.cursor
    # Nothing is read before the first byte has come.
    if cursor.left == 0:
        load.note("QEMU waits for ever for the first byte")
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
    """Load the items of a package, which are read as if they were a stream of their own."""
    if depth == MAX_PACKAGES:
        raise Undecided(f"packages inside packages at {load.cursor.pos:#x}")
    cursor = load.cursor
    end, cursor.end = cursor.end, cursor.pos + length
    _items(load, registry, depth + 1)
    cursor.pos, cursor.end = cursor.end, end


def _vmdesc(load: Load) -> None:
    """Look behind EOF: a missing vmdesc is told, and that is all."""
    if load.is_on("suppress-vmdesc", False) or load.postcopy:
        return
    found = load.cursor.u8()
    load.cursor.failed = False
    if found != SectionType.QEMU_VM_VMDESCRIPTION:
        load.warn("vmdesc", found=found)
