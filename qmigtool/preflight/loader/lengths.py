"""Lengths of state that no description gives: found from the bytes themselves, or unknown.

:data:`VARIABLE` has the field types and :data:`OLD_STYLE` the sections without a description whose end can be found;
each function skips the state that it knows, and returns False for anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.parsers.vmstate import inside
from qmigtool.preflight.loader import fieldfacts as facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.parsers.vmdesc import Description, FieldDescription
    from qmigtool.preflight.loader.cursor import Cursor
    from qmigtool.preflight.loader.state import Load

__all__ = ["OLD_STYLE", "VARIABLE", "other_length"]

SLIRP_SIZE = 1 + 2 + 16 * 8  # no socket follows; ip_id be16; 16 x (allocated be16, MAC) (libslirp, src/state.c)
SKEYS_EOS = 1  # STORAGE_ATTR_FLAG_EOS (hw/s390x/s390-skeys.c)
TOD_SIZE = 1 + 8  # high u8, low be64 (hw/s390x/tod.c)


# -- field types -----------------------------------------------------------------------------------------------------


def _bytes(cursor: Cursor) -> bool:
    """``GByteArray``: be32 length, bytes (11.0 and later)."""
    cursor.skip(cursor.be32())
    return True


def _requests(cursor: Cursor) -> bool:
    """``scsi-requests``: (1 or 2, a request)* 0 (hw/scsi/scsi-bus.c)."""
    if cursor.look():
        return False
    cursor.skip(1)
    return True


def _tree(cursor: Cursor) -> bool:
    """``gtree``: be32 count, (1, key, value)* 0."""
    if int.from_bytes(cursor.peek(4), "big"):
        return False
    cursor.skip(5)
    return True


VARIABLE: dict[str, Callable[[Cursor], bool]] = {"GByteArray": _bytes, "scsi-requests": _requests, "gtree": _tree}


# -- sections without a description ----------------------------------------------------------------------------------


def _slirp(load: Load) -> bool:
    """Sockets of guestfwd (42, a socket)*, then 0, and what does not depend on the guest."""
    if load.cursor.look():
        return False
    load.cursor.skip(SLIRP_SIZE)
    return True


def _skeys(load: Load) -> bool:
    """be64 words with flags in the low bits; keys that are not enabled are one word."""
    if int.from_bytes(load.cursor.peek(8), "big") != SKEYS_EOS:
        return False
    load.cursor.skip(8)
    return True


def _tod(load: Load) -> bool:
    """u8: whether there is a time of day; then the time."""
    if load.cursor.u8():
        load.cursor.skip(TOD_SIZE)
    return True


def _nothing(load: Load) -> bool:
    """No fields at all (``vmstate_audio`` in audio/audio.c)."""
    return True


OLD_STYLE: dict[str, Callable[[Load], bool]] = {
    "slirp": _slirp,
    "s390-skeys": _skeys,
    "todclock": _tod,
    facts.AUDIO: _nothing,
}


# -- differing lengths in two bodies ---------------------------------------------------------------------------------


def other_length(sent: Description, own: Description) -> tuple[str, str] | None:
    """Return (vmsd, field) of a field that differs from the target's only in its length, for an unknown reason.

    None if there is none: then the bodies have different fields, which depends on the target's machine and version.
    """
    known = {field.name: field for field in own.fields}
    for field in sent.fields:
        other = known.get(field.name)
        if other is None or other.type != field.type:
            continue
        key = own.name, field.name
        if not (
            key in facts.COUNTED
            or key in facts.SIZED
            or key in facts.OWN_COUNTED
            or key in facts.PER_VCPU
            or key in facts.ALIKE
        ):
            inner, mine = inside(field), inside(other)
            if (field.array_len or 1) != (other.array_len or 1) or (inner is None and _plain(field, other)):
                return key
        inner, mine = inside(field), inside(other)
        if inner is not None and mine is not None:
            found = other_length(inner, mine)
            if found:
                return found
        if field.type in facts.LISTS and other.inline:
            for element in field.inline:  # their buffers may differ in length
                if found := other_length(element, other.inline[0]):
                    return found
    for sub in sent.subsections:
        for mine in own.subsections:
            if sub.name == mine.name and (found := other_length(sub, mine)):
                return found
    return None


def _plain(field: FieldDescription, other: FieldDescription) -> bool:
    return field.size != other.size and field.type not in facts.LISTS and field.type != "virtio"
