"""``info``, ``sections`` and ``show``: what a stream is, and what is in it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from qmigtool import tables
from qmigtool.cli.output import (
    SHOWN_WALK,
    accelerator_option,
    as_records,
    csv_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
    print_json,
    problems_json,
    prove_option,
    say_error,
    schema_option,
)
from qmigtool.devices.device import find
from qmigtool.errors import BudgetError, QmigError, SnapshotsError, UsageError
from qmigtool.parsers.savevm import Type
from qmigtool.parsers.vmstate import Field, Kind
from qmigtool.stream.missing import missing_memory
from qmigtool.util.budget import current
from qmigtool.util.jsontext import Items, Pairs, Tokens
from qmigtool.util.text import json_tokens, json_value, printable, text_value, text_values
from qmigtool.x86.accelerator import UNKNOWN
from qmigtool.x86.registers import register_for

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.savevm import Section
    from qmigtool.stream.missing import Missing
    from qmigtool.stream.model import Stream


@click.command()
@file_argument
@accelerator_option
@schema_option
@click.option("--channel", "channels", multiple=True, metavar="FILE", help="An extra channel of the migration.")
@click.option("--quick", is_flag=True, help="Do not read all of RAM's headers: 256 MiB of them, to prove what is said.")
@json_option
def info(
    file: str, accelerator: str | None, schema: str | None, channels: tuple[str, ...], quick: bool, as_json: bool
) -> int:
    """Say what FILE is.

    All of RAM's headers are read, so that what is broken or missing is found. With --quick, what only they tell
    (sections, pages, whether it is complete) is left unknown where there are many. Of a qcow2 image with several
    snapshots, of which --snapshot chooses none, they are listed. Exit status 1 if memory is missing.
    """
    try:
        walk = SHOWN_WALK if quick else None
        with opened(file, accelerator, schema=schema, channels=channels, walk=walk) as stream:
            whole = not quick or stream.proved
            # Where the stream is broken, that is why.
            lacking = missing_memory(stream) if whole and not stream.problems else None
            document = _info(stream, lacking, whole=whole)
            if as_json:
                print_json({**document, **problems_json(stream)})
            else:
                _print_info(document, lacking)
            status = finish(stream)
            if lacking is not None and not lacking.excuse:
                say_error(f"qmigtool: {file}: {lacking.words} (multifd and postcopy use others: --channel adds them)")
                return status or MISSING
            return status
    except SnapshotsError as several:
        _print_snapshots(several, as_json=as_json)
        return 0


def _print_snapshots(several: SnapshotsError, *, as_json: bool) -> None:
    """List the snapshots of an image of which none was chosen."""
    if as_json:
        print_json({"container": "qcow2", "snapshots": list(several.snapshots)})
        return
    print(f"{'container':13} qcow2")
    head = "snapshots"
    for one in several.snapshots:
        size = one["vm_state_size"]
        holds = f"{_bytes(size)} of machine state (--snapshot {one['name'] or one['id']})" if size else "disks alone"
        print(f"{head:13} {printable(one['name'])} (id {printable(one['id'])}): {printable(holds)}")
        head = ""


def _info(stream: Stream, lacking: Missing | None, *, whole: bool) -> dict[str, Any]:
    """Return the document; what only all of RAM's headers tell is None unless ``whole`` says to read them."""
    sections = stream.sections if whole else None  # first: only this meets what is wrong inside RAM
    held, pages = stream.pages_held if whole else (None, None)
    configuration = stream.configuration
    raw_uuid = configuration.uuid if configuration is not None else None
    return {
        "container": stream.container.name,
        "compression": stream.container.compression,
        "container_details": stream.container.details,
        "size": stream.size,
        "machine": stream.machine,
        "page_size": stream.page_size,
        "page_size_inferred": stream.page_size_inferred,
        "accelerator": {
            "name": stream.accelerator.name,
            "evidence": list(stream.accelerator.evidence),
            "given": stream.accelerator.given,
        },
        "vcpus": sum(device.name == "cpu" for device in stream.devices),
        "devices": len(stream.devices),
        "sections": None if sections is None else len(sections),
        "pages_held": held,
        "pages": pages,
        "pages_missing": (0 if lacking is None else lacking.pages) if whole else None,
        "channels": stream.channels,
        "ram_blocks": [{"name": block.idstr, "size": block.used_length} for block in stream.ram_blocks],
        "shared_blocks": list(stream.shared_blocks) if whole else None,
        "capabilities": list(stream.capabilities),
        "uuid": str(uuid.UUID(bytes=raw_uuid)) if raw_uuid is not None else None,
        "vmdesc": stream.vmdesc is not None,
        "borrowed_schema": stream.borrowed,
        "road": stream.road,
        "proved": stream.proved,
        **{
            where: None if sections is None else sum(s.length for s in sections if s.type is kind)
            for where, kind in AROUND.items()
        },
        "complete": _complete(stream, lacking) if whole else None,
    }


