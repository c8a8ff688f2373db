"""``show``: device state."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from qmigtool import tables
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import (
    SHOWN_WALK,
    csv_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
    prove_option,
    schema_option,
)
from qmigtool.devices.device import find
from qmigtool.documents.show import show_document
from qmigtool.parsers.vmstate import Field, Kind
from qmigtool.util.budget import current
from qmigtool.util.jsontext import Hex
from qmigtool.util.text import printable, text_value, text_values
from qmigtool.x86.registers import register_for

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.stream.model import Stream


@command(
    "qmigtool show samples/pc-7.2.mig",
    "qmigtool show samples/pc-7.2.mig cpu@1/env.xcr0",
    "qmigtool show samples/q35-7.2.mig virtio-net",
)
@file_argument
@click.argument("path", required=False)
@schema_option
@prove_option
@csv_option
@json_option
def show(file: str, path: str | None, schema: str | None, prove: bool, as_csv: bool, as_json: bool) -> int:
    """Show device state.

    Without PATH, list the devices; with PATH, show a device, a field or a subsection: name[@instance]/field/..., for
    example cpu@1/env.xcr0, cpu@0/cpu/avx512 or cpu/env.segs[1]/base. A field that holds one number is printed as one
    number: unsigned in hexadecimal, signed in decimal.

    Short names: without @instance, the first instance; virtio-net for 0000:00:03.0/virtio-net and xcr0 for env.xcr0,
    where only one device or field ends like that; avx512 for the subsection cpu/avx512. PATH is not a pattern.
    """
    with opened(file, schema=schema, walk=None if prove else SHOWN_WALK) as stream:
        device, rest = (None, "") if path is None else find(stream.devices, path)
        if device is not None and path is not None:
            _say_instances(stream, device, path)
        if as_csv:
            if device is None:
                print_csv(tables.devices.columns, tables.devices.rows(stream))
            else:
                found = None if not rest else device.field(rest)
                print_csv(tables.fields.columns, tables.fields.rows(stream, device, found))
            return finish(stream)
        if as_json:
            shown = show_document(stream, device, rest)
            print_json(shown.document)
            return finish(stream, *shown.errors)
        if device is None:
            _print_devices(stream)
        elif not rest:
            device.ask()
            _print_fields(device.fields, "")
        else:
            _print_field(device, device.field(rest), rest)
        return finish(stream)


def _say_instances(stream: Stream, device: Device, path: str) -> None:
    """Report on stderr that a path without an instance means the first of several."""
    count = sum(one.name == device.name for one in stream.devices)
    if count > 1 and path != device.label and not path.startswith(f"{device.label}/"):
        say_error(f"qmigtool: {count} instances of {device.name}; {device.label} shown (NAME@INSTANCE shows another)")


def _print_devices(stream: Stream) -> None:
    head = ["device", "version", "id", "data at", "bytes", "vmsd"]
    cells = [
        [
            printable(device.label),
            str(device.version_id),
            str(device.section.section_id),
            f"{device.section.body_offset:#x}",
            str(device.section.body_length),
            printable(device.description.name) if device.description is not None else "",
        ]
        for device in stream.devices
    ]
    print_cells(head, cells, [False, True, True, True, True, False])


def _print_field(device: Device, field: Field, path: str) -> None:
    if field.kind is not Kind.LEAF:
        field.ask()
        _print_fields((field,), "")
        return
    _print_leaf(field)
    register = register_for(device.name, path)
    if register is not None and sys.stdout.isatty():
        say_error(f"{register.name}: {register.describe(field.value) or 'no bit is set'}")


def _print_leaf(field: Field) -> None:
    if not field.is_long or not any(bytes(piece).strip(b"\0") for piece in field.pieces()):
        print(text_value(field.type, field.value))
        return
    for digits in Hex(field.pieces()).digits():
        current().tick(field.offset, field.name)
        sys.stdout.write(digits)
    print()


def _print_fields(fields: Iterable[Field], indent: str) -> None:
    for field in fields:
        name = f"{indent}{printable(field.name)}"
        if field.kind is Kind.LEAF:
            sys.stdout.write(f"{name} = ")
            _print_leaf(field)
            continue
        if field.is_plain_array:
            sys.stdout.write(f"{name} = [")
            between = ""
            for chunk in field.chunks():
                current().tick(field.offset, field.name)
                sys.stdout.write(between + " ".join(text_values(field.type, chunk)))
                between = " "
            print("]")
        else:
            print(name)
            _print_fields(field.iter_children(), indent + "  ")
