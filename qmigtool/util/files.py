"""Opening inputs and outputs safely.

Opening an input never blocks. An output is written next to its final path and renamed, so that an interruption leaves
the old file intact.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qmigtool.errors import OutputError, UsageError
from qmigtool.util.progress import advance

__all__ = ["copy_range", "new_folder", "open_input", "refuse_input", "reopen", "replacing", "skip_zeros"]

# What only some systems have: without it, opening differs in nothing that matters there.
_OPEN = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
STEP = 1 << 28  # bytes that the kernel copies in one call: between two, progress is shown
CHUNK = 1 << 20
BLOCK = 4096  # the unit that a file system shares between files
# Errors of a kernel or a file system that cannot copy between these two files itself.
_NOT_HERE = tuple(
    getattr(errno, name)
    for name in ("EXDEV", "ENOSYS", "EINVAL", "EOPNOTSUPP", "EBADF", "EPERM", "ETXTBSY", "ESPIPE")
    if hasattr(errno, name)
)


def open_input(path: str | os.PathLike[str]) -> int:
    """Open a regular file or block device for reading only; return its file descriptor.

    Raises :class:`OSError`, and :class:`~qmigtool.errors.UsageError` for anything else: a FIFO or a terminal would
    block forever.
    """
    handle = os.open(path, _OPEN)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise UsageError(f"{str(path)!r} cannot be read at any offset", expected="a regular file or a block device")


def reopen(handle: int) -> int:
    """Open the file of a descriptor again for reading; return the new descriptor.

    ``/dev/fd`` gives one with a position of its own, also where the file is open for writing only. Without it, the
    descriptor is duplicated. Raises :class:`OSError`.
    """
    try:
        return os.open(f"/dev/fd/{handle}", _OPEN)
    except OSError:
        return os.dup(handle)


@contextmanager
def replacing(path: str | os.PathLike[str], *inputs: str | int) -> Iterator[BinaryIO]:
    """Yield a new file that replaces ``path`` on success and is removed on failure.

    Raises :class:`~qmigtool.errors.UsageError` if it would replace one of ``inputs`` (names, or file descriptors): an
    input is never modified.
    """
    target = Path(path)
    try:
        there = target.stat()
    except FileNotFoundError:
        there = None
    if there is not None:
        refuse_input(there, str(path), *inputs)
        if not stat.S_ISREG(there.st_mode):
            # A device or a FIFO: a rename would replace it with a file, which is fatal for /dev/null.
            with target.open("wb") as file:
                yield file
            return
    target = target.resolve()  # a link is kept
    try:
        # Part of the name, enough to recognise it: the whole name and more might exceed the file system's limit.
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:32]}.", dir=target.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp makes a private file; give it the rights of any new file, except those that an input does
        # not have: its contents come from there.
        umask = os.umask(0)
        os.umask(umask)
        rights = 0o666 & ~umask
        for about in map(_stat, inputs):
            # A file without a name is one of qmigtool's own, with an unwrapped stream.
            rights &= about.st_mode if stat.S_ISREG(about.st_mode) and about.st_nlink else rights
        Path(temporary).chmod(rights)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(
    path: str | os.PathLike[str], replaces: Callable[[Path], bool] | None = None, *, hint: str = ""
) -> Iterator[Path]:
    """Yield a new folder that is renamed to ``path`` on success and removed on failure.

    Raises :class:`~qmigtool.errors.OutputError` if ``path`` exists and is neither an empty folder nor one for which
    ``replaces`` is true: that one is replaced. ``hint`` says what else is expected.
    """
    target = Path(path).resolve()
    filled = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if filled and not (replaces is not None and target.is_dir() and replaces(target)):
        raise OutputError(f"{str(path)!r} exists already", expected=f"a new or empty folder{hint}")
    made = Path(tempfile.mkdtemp(prefix=f".{target.name[:32]}.", dir=target.parent))
    try:
        yield made
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o777 & ~umask)
        if filled:
            _exchange(made, target)
            return
        if target.exists():
            target.rmdir()  # it is empty; not every system renames over a folder
        made.rename(target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _exchange(made: Path, target: Path) -> None:
    """Put a folder in the place of another, which is removed once that has succeeded."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:32]}.", dir=target.parent))
    try:
        old = target.rename(aside / target.name)
        try:
            made.rename(target)
        except BaseException:
            old.rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_input(output: os.stat_result, name: str, *inputs: str | int) -> None:
    """Raise :class:`~qmigtool.errors.OutputError` if an output is one of the inputs, under whatever name."""
    if any(os.path.samestat(output, _stat(one)) for one in inputs):
        raise OutputError(f"the output {name!r} is the input", expected="another name")


