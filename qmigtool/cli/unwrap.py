"""``unwrap``: the bare stream of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.edited import write_to
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import file_argument, finish, json_option, opened, output_file
from qmigtool.parsers.source import FileSource
from qmigtool.rewrite.bare import bare_stream
from qmigtool.rewrite.document import unwrap_document
from qmigtool.stream.info import problems_document
from qmigtool.util.files import copy_range
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream


@command(
    "qmigtool unwrap samples/containers/libvirt-gzip.save.xz -o vm.mig",
    "qmigtool unwrap samples/containers/multifd-10.0.pcap.xz -o vm.mig",
)
@file_argument
@click.option("-o", "--output", required=True, metavar="OUT", help="The file to write; not FILE itself.")
@click.option(
    "--channel", "channels", multiple=True, metavar="FILE", help="An extra channel of the migration (repeatable)."
)
@click.option(
    "--absent",
    type=click.Choice(["error", "zero"]),
    default="error",
    help="Pages that are in no channel.",
    show_default=True,
)
@json_option
def unwrap(file: str, output: str, channels: tuple[str, ...], absent: Any, as_json: bool) -> int:
    """Take a stream out of its container.

    OUT is the bare stream, which `qemu -incoming "exec:cat OUT"` loads, without what is around it in FILE: headers,
    compression, padding. Memory of a live migration (multifd, postcopy, XBZRLE, compress) and mapped-ram memory become
    plain records; a stream that is plain already is copied byte for byte. OUT is written to a temporary file, read
    again, and renamed.

    Of a broken stream what can be read is copied as it is, with exit status 3.
    """
    with opened(file, channels=channels, spool=True) as stream:
        _ = stream.sections  # only this finds the errors in RAM
        if stream.problems and not stream.channels:
            return _copy(stream, file, output, as_json=as_json)
        rewriter = bare_stream(stream, absent=absent)
        written = write_to(rewriter, rewriter.splices(), output)
        if as_json and output != "-":
            print_json(unwrap_document(rewriter, written))
        else:
            for note in rewriter.notes:
                say_error(f"note: {printable(note)}")
            layers = ", ".join(stream.container.removed)
            words = f"unwrapped from {file} ({layers})" if layers else f"the plain stream of {file}"
            if not layers and not rewriter.notes:
                words = f"copied: {file} has no container"
            say_error(f"{output}: {written} bytes, {printable(words)}")
        return finish(stream)


def _copy(stream: Stream, file: str, output: str, *, as_json: bool) -> int:
    """Write the bytes of a broken stream from its start on."""
    with output_file(output) as target:
        written = (stream.source.size or 0) - stream.start
        if isinstance(stream.source, FileSource):
            copy_range(stream.source.fileno(), stream.start, written, target)
        else:
            target.write(stream.source.view(stream.start, written))
    if as_json and output != "-":
        document = {"container": stream.container.name, "removed": list(stream.container.removed), "notes": []}
        print_json({**document, "bytes": written, **problems_document(stream)})
    else:
        say_error(f"{output}: {written} bytes of {printable(file)}, which is broken")
    return finish(stream)
