"""A capture of migration traffic: the stream and its channels are the connections in it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from qmigtool.errors import StreamError, UnsupportedError, UsageError
from qmigtool.parsers.container import ContainerKind, Magic
from qmigtool.parsers.pcap import Flow, read_flows
from qmigtool.parsers.records import QEVM
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.unwrapped import Unwrapped, Wrapping

__all__ = ["CAPTURE"]


def _capture(found: Unwrapped, _magic: Magic, _snapshot: str | None) -> Unwrapped:
    with ExitStack() as files, _descriptors():
        flows = read_flows(found.source, lambda: files.enter_context(tempfile.TemporaryFile()))
        main = [flow for flow in flows if _head(flow) == QEVM]
        if not main:
            raise StreamError(f"no migration stream in the {len(flows)} directions of this capture", offset=0)
        if len(main) > 1:
            names = ", ".join(flow.name for flow in main[:8])
            raise UnsupportedError("a capture of several migrations", f"the capture has several migrations: {names}")
        sources = {flow.name: _mapped(flow, found.source.name) for flow in flows}
    problems = [
        StreamError(
            f"the capture lacks data after {flow.missing} bytes of {flow.name}; the rest of it is left out",
            section="capture",
        )
        for flow in flows
        if flow.missing is not None
    ]
    details = {"connections": [{"name": flow.name, "bytes": flow.size} for flow in flows]}
    return Unwrapped(
        sources.pop(main[0].name),
        found.container.without("pcap", name="pcap", details=details),
        0,
        tuple(sources.values()),
        (*found.outer, found.source),
        (*found.problems, *problems),
    )


def _head(flow: Flow) -> bytes:
    flow.file.seek(0)
    return flow.file.read(4)


def _mapped(flow: Flow, name: str) -> BufferSource:
    name = f"{name} ({flow.name})"
    if flow.kept is not None:
        return BufferSource(flow.kept, name)
    handle = os.dup(flow.file.fileno())
    flow.file.close()  # now, not when all are mapped: there may be hundreds
    return FileSource.of_handle(handle, name)


@contextmanager
def _descriptors() -> Iterator[None]:
    """Report running out of file descriptors as a usage error."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise UsageError(
            "the capture has more connections with data than this process may open files",
            expected="a higher `ulimit -n`",
        ) from None


CAPTURE = Wrapping(ContainerKind.CAPTURE, _capture)
