"""``wrap``: a stream put into a container."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import file_argument, finish, json_option, opened, output_file, remember_inputs
from qmigtool.cli.shared.parameters import read_small
from qmigtool.errors import UsageError
from qmigtool.parsers.qcow2 import QCOW2_MAGIC, Snapshot, read_qcow2
from qmigtool.parsers.saveimage import MAX_DATA, SaveFormat, SaveImage
from qmigtool.parsers.source import FileSource
from qmigtool.rewrite.bare import bare_stream
from qmigtool.rewrite.document import wrap_document
from qmigtool.rewrite.packing import PACKINGS
from qmigtool.rewrite.wrapping import FORMATS, LibvirtHeader, check_wrapped, write_libvirt, write_packed, write_qcow2
from qmigtool.stream.opening import open_stream
from qmigtool.stream.wrappings.qcow2 import choose_snapshot
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.rewrite.rewriter import Rewriter
    from qmigtool.stream.model import Stream

KINDS = ("libvirt", "qcow2", *PACKINGS)


@command(
    "qmigtool wrap samples/pc-7.2.mig --as gzip -o vm.mig.gz",
    "qmigtool unwrap samples/containers/libvirt-gzip.save.xz -o new.mig",
    "qmigtool wrap new.mig --as libvirt --like samples/containers/libvirt-gzip.save.xz -o new.save",
)
@file_argument
@click.option("--as", "kind", type=click.Choice(KINDS), required=True, help="The container.")
@click.option("-o", "--output", required=True, metavar="OUT", help="The file to write; not FILE itself.")
@click.option("--like", metavar="IMAGE", help="The image that FILE came from: its header or disk is kept.")
@click.option("--replace", metavar="NAME", help="The snapshot of IMAGE to replace, by name or id (for qcow2).")
@click.option("--xml", metavar="XML", help="The XML of the domain, in place of the image's (for libvirt).")
@click.option("--format", "form", type=click.Choice(FORMATS), help="The compression in a save image; by default kept.")
@click.option("--running/--paused", "running", default=None, help="What restoring the save image leaves the VM as.")
@json_option
def wrap(
    file: str,
    kind: str,
    output: str,
    like: str | None,
    replace: str | None,
    xml: str | None,
    form: str | None,
    running: bool | None,
    as_json: bool,
) -> int:
    """Put a stream into a container.

    FILE is a stream or any container of one, which is unwrapped first (see `qmigtool unwrap`). OUT is read again before
    it is renamed.

    A save image of libvirt gets the XML, the cookie, the compression and the run state of IMAGE, by default of FILE
    itself; --xml replaces the XML, which may have any length.

    For qcow2, OUT is a copy of IMAGE, by default of FILE itself, in which one snapshot has this state; disks and other
    snapshots stay.
    """
    _refuse_options(
        kind,
        {
            "--like": (like, ("libvirt", "qcow2")),
            "--replace": (replace, ("qcow2",)),
            "--xml": (xml, ("libvirt",)),
            "--format": (form, ("libvirt",)),
            "--running": (running, ("libvirt",)),
        },
    )
    if kind == "qcow2" and output == "-":
        raise UsageError("a qcow2 image is not written in order", expected="-o with a file")
    with ExitStack() as context:
        stream = context.enter_context(opened(file, spool=True))
        rewriter = bare_stream(stream)
        write: Callable[[BinaryIO], None]
        snapshot = None
        if kind == "qcow2":
            source, snapshot = context.enter_context(_image(stream, file, like, replace))
            write = lambda target: write_qcow2(rewriter, source, snapshot, target)  # noqa: E731
        elif kind == "libvirt":
            header = _header(stream, like, xml, form, running=running)
            write = lambda target: write_libvirt(rewriter, header, target)  # noqa: E731 - one of two
        else:
            write = lambda target: write_packed(rewriter, kind, target)  # noqa: E731
        with output_file(output) as target:
            write(target)
            target.flush()
            if output != "-":
                check_wrapped(rewriter, target, None if snapshot is None else snapshot.id)
                size = target.tell()
        if output == "-":
            return finish(stream)
        _report(rewriter, file, output, kind, size, as_json=as_json)
        return finish(stream)


def _refuse_options(kind: str, options: dict[str, tuple[object, tuple[str, ...]]]) -> None:
    for name, (value, kinds) in options.items():
        if value is not None and kind not in kinds:
            raise UsageError(f"{name} goes with --as {' or '.join(kinds)}")


@contextmanager
def _image(stream: Stream, file: str, like: str | None, name: str | None) -> Iterator[tuple[FileSource, Snapshot]]:
    """Give the qcow2 image to copy, and its snapshot to replace."""
    if like is None:
        if stream.container.removed != ("qcow2",) or file == "-":
            raise UsageError("a snapshot needs the image that it is in", expected="--like IMAGE, a qcow2 image")
        like, name = file, name or stream.container.details["snapshot_id"]
    remember_inputs(like)
    with FileSource(Path(like)) as source:
        if bytes(source.whole[:4]) != QCOW2_MAGIC:
            raise UsageError(f"{like} is not a qcow2 image", expected="an uncompressed one")
        yield source, choose_snapshot(read_qcow2(source).snapshots, name)


def _report(rewriter: Rewriter, file: str, output: str, kind: str, size: int, *, as_json: bool) -> None:
    if as_json:
        print_json(wrap_document(rewriter, kind, size))
        return
    for note in rewriter.notes:
        say_error(f"note: {printable(note)}")
    say_error(f"{output}: {size} bytes, {printable(file)} as {kind}")


def _header(
    stream: Stream, like: str | None, xml: str | None, form: str | None, *, running: bool | None
) -> LibvirtHeader:
    """Return the header to write: that of an image, with what options replace."""
    image = stream.container.header
    if like is not None:
        remember_inputs(like)
        with open_stream(like) as template:
            image = template.container.header
        if image is None:
            raise UsageError(f"{like} is not a save image of libvirt", expected="one whose header is kept")
    if image is None:
        if xml is None:
            raise UsageError("a save image of libvirt needs the domain's XML", expected="--xml XML or --like IMAGE")
        return LibvirtHeader(read_small(xml, MAX_DATA), None, bool(running), form or "raw")
    return LibvirtHeader(
        image.xml if xml is None else read_small(xml, MAX_DATA).rstrip(b"\n") + b"\n",
        image.cookie,
        image.was_running if running is None else running,
        form or _kept(image),
    )


def _kept(image: SaveImage) -> str:
    """Return the format of an image; a plain stream cannot be sparse."""
    return "raw" if image.format is SaveFormat.SPARSE else image.format.name.lower()