def _stat(name: str | int) -> os.stat_result:
    """Return the identity of an input: ``-`` may also be a file with a name."""
    if isinstance(name, int):
        return os.fstat(name)
    return os.fstat(0) if name == "-" else Path(name).stat()


def copy_range(source: int, offset: int, length: int, target: BinaryIO) -> None:
    """Append ``length`` bytes at ``offset`` of the file descriptor ``source`` to ``target``; holes stay holes.

    The kernel copies them if it can, sharing blocks where the file system does.
    """
    if _handle(target) < 0:
        _read_and_write(source, offset, length, target)
        return
    while length:
        start, end = _data(source, offset, offset + length)
        if start > offset:
            skip_zeros(target, start - offset)
            advance(start - offset)
        _copy_data(source, start, end - start, target)
        offset, length = end, length - (end - offset)


def _data(source: int, offset: int, end: int) -> tuple[int, int]:
    """Return the next range of data in ``[offset, end)``: all of it if the file system has no holes."""
    if not hasattr(os, "SEEK_DATA"):
        return offset, end
    try:
        start = os.lseek(source, offset, os.SEEK_DATA)
        stop = os.lseek(source, start, os.SEEK_HOLE)
    except OSError as error:
        # ENXIO: only a hole (or the end of a file that became shorter, which reading reports).
        return (end, end) if error.errno == errno.ENXIO and os.fstat(source).st_size >= end else (offset, end)
    return min(start, end), min(stop, end)


def _copy_data(source: int, offset: int, length: int, target: BinaryIO) -> None:
    target.flush()
    if not hasattr(os, "copy_file_range"):
        _read_and_write(source, offset, length, target)
        return
    try:
        # The kernel shares whole blocks only: so if both files are at the same position in a block, the rest of
        # that block is copied first.
        ahead = -offset % BLOCK
        if ahead and offset % BLOCK == os.lseek(target.fileno(), 0, os.SEEK_CUR) % BLOCK:
            ahead = min(ahead, length)
            _read_and_write(source, offset, ahead, target)
            offset, length = offset + ahead, length - ahead
            target.flush()
        while length:
            moved = os.copy_file_range(source, target.fileno(), min(length, STEP), offset)
            if not moved:
                break
            offset += moved
            length -= moved
            advance(moved)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    _read_and_write(source, offset, length, target)


def _read_and_write(source: int, offset: int, length: int, target: BinaryIO) -> None:
    while length:
        data = _read(source, min(length, CHUNK), offset)
        if not data:
            raise OSError(errno.EIO, "the input became shorter while it was copied")
        target.write(data)
        offset += len(data)
        length -= len(data)
        advance(len(data))


def _read(source: int, length: int, offset: int) -> bytes:
    """Read at an offset; where there is no pread the position moves, which nothing else uses."""
    if hasattr(os, "pread"):
        return os.pread(source, length, offset)
    os.lseek(source, offset, os.SEEK_SET)
    return os.read(source, length)


def skip_zeros(target: BinaryIO, length: int) -> None:
    """Append ``length`` zero bytes to ``target``: a hole in a file, otherwise written."""
    target.flush()
    handle = _handle(target)
    if handle >= 0 and stat.S_ISREG(os.fstat(handle).st_mode):
        # As copy_file_range does: the file's own position is used; the writer above it has an empty buffer.
        os.ftruncate(handle, os.lseek(handle, 0, os.SEEK_CUR))  # the old contents must not show in the hole
        os.ftruncate(handle, os.lseek(handle, length, os.SEEK_CUR))
        return
    zeros = bytes(min(length, CHUNK))
    while length:
        target.write(zeros[:length])
        length -= min(length, CHUNK)


def _handle(target: BinaryIO) -> int:
    """Return the file descriptor of ``target``, or -1 if it is in memory."""
    try:
        return target.fileno()
    except (AttributeError, OSError):
        return -1