def _complete(stream: Stream, lacking: Missing | None = None) -> bool | None:
    """Say whether a stream is complete; None where a limit was reached before that could be seen."""
    if stream.problems and all(isinstance(one, BudgetError) for one in stream.problems):
        return None
    return stream.complete and (lacking is None or bool(lacking.excuse))


# What can be in the file besides the stream: a hole (file:PATH,offset=N), padding or garbage.
AROUND = {"before": Type.PREFIX, "behind": Type.TAIL}


MISSING = 1  # exit status: memory is missing
NOT_READ = "unknown (RAM's headers were not all read)"
LIMITED = "unknown (a limit was reached: not all could be read)"
NOT_PROVED = "NO: the device state was found from the end of the file, and may be another stream's"


def _schema(name: str) -> str:
    return f"a schema learned from other streams: {name}"


def _how(accelerator: dict[str, Any]) -> str:
    if accelerator["name"] == UNKNOWN:
        return ""
    return " (given)" if accelerator["given"] else " (inferred)"


def _print_info(document: dict[str, Any], lacking: Missing | None) -> None:
    accelerator = document["accelerator"]

    def shared(name: str) -> str:
        return ", shared memory that is not in the file" if name in (document["shared_blocks"] or ()) else ""

    blocks = document["ram_blocks"]
    lines: list[tuple[str, str]] = [
        ("container", document["container"]),
        *(("", f"- {text}") for text in _details(document["container_details"])),
        ("compression", document["compression"]),
        ("size", _bytes(document["size"]) if document["size"] is not None else "unknown"),
        ("machine", document["machine"] or "not in the stream"),
        ("page size", _bytes(document["page_size"]) + (" (inferred)" if document["page_size_inferred"] else "")),
        *([("UUID", document["uuid"])] if document["uuid"] else []),
        ("accelerator", accelerator["name"] + _how(accelerator)),
        *(("", f"- {text}") for text in accelerator["evidence"] if not accelerator["given"]),
        ("vCPUs", str(document["vcpus"])),
        ("devices", str(document["devices"])),
        ("sections", NOT_READ if document["sections"] is None else str(document["sections"])),
        ("RAM", f"{_bytes(sum(block['size'] for block in blocks))} in {len(blocks)} blocks"),
        *(("", f"- {block['name']}: {_bytes(block['size'])}{shared(block['name'])}") for block in blocks),
        *([("", lacking.words)] if lacking is not None else []),
        ("capabilities", ", ".join(document["capabilities"]) or "none recorded (QEMU records few of them)"),
        ("vmdesc", "yes" if document["vmdesc"] else "no"),
        *([("decoded by", _schema(document["borrowed_schema"]))] if document["borrowed_schema"] else []),
        *((f"{where} it", _bytes(document[where])) for where in ("before", "behind") if document[where]),
        *([] if document["proved"] else [("proved", NOT_PROVED)]),
        (
            "complete",
            {True: "yes", False: "NO", None: LIMITED if document["sections"] else NOT_READ}[document["complete"]],
        ),
    ]
    for name, text in lines:
        print(f"{name:13} {printable(text)}")


def _details(details: dict[str, Any]) -> Iterator[str]:
    """Give what is known of a container, a line for each."""
    for name, value in details.items():
        words = name.replace("_", " ")
        if isinstance(value, list):
            yield from (f"{one['name']}: {_bytes(one['bytes'])}" for one in value)
        else:
            yield f"{words}: {('no', 'yes')[value] if isinstance(value, bool) else value}"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            exact = count / size
            return f"{exact:.0f} {unit}" if exact == int(exact) else f"{exact:.1f} {unit} ({count} bytes)"
    return f"{count} bytes"


@click.command()
@file_argument
@click.option("--all", "every", is_flag=True, help="List every PART, not one line for a run of them.")
@csv_option
@json_option
def sections(file: str, every: bool, as_csv: bool, as_json: bool) -> int:
    """List every section of FILE in stream order; together they cover every byte."""
    table = tables.sections
    with opened(file) as stream:
        if as_json:
            found = as_records(table.columns, table.rows(stream))
            print_json({"sections": found, "complete": _complete(stream), **problems_json(stream)})
        elif as_csv:
            print_csv(table.columns, table.rows(stream))
        else:
            rows = stream.sections if every else _squashed(stream.sections)
            print_cells(
                ["offset", "length", "type", "id", "name", "instance", "version"],
                [_section_cells(row) for row in rows],
                [True, True, False, True, False, True, True],
            )
        return finish(stream)


