"""The streams of a folder: files that begin like a migration stream, or like a container or compression of one."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

from qmigtool.errors import QmigError
from qmigtool.parsers.container import ContainerKind, recognise
from qmigtool.parsers.multifd import MULTIFD_MAGIC
from qmigtool.parsers.packed import unpack
from qmigtool.parsers.qcow2 import read_qcow2
from qmigtool.parsers.records import is_plain_stream
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.containers import packing_of
from qmigtool.stream.probe import find_start

__all__ = ["Below", "streams_below", "streams_in"]

HEAD = 16
PARTS = (MULTIFD_MAGIC.to_bytes(4, "big"), b"QCPR")  # belong to a stream, but are not streams
MAX_LAYERS = 4  # of compression


def streams_in(folder: str) -> tuple[list[str], list[str]]:
    """Return the paths of the files in a folder that are worth opening, and the names of the rest; both sorted.

    The folders in it are among the rest. A file that cannot be read is worth opening: the error shows why. Raises
    :class:`OSError` if the folder cannot be listed.
    """
    streams, rest = [], []
    for name in sorted(one.name for one in Path(folder).iterdir()):
        # Not joined by pathlib, which makes "-" of "./-".
        path = f"{folder.rstrip('/')}/{name}"
        if _worth_opening(path):
            streams.append(path)
        else:
            rest.append(name)
    return streams, rest


class Below(NamedTuple):
    """What is below a folder, as paths from there; sorted."""

    streams: list[str]
    """The files that are worth opening."""
    rest: list[str]
    """The other files, and links to folders."""
    unlisted: dict[str, OSError]
    """The folders that cannot be listed (``inside/``), and why. What they contain is unknown."""


def streams_below(folder: str) -> Below:
    """Find the files below a folder that are worth opening.

    Raises :class:`OSError` if the folder itself cannot be listed.
    """
    streams: list[str] = []
    rest: list[str] = []
    unlisted: dict[str, OSError] = {}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        path_ = f"{folder.rstrip('/')}/{inside}"
        try:
            found, others = streams_in(path_)
        except OSError as error:
            if not inside:
                raise
            unlisted[inside] = OSError(error.errno, error.strerror, path_)
            continue
        streams += [f"{inside}{one.rpartition('/')[2]}" for one in found]
        for name in others:
            path = Path(folder, inside, name)
            if path.is_dir() and not path.is_symlink():
                waiting.append(f"{inside}{name}/")
            else:
                rest.append(f"{inside}{name}")
    return Below(sorted(streams), sorted(rest), dict(sorted(unlisted.items())))


def _worth_opening(path: str) -> bool:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return False
        with FileSource(Path(path)) as source:
            return _begins_like_one(source)
    except (QmigError, OSError):
        return True


def _begins_like_one(source: BufferSource, layers: int = MAX_LAYERS) -> bool:
    start = find_start(source)
    head = bytes(source.whole[start : start + HEAD])
    found = recognise(head)
    if found is None or head.startswith(PARTS):
        return is_plain_stream(head) or (found is None and packing_of(head) is not None)
    if found.kind is ContainerKind.PACKED and layers:
        return _begins_like_one(BufferSource(next(unpack(source, found.packer, start), b"")), layers - 1)
    if found.kind is ContainerKind.QCOW2:  # most of them are disks
        return any(snapshot.vm_state_size for snapshot in read_qcow2(source).snapshots)
    return True
