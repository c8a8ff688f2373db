"""Unwrapping the stream in a container: a save image, a compressed file, a snapshot in a qcow2 image, a capture.

A stream that is contiguous in its container is read in place. Otherwise it is written once to an unnamed temporary
file, which is mapped like any other file; offsets then count in the stream, not in the container.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, BinaryIO

from qmigtool.errors import (
    BudgetError,
    LimitError,
    QmigError,
    SnapshotsError,
    StreamError,
    UnsupportedError,
    UsageError,
)
from qmigtool.parsers.container import MULTIFD, ContainerKind, Magic, recognise
from qmigtool.parsers.packed import unpack, unpack_pieces
from qmigtool.parsers.pcap import Flow, read_flows
from qmigtool.parsers.qcow2 import Snapshot, read_qcow2, state_pieces
from qmigtool.parsers.records import QEVM
from qmigtool.parsers.saveimage import SaveFormat, SaveImage, read_save_image
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.containers import Packing, packing_of
from qmigtool.stream.probe import MAX_PREFIX, Follower
from qmigtool.util.budget import current
from qmigtool.util.files import skip_zeros
from qmigtool.util.progress import reach, task

__all__ = ["Container", "Unwrapped", "unpack_channel", "unwrap"]

MAGIC_SIZE = 16
PACKING_HEAD = 64  # bytes in which the magic of an installed container is
SHOWN_SNAPSHOTS = 20  # in a message
MAX_LAYERS = 4  # a compressed save image of a compressed stream is three
SPARE = 256 << 20  # bytes of the temporary file system that are left free
CHECKED = 64 << 20
MAX_STREAM = 1 << 40  # bytes; a file system may not even allow more
GRACE = 1.0  # seconds of decompressing after the stream's first error
ZEROS = bytes(2 << 20)  # as long as the longest piece, a cluster of 2 MiB


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a stream: ``raw``, ``libvirt``, ``qcow2``, ``pcap``; and its compression (``none``).

    ``details`` describes it further, for people and JSON; ``removed`` lists the removed layers, outermost first.
    """

    name: str = "raw"
    compression: str = "none"
    details: dict[str, Any] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    @property
    def in_place(self) -> bool:
        """Whether the stream is read in place, so that its offsets are the file's."""
        return not self.removed

    def without(self, *layers: str, **more: Any) -> Container:
        """Return the container after more layers were removed."""
        return replace(self, removed=(*self.removed, *layers), **more)


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A stream taken out of its container.

    ``start`` is where it starts in ``source``, None if that must be searched for. ``channels`` are the channels of the
    same migration in a capture; ``outer`` the sources that only contain it; ``problems`` the errors met.
    """

    source: BufferSource
    container: Container = Container()
    start: int | None = None
    channels: tuple[BufferSource, ...] = ()
    outer: tuple[BufferSource, ...] = ()
    problems: tuple[QmigError, ...] = ()

    def close(self, kept: BufferSource) -> None:
        """Close the sources made while unwrapping, but not ``kept``, which belongs to the caller."""
        for one in (self.source, *self.channels, *self.outer):
            if one is not kept:
                one.close()


def unwrap(source: BufferSource, snapshot: str | None = None) -> Unwrapped:
    """Take a stream out of its containers, layer by layer; a stream without one is returned unchanged.

    ``snapshot`` selects a snapshot, by its name or id, in a qcow2 image that has several. Raises
    :class:`~qmigtool.errors.UnsupportedError` for a container that qmigtool recognises but cannot read,
    :class:`~qmigtool.errors.UsageError` if there is no such snapshot or several to choose from, and
    :class:`~qmigtool.errors.StreamError` for a container that is broken before its stream starts.
    """
    found = Unwrapped(source)
    try:
        for _ in range(MAX_LAYERS):
            start = found.start or 0
            magic = recognise(bytes(found.source.whole[start : start + MAGIC_SIZE]))
            if magic is None:
                packing = _installed(found, start)
                if packing is None:
                    break
                pieces = packing.unpack(found.source.whole[start:])
                container = found.container.without(packing.name, name=packing.name)
                found = _spooled(found, container, pieces)
                continue
            found = _OPENERS[magic.kind](found, magic, snapshot)
        else:
            raise LimitError("too many nested containers", offset=0)
        if snapshot is not None and found.container.name != "qcow2":
            raise UsageError(f"no snapshot {snapshot!r}: this is not a qcow2 image")
    except BaseException:
        found.close(source)
        raise
    return found


def _installed(found: Unwrapped, start: int) -> Packing | None:
    """Return another container around it; a stream itself is not searched for one."""
    head = bytes(found.source.whole[start : start + PACKING_HEAD])
    return None if head.startswith(QEVM) else packing_of(head)


def unpack_channel(source: BufferSource) -> BufferSource:
    """Return the bytes of an extra channel: the source itself, or a new one if it is compressed.

    Raises :class:`~qmigtool.errors.UnsupportedError` for a compression that qmigtool recognises but cannot read,
    :class:`~qmigtool.errors.UsageError` for another container, and the errors of decompressing.
    """
    magic = recognise(bytes(source.whole[:MAGIC_SIZE]))
    if magic is None or magic.what == MULTIFD:
        return source
    try:
        if magic.kind is ContainerKind.OTHER:
            raise UnsupportedError(magic.what, offset=0)
        if magic.kind is not ContainerKind.PACKED:
            raise UsageError(f"{magic.what} is not an extra channel of a migration", expected="the bytes of a channel")
        with tempfile.TemporaryFile() as file:
            _write(file, unpack(source, magic.packer, 0), None)
            file.flush()
            return FileSource.of_handle(os.dup(file.fileno()), source.name)
    except QmigError as error:
        error.file = error.file or source.name
        raise


def _save_image(found: Unwrapped, _magic: Magic, _snapshot: str | None) -> Unwrapped:
    image = read_save_image(found.source)
    if image.format is SaveFormat.LZOP:
        raise UnsupportedError("lzop compression", offset=image.stream_offset, section="libvirt save image")
    container = replace(found.container, name="libvirt", details=_about(image))
    problems = found.problems
    if not image.complete:
        problems += (StreamError("libvirt did not finish this save image", offset=0, section="libvirt save image"),)
    return replace(found, container=container, start=image.stream_offset, problems=problems)


def _about(image: SaveImage) -> dict[str, Any]:
    return {
        "version": image.version,
        "was_running": image.was_running,
        "format": image.format.name.lower(),
        "stream_offset": image.stream_offset,
        "xml_bytes": len(image.xml),
    }


def _packed(found: Unwrapped, magic: Magic, _snapshot: str | None) -> Unwrapped:
    """Decompress all layers in one pass; nothing is written before the contents are recognised."""
    layers = [magic.packer]
    pieces: Iterator[bytes] = unpack(found.source, magic.packer, found.start or 0)
    while True:
        head, data, hole = _head_of(pieces)
        pieces = chain(head, pieces)
        inner = None if hole else recognise(data)
        if inner is None or inner.kind is not ContainerKind.PACKED:
            break
        if len(layers) == MAX_LAYERS:
            raise LimitError("too many nested containers", offset=0)
        pieces = unpack_pieces(pieces, inner.packer, len(layers))
        layers.append(inner.packer)
    if inner is None:
        _require_stream(data, f"the {' in '.join(reversed(layers))} content")
    elif inner.kind is ContainerKind.OTHER:
        raise UnsupportedError(inner.what, offset=0)
    header = ["libvirt header"] if found.start else []  # the compressed stream of a save image follows the header
    container = found.container.without(*header, *layers, compression=layers[-1])
    return _spooled(found, container, pieces, follow=inner is None)


def _head_of(pieces: Iterator[Any]) -> tuple[list[Any], bytes, bool]:
    """Return the first pieces, the first bytes that are not zero (16 identify it), and whether zeros come first."""
    head: list[Any] = []
    data, zeros = b"", 0
    for piece in pieces:
        empty = not data and (isinstance(piece, int) or _is_zero(piece))
        # Zeros are counted, not kept: there may be GiBs of them.
        head.append(len(piece) if empty and isinstance(piece, bytes) else piece)
        if empty or isinstance(piece, int):
            zeros += head[-1] if isinstance(head[-1], int) else 0
        else:
            useful = piece if data else piece.lstrip(b"\0")
            zeros += len(piece) - len(useful)
            data += useful[:MAGIC_SIZE]
        if len(data) >= MAGIC_SIZE or zeros > MAX_PREFIX:
            break
    return head, data, zeros > 0


def _is_zero(piece: bytes) -> bool:
    return piece == ZEROS[: len(piece)]


def _require_stream(data: bytes, what: str) -> None:
    """Raise :class:`~qmigtool.errors.StreamError` if content that begins with ``data`` is not a stream."""
    if not data.startswith(QEVM[: len(data)] or QEVM):
        raise StreamError(
            f"{what} is not a migration stream: it starts with {data[:4].hex(' ') or 'zeros'}",
            offset=0,
            expected=f"{QEVM.hex(' ')} ('QEVM')",
        )


def _qcow2(found: Unwrapped, _magic: Magic, wanted: str | None) -> Unwrapped:
    if found.start:
        raise UnsupportedError("a qcow2 image inside another container", offset=found.start)
    image = read_qcow2(found.source)
    snapshot = _choose(image.snapshots, wanted)
    details = {"snapshot": snapshot.name, "snapshot_id": snapshot.id, "vm_state_size": snapshot.vm_state_size}
    container = found.container.without("qcow2", name="qcow2", details=details)
    pieces = state_pieces(found.source, image, snapshot)
    head, data, _ = _head_of(pieces)
    _require_stream(data, f"the state of snapshot {snapshot.name!r}")
    spooled = _spooled(found, container, chain(head, pieces))
    # Only the last cluster is longer than what was written; a mapped-ram stream is longer than what was transferred.
    if 0 <= len(spooled.source.whole) - snapshot.vm_state_size < image.cluster_size:
        spooled = replace(spooled, source=_cut(spooled.source, snapshot.vm_state_size))
    return spooled


def _choose(snapshots: Sequence[Snapshot], wanted: str | None) -> Snapshot:
    """Return the selected snapshot, or the only one of a running machine."""
    live = [one for one in snapshots if one.vm_state_size]
    if wanted is not None:
        # A name is preferred to an id, and a machine to a disk, as loadvm does.
        for found in (live, snapshots):
            for one in (*(s for s in found if s.name == wanted), *(s for s in found if s.id == wanted)):
                if not one.vm_state_size:
                    raise UnsupportedError(
                        "a snapshot of disks only",
                        f"snapshot {wanted!r} has no machine state, only that of a disk",
                        offset=0,
                        section="qcow2",
                        expected=f"one of {_named(live)}" if live else None,
                    )
                return one
        raise UsageError(f"no snapshot {wanted!r}", expected=f"one of {_named(live)}" if live else None)
    if not live:
        disks = f": its snapshots are of disks only, {_named(snapshots)}" if snapshots else ""
        raise UnsupportedError(
            "a qcow2 image without a snapshot of a running machine",
            f"this is a qcow2 image without a snapshot of a running machine{disks}",
            offset=0,
            section="qcow2",
        )
    if len(live) > 1:
        raise SnapshotsError(
            "this qcow2 image has several snapshots",
            expected=f"--snapshot with one of {_named(live)}",
            snapshots=tuple({"name": one.name, "id": one.id, "vm_state_size": one.vm_state_size} for one in snapshots),
        )
    return live[0]


def _named(snapshots: Sequence[Snapshot]) -> str:
    more = f" and {len(snapshots) - SHOWN_SNAPSHOTS} more" if len(snapshots) > SHOWN_SNAPSHOTS else ""
    return ", ".join(f"{one.name!r} (id {one.id})" for one in snapshots[:SHOWN_SNAPSHOTS]) + more


def _cut(source: BufferSource, size: int) -> BufferSource:
    """Truncate a spooled stream to ``size`` bytes."""
    handle = os.dup(source.fileno()) if isinstance(source, FileSource) else -1
    name = source.name
    source.close()
    os.ftruncate(handle, size)
    return FileSource.of_handle(handle, name)


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


def _other(found: Unwrapped, magic: Magic, _snapshot: str | None) -> Unwrapped:
    raise UnsupportedError(magic.what, offset=found.start or 0)


_OPENERS: dict[ContainerKind, Callable[[Unwrapped, Magic, str | None], Unwrapped]] = {
    ContainerKind.SAVE_IMAGE: _save_image,
    ContainerKind.QCOW2: _qcow2,
    ContainerKind.PACKED: _packed,
    ContainerKind.CAPTURE: _capture,
    ContainerKind.OTHER: _other,
}


def _spooled(
    found: Unwrapped, container: Container, pieces: Iterable[bytes | int], *, follow: bool = True
) -> Unwrapped:
    """Write a stream to a temporary file; the pieces before an error are kept."""
    problems = list(found.problems)
    with tempfile.TemporaryFile() as file:
        try:
            with task("unwrapping"):
                _write(file, pieces, Follower() if follow else None)
        except BudgetError:
            raise
        except (StreamError, UnsupportedError) as error:
            if not file.tell():
                raise
            problems.append(error)
        file.flush()
        source = FileSource.of_handle(os.dup(file.fileno()), found.source.name)
    return Unwrapped(source, container, None, found.channels, (*found.outer, found.source), tuple(problems))


def _write(file: BinaryIO, pieces: Iterable[bytes | int], follower: Follower | None) -> None:
    """Write a stream's pieces; zeros become holes, so that a decompression bomb costs time but no space.

    Where ``follower`` finds the stream broken, its end may still be readable, so decompressing continues for a while.
    """
    budget = current()
    size, unchecked = 0, CHECKED
    until: float | None = None
    for piece in pieces:
        length = piece if isinstance(piece, int) else len(piece)
        size += length
        budget.tick(size, "the stream in the container")
        reach(size)
        if size > MAX_STREAM:
            raise LimitError("the stream in the container is too long", expected=f"at most {MAX_STREAM} bytes")
        if follower is not None:
            if until is not None and budget.seconds > until:
                raise StreamError(
                    "decompressing stops here, because the stream is broken before this offset",
                    offset=size - length,
                    section=follower.failed.section if follower.failed is not None else None,
                )
            follower.feed(piece)
            if follower.failed is not None and until is None:
                until = budget.seconds + GRACE
        if isinstance(piece, int) or _is_zero(piece):
            skip_zeros(file, length)
            continue
        budget.charge("spool", length, size, "the stream in the container")
        unchecked += length
        if unchecked >= CHECKED:
            unchecked = 0
            if shutil.disk_usage(tempfile.gettempdir()).free < SPARE:
                raise LimitError(f"no space in {tempfile.gettempdir()} for it", expected="TMPDIR with more space")
        file.write(piece)
