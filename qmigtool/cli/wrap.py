"""``wrap``: a stream put into a container."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import file_argument, finish, json_option, opened, output_file, remember_inputs
from qmigtool.cli.shared.parameters import read_small
from qmigtool.errors import UsageError
from qmigtool.parsers.saveimage import MAX_DATA, SaveFormat, SaveImage
from qmigtool.rewrite.bare import bare_stream
from qmigtool.rewrite.document import wrap_document
from qmigtool.rewrite.packing import PACKINGS
from qmigtool.rewrite.wrapping import FORMATS, LibvirtHeader, check_wrapped, write_libvirt, write_packed
from qmigtool.stream.opening import open_stream
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.rewrite.rewriter import Rewriter
    from qmigtool.stream.model import Stream

KINDS = ("libvirt", *PACKINGS)


@command(
    "qmigtool wrap samples/pc-7.2.mig --as gzip -o vm.mig.gz",
    "qmigtool unwrap samples/containers/libvirt-gzip.save.xz -o new.mig",
    "qmigtool wrap new.mig --as libvirt --like samples/containers/libvirt-gzip.save.xz -o new.save",
)
@file_argument
@click.option("--as", "kind", type=click.Choice(KINDS), required=True, help="The container.")
@click.option("-o", "--output", required=True, metavar="OUT", help="The file to write; not FILE itself.")
@click.option("--like", metavar="IMAGE", help="The image that FILE came from: its header is kept.")
@click.option("--xml", metavar="XML", help="The XML of the domain, in place of the image's (for libvirt).")
@click.option("--format", "form", type=click.Choice(FORMATS), help="The compression in a save image; by default kept.")
@click.option("--running/--paused", "running", default=None, help="What restoring the save image leaves the VM as.")
@json_option
def wrap(
    file: str,
    kind: str,
    output: str,
    like: str | None,
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
    """
    libvirt = {"--like": like, "--xml": xml, "--format": form, "--running": running}
    used = [name for name, value in libvirt.items() if value is not None]
    if kind != "libvirt" and used:
        raise UsageError(f"{used[0]} goes with --as libvirt")
    with opened(file, spool=True) as stream:
        rewriter = bare_stream(stream)
        write: Callable[[BinaryIO], None]
        if kind == "libvirt":
            header = _header(stream, like, xml, form, running=running)
            write = lambda target: write_libvirt(rewriter, header, target)  # noqa: E731 - one of two
        else:
            write = lambda target: write_packed(rewriter, kind, target)  # noqa: E731
        with output_file(output) as target:
            write(target)
            target.flush()
            if output != "-":
                check_wrapped(rewriter, target)
                size = target.tell()
        if output == "-":
            return finish(stream)
        _report(rewriter, file, output, kind, size, as_json=as_json)
        return finish(stream)


def _report(rewriter: Rewriter, file: str, output: str, kind: str, size: int, *, as_json: bool) -> None:
    if as_json:
        print_json(wrap_document(rewriter, kind, size))
        return
    for note in rewriter.notes:
        say_error(f"note: {printable(note)}")
    say_error(f"{output}: {size} bytes, {kind} of {printable(file)}")


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
            raise UsageError(f"{like} is no save image of libvirt", expected="one whose header is kept")
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