def _section_cells(row: Section | tuple[Section, int, int]) -> list[str]:
    section, length, count = row if isinstance(row, tuple) else (row, row.length, 1)
    numbers = (section.instance_id, section.version_id)
    return [
        f"{section.offset:#x}",
        str(length),
        section.type.value + (f" x {count}" if count > 1 else "") + ("" if section.complete else " (cut)"),
        "" if section.section_id is None else str(section.section_id),
        printable(section.name or ""),
        *("" if number is None else str(number) for number in numbers),
    ]


def _squashed(found: Iterable[Section]) -> Iterator[tuple[Section, int, int]]:
    """Give (first, bytes, count) of each run of items that differ only by their place."""
    for _, run in groupby(found, key=lambda s: (s.type, s.section_id, s.name, s.complete)):
        first, length, count = None, 0, 0
        for section in run:
            first = first or section
            length += section.length
            count += 1
        if first is not None:
            yield first, length, count


@click.command()
@file_argument
@click.argument("path", required=False)
@schema_option
@prove_option
@csv_option
@json_option
def show(file: str, path: str | None, schema: str | None, prove: bool, as_csv: bool, as_json: bool) -> int:
    """Show device state: all devices of FILE, or what is at PATH.

    PATH is name[@instance]/field/..., for example cpu@1/env.xcr0, cpu@0/cpu/avx512 or "apic/id". A field that holds one
    number is printed as one number: unsigned in hexadecimal, signed in decimal.
    """
    with opened(file, schema=schema, walk=None if prove else SHOWN_WALK) as stream:
        device, rest = (None, "") if path is None else find(stream.devices, path)
        if device is not None and path is not None:
            _say_instances(stream, device, path)
        if as_csv:
            if device is None:
                print_csv(tables.devices.columns, tables.devices.rows(stream))
            else:
                found = None if not rest else _field(device, rest)
                print_csv(tables.fields.columns, tables.fields.rows(stream, device, found))
            return finish(stream)
        if as_json:
            return _show_json(stream, device, rest)
        if device is None:
            _print_devices(stream)
        elif not rest:
            device.ask()
            _print_fields(device.fields, "")
        else:
            _print_field(device, _field(device, rest), rest)
        return finish(stream)


def _say_instances(stream: Stream, device: Device, path: str) -> None:
    """Say on stderr that a path without an instance means the first of several."""
    count = sum(one.name == device.name for one in stream.devices)
    if count > 1 and path != device.label and not path.startswith(f"{device.label}/"):
        say_error(f"qmigtool: {count} instances of {device.name}; {device.label} shown (NAME@INSTANCE shows another)")


def _field(device: Device, path: str) -> Field:
    """Return a field; of a subsection that was not sent, say that."""
    try:
        return device.field(path)
    except UsageError as error:
        from qmigtool.preflight.target.builds import known_subsections

        vmsd = device.name if device.description is None else device.description.name
        for name in sorted(known_subsections(vmsd), key=len, reverse=True):
            short = name.removeprefix(f"{vmsd}/")
            if any(path == one or path.startswith(f"{one}/") for one in (name, short)) and not device.subsection(name):
                words = f"{device.label} has no subsection {name} in this stream: QEMU sends it only when it is needed"
                raise UsageError(words) from error
        raise


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


def _show_json(stream: Stream, device: Device | None, rest: str) -> int:
    errors: list[QmigError] = []
    document: dict[str, Any] = {"proved": stream.proved, "devices": []}
    for one in stream.devices if device is None else (device,):
        entry: dict[str, Any] = {"name": one.name, "instance_id": one.instance_id, "version_id": one.version_id}
        if one.borrowed is not None:
            entry["borrowed_schema"] = one.borrowed
        try:
            if rest:
                field = _field(one, rest)
                field.ask()
                entry["fields"] = {rest: _json_value(field)}
                document["field"] = {
                    "path": rest,
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
    # One of a kind is enough: without a vmdesc, every device says the same.
    kinds = {(type(error), getattr(error, "feature", None)): error for error in reversed(errors)}
    print_json({**document, **problems_json(stream, *kinds.values())})
    return finish(stream, *kinds.values())


def _json_value(field: Field) -> Any:
    """Return a field as JSON has it: numbers of 64 bits without a sign, and bytes, as text.

    What is inside an array is made when it is written: there may be millions.
    """
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


def _print_field(device: Device, field: Field, path: str) -> None:
    if field.kind is not Kind.LEAF:
        field.ask()
        _print_fields((field,), "")
        return
    print(text_value(field.type, field.value))
    register = register_for(device.name, path)
    if register is not None and sys.stdout.isatty():
        say_error(f"{register.name}: {register.describe(field.value) or 'no bit is set'}")


def _print_fields(fields: Iterable[Field], indent: str) -> None:
    for field in fields:
        name = f"{indent}{printable(field.name)}"
        if field.kind is Kind.LEAF:
            print(f"{name} = {text_value(field.type, field.value)}")
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
