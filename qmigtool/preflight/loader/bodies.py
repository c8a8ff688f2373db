"""The body of a device section up to its footer, and what is certain of its end.

:mod:`.bodyreader` reads it by the target's description. A body that cannot be read that way is undecided, and reading
resumes after the next footer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, TruncatedError
from qmigtool.parsers.bodies import SearchedBody
from qmigtool.parsers.records import QEMU_VM_SECTION_FOOTER
from qmigtool.parsers.window import Window
from qmigtool.preflight.loader.aborts import may_abort
from qmigtool.preflight.loader.armregisters import COUNT, compare_registers
from qmigtool.preflight.loader.bodyreader import BodyReader, Opaque, Own
from qmigtool.preflight.loader.lengths import OLD_STYLE, other_length
from qmigtool.preflight.loader.state import Undecided
from qmigtool.preflight.loader.words import Refusal

if TYPE_CHECKING:
    from qmigtool.preflight.loader.state import Load
    from qmigtool.preflight.target.model import TargetSection

__all__ = ["load_body"]

DISKS = ("block", "dirty-bitmap")
"""Live sections that name the target's block devices."""
LIVE = ("spapr/htab", "s390-storage_attributes")
"""Live sections that a target accepts if it sends them itself: their contents depend only on the guest."""


def load_body(
    load: Load, section: TargetSection | None, idstr: str, instance: int, version: int, section_id: int
) -> None:
    """Read a device's body up to its footer, and run the device's checks after it.

    Raises :class:`~.words.Refusal`, and :class:`~.state.Undecided` if a body cannot be read and has no footer.
    """
    label = f"{idstr}@{instance}"
    start = load.cursor.pos
    body = None
    try:
        if idstr in DISKS:
            load.doubt(
                "whether the target has the block devices that the section names: the target itself decides it", label
            )
        may_abort(load, section, idstr, label)
        if idstr in LIVE and section is not None and section.description is None:
            _pass(load, start, section_id)
            return
        if idstr in OLD_STYLE and (section is None or section.vmsd is None):
            if not OLD_STYLE[idstr](load):
                raise Opaque("it is in a device-specific format, and is not empty")
        elif section is None or section.description is None:
            raise Opaque(
                "the target's format of the section is unknown; a reference stream that contains it decides it"
            )
        elif section.vmsd is None:
            raise Opaque("the device has no description; the target itself decides it")
        else:
            body = BodyReader(load, section, label, instance, section_id)
            body.state(section.description, version, Own(section.template))
            unsure = _unsure(load, body, section, idstr, instance)
            if unsure:
                raise Opaque(unsure)
    except Opaque as why:
        load.doubt(str(why), label)
        _pass(load, start, section_id)
        if body is not None and section is not None and COUNT in body.values:
            # The registers are compared in any case.
            hook = {"vmsd": section.vmsd, "version": section.version, "minimum": section.version}
            compare_registers(load, body.values, hook, instance)
    except Refusal:
        unsure = _unsure(load, body, section, idstr, instance, refused=True) if body and section else ""
        if not unsure:
            raise
        load.doubt(unsure, label)
        _pass(load, start, section_id)
    if body is not None and section is not None and section.vmsd == "cpu":
        load.registers[instance] = body.values


def _pass(load: Load, start: int, section_id: int) -> None:
    """Continue after a body that cannot be read to its end."""
    load.cursor.failed = False
    load.cursor.pos = _end_of(load, start, section_id)


def _unsure(
    load: Load, body: BodyReader, section: TargetSection, idstr: str, instance: int, *, refused: bool = False
) -> str:
    """Return why a wrong end or a refusal of a body is uncertain; "" if it is certain, or if the end is right.

    Only what follows from known rules is certain: not what follows a field that was skipped by an assumed length, nor
    an array or a buffer whose length differs from the target's for an unknown reason.
    """
    footer = bytes([QEMU_VM_SECTION_FOOTER]) + body.section_id.to_bytes(4, "big")
    if load.cursor.peek(len(footer)) == footer or not (refused or load.footers):
        return ""
    if body.shaky:
        return f"everything after {body.shaky} was skipped"
    sent = load.memory.description(idstr, instance)
    if sent is None or section.description is None:
        return ""
    found = other_length(sent, section.description)
    name = f"{found[0]}:{found[1]}" if found is not None and found in body.read else ""
    return f"{name} differs in length from the target's: it is unknown which length applies" if name else ""


def _end_of(load: Load, start: int, section_id: int) -> int:
    """Find the footer of a body that continues at ``start``."""
    if not load.footers:
        raise Undecided("the end of this body is unknown, because the stream has no footers")
    window = Window(load.cursor.data[: load.cursor.end], final=True)
    try:
        end, _ = SearchedBody(section_id, start, load.started).advance(window, start)
    except TruncatedError:
        # Whatever the device reads, its footer is missing.
        load.note(f"section {section_id} has no footer: QEMU may print more messages, from inside it")
        raise load.refuse("body-cut", load.cursor.pos, vmsd="") from None
    except QmigError as error:
        raise Undecided(str(error)) from None
    return end
