"""The document that ``show --json`` prints: devices and their fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from qmigtool.errors import QmigError, UsageError
from qmigtool.parsers.vmstate import Field, Kind
from qmigtool.stream.info import problems_document
from qmigtool.util.jsontext import Hex, Items, Pairs, Tokens, materialised
from qmigtool.util.text import json_tokens, json_value

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.stream.model import Stream

__all__ = ["Shown", "show_document"]


class Shown(NamedTuple):
    """A document whose fields are made while it is written, and the errors of devices that cannot be decoded.

    Of several errors of one kind only the first: without a vmdesc, every device has the same.
    """

    document: dict[str, Any]
    errors: tuple[QmigError, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the document with all fields made."""
        made: dict[str, Any] = materialised(self.document)
        return made


def show_document(stream: Stream, device: Device | None = None, path: str = "") -> Shown:
    """Return all devices, one device, or the field at ``path`` in one.

    Raises :class:`~qmigtool.errors.UsageError` if there is no such field.
    """
    errors: list[QmigError] = []
    document: dict[str, Any] = {"proved": stream.proved, "devices": []}
    for one in stream.devices if device is None else (device,):
        entry: dict[str, Any] = {"name": one.name, "instance_id": one.instance_id, "version_id": one.version_id}
        if one.schema_name is not None:
            entry["schema_name"] = one.schema_name
        try:
            if path:
                field = one.field(path)
                field.ask()
                entry["fields"] = {path: _json_value(field)}
                document["field"] = {
                    "path": path,
                    "type": field.type,
                    "kind": field.kind.value,
                    "offset": field.offset,
                    "length": field.length,
                }
            else:
                one.charge()
                entry["fields"] = _json_object(one.fields)
        except QmigError as error:
            if isinstance(error, UsageError):
                raise
            errors.append(error)
            entry["error"] = error.as_dict()
        document["devices"].append(entry)
    kinds = {(type(error), getattr(error, "feature", None)): error for error in reversed(errors)}
    return Shown({**document, **problems_document(stream, *kinds.values())}, tuple(kinds.values()))


def _json_value(field: Field) -> Any:
    """Return a field as JSON has it: numbers of 64 bits without a sign, and bytes, as text.

    What is inside an array is made when it is written: there may be millions.
    """
    if field.is_long:
        return Hex(field.pieces())
    if field.kind is Kind.LEAF:
        return json_value(field.type, field.value)
    if field.is_plain_array:
        return Tokens(json_tokens(field.type, chunk) for chunk in field.chunks())
    if field.kind is Kind.ARRAY:
        return Items(_json_value(child) for child in field.iter_children())
    return _json_object(field.iter_children())


def _json_object(fields: Iterable[Field]) -> Pairs:
    """Return fields by name; of several of one name the last."""
    named = {field.name: field for field in fields}
    return Pairs((name, _json_value(field)) for name, field in named.items())
