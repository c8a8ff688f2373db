"""Fixes of bodies with more or fewer fields: QEMU sends these fields under a condition that both sides must share.

As in ``schema diff``, the stream's description of a device is compared with the target's. No fix is proposed where
they differ in anything other than fields that only one of them has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from qmigtool.devices.schema.shapes import find_struct
from qmigtool.parsers.vmstate import INTEGERS, can_decode
from qmigtool.preflight.remedies.fix import Fix, edit, join
from qmigtool.rewrite.fields import shown

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.vmdesc import Description, FieldDescription
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["fields"]

MAX_FIELDS = 8  # of one device; more is another device, not a condition
MAX_ELEMENTS = 64


class _Unlike(Exception):  # noqa: N818 - a signal, never seen by a caller
    """The two descriptions differ in more than the fields that only one of them has."""


@dataclass(frozen=True, slots=True)
class _Missing:
    """A field that only the target has: ``after`` names the field before it, ``own`` is the value the target sends."""

    path: str
    after: str
    field: FieldDescription
    own: bytes


@dataclass(frozen=True, slots=True)
class _Extra:
    """A field that only the stream has."""

    path: str


def fields(stream: Stream, target: Target, device: Device) -> Fix | None:
    """Add the fields that only the target has, drop those that only the stream has; None if there is nothing to fix."""
    known = target.sections or {}
    short = device.name.rsplit("/", 1)[-1]  # streams of old machine types have names without a path
    section = known.get((device.name, device.instance_id)) or known.get((short, device.instance_id))
    if device.description is None or section is None or section.description is None or section.template is None:
        return None
    try:
        found = list(_differences(device.description, section.description, "", section.template, 0))
    except _Unlike:
        return None
    if not 0 < len(found) <= MAX_FIELDS:
        return None
    return join(*(_fix(stream, device, one) for one in found))


def _fix(stream: Stream, device: Device, one: _Missing | _Extra) -> Fix:
    where = f"{device.label}/{one.path}"
    if isinstance(one, _Extra):
        field = device.field(one.path)
        lost = (f"{where}, {_value(device, one.path)}",) if any(field.raw) else ()
        return join(edit("drop-field", where, path=where), loses=lost)
    kind = _kind(stream, one.field)
    parameters = {"path": where, "type": kind, "after": one.after}
    text = f"{kind},after={one.after}"
    if any(one.own):
        parameters["value"] = f"hex:{one.own.hex()}"
        text += f"=hex:{one.own.hex()}"
    return edit("add-field", where, text, **parameters)


def _value(device: Device, path: str) -> str:
    value = shown(device.field(path))
    return f"{value:#x}" if isinstance(value, int) else f"{device.field(path).length} bytes that are not all zero"


def _kind(stream: Stream, field: FieldDescription) -> str:
    """Return the type of a field as ``--add-field`` accepts it."""
    count = "" if field.array_len is None else f"[{field.array_len}]"
    integer = INTEGERS.get(field.type)
    if (integer is not None and integer.size == field.size) or (field.type == "bool" and field.size == 1):
        return f"{field.type}{count}"
    if field.struct is not None:
        known = find_struct(stream.schema, field.struct.name)
        if known is not None and known.size == field.size:
            return f"{known.name}{count}"
        return f"buffer:{field.total}"
    if not can_decode(field.type, field.size):
        return f"buffer:{field.total}"  # a list with elements: the loader reads the same bytes
    return f"{field.type}:{field.size}{count}"


def _differences(
    sent: Description, own: Description, path: str, template: bytes, at: int
) -> Iterator[_Missing | _Extra]:
    """Yield what only one of two bodies has; ``at`` is the start of the target's body in ``template``."""
    a, b = sent.fields, own.fields
    names_a, names_b = [one.name for one in a], [one.name for one in b]
    places = [at]
    for one in b:
        places.append(places[-1] + one.total)
    prefix = f"{path}/" if path else ""
    for op, i1, i2, j1, j2 in SequenceMatcher(None, names_a, names_b, autojunk=False).get_opcodes():
        if op == "equal" or (op == "replace" and _alike(a[i1:i2], b[j1:j2])):
            for one, other, place in zip(a[i1:i2], b[j1:j2], places[j1:j2], strict=True):
                yield from _inside(one, other, prefix + one.name, template, place)
            continue
        for one in a[i1:i2]:
            if one.name in names_b or names_a.count(one.name) > 1 or not one.total:
                raise _Unlike
            yield _Extra(prefix + one.name)
        for index in range(j1, j2):
            one = b[index]
            if one.name in names_a or names_b.count(one.name) > 1 or not one.total:
                raise _Unlike
            after = names_b[index - 1] if index else ""
            yield _Missing(prefix + one.name, after, one, template[places[index] : places[index + 1]])


def _alike(a: Sequence[FieldDescription], b: Sequence[FieldDescription]) -> bool:
    """Whether fields with different names have the same bytes."""
    return [(one.size, one.array_len) for one in a] == [(one.size, one.array_len) for one in b]


def _inside(
    sent: FieldDescription, own: FieldDescription, path: str, template: bytes, at: int
) -> Iterator[_Missing | _Extra]:
    if sent.struct is None or own.struct is None:
        if (sent.size, sent.array_len) != (own.size, own.array_len):
            raise _Unlike
        return
    if sent.array_len != own.array_len or (own.array_len or 1) > MAX_ELEMENTS:
        raise _Unlike
    for index in range(own.array_len or 1):
        inner = path if own.array_len is None else f"{path}[{index}]"
        yield from _differences(sent.struct, own.struct, inner, template, at + index * own.size)
