"""``info``: what a stream is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.folding import wrapped
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import (
    SHOWN_WALK,
    accelerator_option,
    finish,
    json_option,
    opened,
    print_cells,
    schema_option,
    snapshot_option,
)
from qmigtool.cli.shared.several import Several, files_argument
from qmigtool.cli.shared.terminal import columns, styled
from qmigtool.errors import MigrationsError, SnapshotsError, UsageError
from qmigtool.stream.info import choices_document, domain_document, info_document, lacking_memory, problems_document
from qmigtool.stream.words import not_reached
from qmigtool.util.text import printable
from qmigtool.x86.accelerator import UNKNOWN

if TYPE_CHECKING:
    from qmigtool.stream.missing import Missing


@command(
    "qmigtool info samples/pc-7.2.mig",
    "qmigtool info samples/*.mig",
    "qmigtool info samples/containers/savevm-7.2.qcow2.xz --json",
)
@files_argument
@snapshot_option
@accelerator_option
@schema_option
@click.option(
    "--channel", "channels", multiple=True, metavar="FILE", help="An extra channel of the migration (repeatable)."
)
@click.option("--xml", is_flag=True, help="Print the domain's XML of a libvirt save image.")
@click.option("--quick", is_flag=True, help="Read at most 256 MiB of page headers of RAM.")
@json_option
def info(
    files: tuple[str, ...],
    accelerator: str | None,
    schema: str | None,
    channels: tuple[str, ...],
    xml: bool,
    quick: bool,
    as_json: bool,
) -> int:
    """Show what a file is.

    Of several files, a table has one line for each; --json has a list, "files".

    All page headers of RAM are read, so that broken or missing memory is found. With --quick, what only they tell
    (sections, pages, whether the stream is complete) may stay unknown. For a qcow2 image with several snapshots and
    without --snapshot, the snapshots are listed; so are the migrations of a capture that has several.

    Exit status 1 if memory is missing.
    """
    if channels and len(files) > 1:
        raise UsageError("--channel is for one FILE")
    if xml:
        return _print_xml(files, as_json=as_json)
    several = Several(files)
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        with several.each(file):
            document, lacking, unread, status = _read(file, accelerator, schema, channels, quick=quick)
            several.ended(status)
            if not several.alone:
                found[file] = document
            elif as_json:
                print_json(document)
            elif "snapshots" in document:
                _print_snapshots(document["snapshots"])
            elif "migrations" in document:
                _print_migrations(document["migrations"])
            else:
                _print_info(document, lacking, unread)
    if as_json and not several.alone:
        print_json({"files": several.documents(found)})
    elif found:
        cells = [_cells(file, document) for file, document in found.items()]
        print_cells(HEAD, cells, [False] * 4 + [True, True, True, False])
    return several.status


def _read(
    file: str, accelerator: str | None, schema: str | None, channels: tuple[str, ...], *, quick: bool
) -> tuple[dict[str, Any], Missing | None, str, int]:
    """Return the document about a file, what memory it lacks, why its rest was not reached, and the exit status."""
    try:
        walk = SHOWN_WALK if quick else None
        with opened(file, accelerator, schema=schema, channels=channels, walk=walk) as stream:
            whole = not quick or stream.proved
            lacking = lacking_memory(stream, whole=whole)
            document = info_document(stream, lacking, whole=whole)
            status = finish(stream)
            if lacking is not None and lacking.status:
                say_error(f"qmigtool: {file}: {lacking.words} ({lacking.advice})")
                status = status or lacking.status
            return document, lacking, "" if stream.unreached is None else not_reached(stream.unreached), status
    except (SnapshotsError, MigrationsError) as several:
        return choices_document(several), None, "", 0


def _print_xml(files: tuple[str, ...], *, as_json: bool) -> int:
    """Print the XML of a save image, its lines made harmless; with --json as it is."""
    if len(files) > 1:
        raise UsageError("--xml is for one FILE")
    with opened(files[0], walk=SHOWN_WALK) as stream:
        header = stream.container.header
        if header is None:
            raise UsageError("no XML: this is not a libvirt save image")
        text = header.xml.decode("utf-8", "backslashreplace")
        if as_json:
            print_json({"xml": text, "domain": domain_document(stream), **problems_document(stream)})
        else:
            for line in text.splitlines():
                print("\t".join(printable(part) for part in line.split("\t")))
        return finish(stream)


HEAD = ["file", "container", "machine", "saved by", "vCPUs", "devices", "RAM", "complete"]


def _cells(file: str, document: dict[str, Any]) -> list[str]:
    """Return the line of a file in the table of several."""
    for several in ("snapshots", "migrations"):
        if several in document:
            return [printable(file), document["container"], f"{len(document[several])} {several}", *[""] * 5]
    compression = document["compression"]
    return [
        printable(file),
        document["container"] + ("" if compression == "none" else f", {compression}"),
        printable(document["machine"] or "-"),
        document["accelerator"]["name"],
        _count(document["vcpus"]),
        _count(document["devices"]),
        _bytes(sum(block["size"] for block in document["ram_blocks"]), exact=False),
        {True: "yes", False: "NO", None: "unknown"}[document["complete"]],
    ]


def _print_snapshots(snapshots: list[dict[str, Any]]) -> None:
    """List the snapshots of an image of which none was chosen."""
    print(f"{'container':13} qcow2")
    head = "snapshots"
    for one in snapshots:
        size = one["vm_state_size"]
        holds = f"{_bytes(size)} of machine state (--snapshot {one['name'] or one['id']})" if size else "disks alone"
        print(f"{head:13} {printable(one['name'])} (id {printable(one['id'])}): {printable(holds)}")
        head = ""


def _print_migrations(migrations: list[dict[str, Any]]) -> None:
    """List the migrations of a capture of which none was chosen."""
    print(f"{'container':13} pcap")
    head = "migrations"
    for one in migrations:
        holds = f"{_bytes(one['bytes'])} in {one['channels']} channels (--migration {one['migration']})"
        print(f"{head:13} {one['migration']}: {printable(one['name'])}: {holds}")
        head = ""


NOT_READ = "unknown (RAM's headers were not all read)"
LIMITED = "unknown (a limit was reached: not all could be read)"
UNWRAPPED = "{} (size and offsets count in the result)"
NOT_PROVED = "NO: the device state was found from the end of the file, and may be another stream's"


MAX_DEVICES = 40  # shown


def _schema(name: str) -> str:
    return f"a schema learned from other streams: {name}"


def _how(accelerator: dict[str, Any]) -> str:
    if accelerator["name"] == UNKNOWN:
        return ""
    return " (given)" if accelerator["given"] else " (inferred)"


def _count(number: int | None, unread: str = "") -> str:
    """Return a number of sections; where reading stopped, there may be more."""
    if number is None:
        return unread or "unknown"
    return f"{number}, the rest is {unread}" if unread else str(number)


def _print_info(document: dict[str, Any], lacking: Missing | None, unread: str) -> None:
    accelerator = document["accelerator"]

    def shared(name: str) -> str:
        return ", shared memory that is not in the file" if name in (document["shared_blocks"] or ()) else ""

    blocks = document["ram_blocks"]
    lines: list[tuple[str, str]] = [
        ("container", document["container"]),
        *(("", f"- {text}") for text in _details(document["container_details"])),
        *(_domain(document["domain"]) if document["domain"] is not None else ()),
        ("compression", document["compression"]),
        *([("unwrapped", UNWRAPPED.format(" > ".join(document["layers"])))] if document["layers"] else []),
        *([("file size", _bytes(document["file_size"]))] if document["layers"] and document["file_size"] else []),
        ("size", _bytes(document["size"]) if document["size"] is not None else "unknown"),
        ("machine", document["machine"] or "not in the stream"),
        ("page size", _bytes(document["page_size"]) + (" (inferred)" if document["page_size_inferred"] else "")),
        *([("UUID", document["uuid"])] if document["uuid"] else []),
        ("accelerator", accelerator["name"] + _how(accelerator)),
        *(("", f"- {text}") for text in accelerator["evidence"] if not accelerator["given"]),
        ("vCPUs", _count(document["vcpus"], unread)),
        ("devices", _count(document["devices"], unread)),
        ("sections", NOT_READ if document["sections"] is None else str(document["sections"])),
        ("RAM", f"{_bytes(sum(block['size'] for block in blocks))} in {len(blocks)} blocks"),
        *(("", f"- {block['name']}: {_bytes(block['size'])}{shared(block['name'])}") for block in blocks),
        *([("", lacking.words)] if lacking is not None else []),
        ("capabilities", ", ".join(document["capabilities"]) or "none recorded (QEMU records few of them)"),
        ("vmdesc", "yes" if document["vmdesc"] else unread or "no"),
        *([("decoded by", _schema(document["schema_name"]))] if document["schema_name"] else []),
        *(
            (f"{word} it", _bytes(document[where]) + (_content(document) if where == "behind" else ""))
            for where, word in (("before", "before"), ("behind", "after"))
            if document[where]
        ),
        *([] if document["proved"] else [("proved", NOT_PROVED)]),
        (
            "complete",
            {True: "yes", False: "NO", None: LIMITED if document["sections"] else NOT_READ}[document["complete"]],
        ),
    ]
    width = columns()
    alarming = {name for name in ("proved", "complete") if document[name] is False}
    for name, text in lines:
        parts = [printable(text)] if width is None else wrapped(printable(text), max(width - 14, 20), hanging=2)
        colour = "red" if name in alarming else None
        for i, part in enumerate(parts):
            print(f"{name if i == 0 else '':13} {styled(part, colour)}".rstrip())


def _content(document: dict[str, Any]) -> str:
    """Say what follows the stream, as far as that is known."""
    return {True: " of zeros", False: " that are not part of it", None: ""}[document["behind_zero"]]


def _domain(domain: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what libvirt's XML says of the VM."""
    if "unread" in domain:
        yield "domain", f"unknown: {domain['unread']}"
        return
    yield "domain", " ".join(one for one in (domain["name"], domain["uuid"]) if one) or "without a name"
    cpu = " ".join(one for one in (domain["cpu_mode"], domain["cpu_model"]) if one)
    memory = domain["memory"]
    parts = [
        domain["type"],
        " ".join(one for one in (domain["arch"], domain["machine"]) if one),
        f"CPU {cpu}" if cpu else None,
        None if domain["vcpus"] is None else f"{domain['vcpus']} vCPUs",
        None if memory is None else f"{_bytes(memory)} of memory",
    ]
    yield "", f"- {', '.join(one for one in parts if one)}"
    if domain["devices"]:
        shown = domain["devices"][:MAX_DEVICES]
        more = len(domain["devices"]) - len(shown)
        yield "", f"- {', '.join(shown)}" + (f" and {more} more" if more else "")


def _details(details: dict[str, Any]) -> Iterator[str]:
    """Give what is known of a container, a line for each."""
    for name, value in details.items():
        words = name.replace("_", " ")
        if isinstance(value, list):
            yield from (f"{one['name']}: {one['role']}, {_bytes(one['bytes'])}" for one in value)
        else:
            yield f"{words}: {('no', 'yes')[value] if isinstance(value, bool) else value}"


def _bytes(count: int, *, exact: bool = True) -> str:
    """Return a size with a unit; where that rounds it, with the bytes after it if it has to be ``exact``."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            if not count % size:
                return f"{count // size} {unit}"
            return f"{count / size:.1f} {unit}" + (f" ({count} bytes)" if exact else "")
    return f"{count} bytes"
