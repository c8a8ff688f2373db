"""Finding runs of equal RAM records, and the columns that store them.

A guest's memory is sent in order, so a stream is mostly long runs of records that differ only by their address, which
grows by one page: ``0x28`` (CONTINUE|PAGE) every ``page_size + 8`` bytes, ``0x22`` (CONTINUE|ZERO) every 9. The first
words of a run are compared one by one; once eight agree, a strided view compares thousands at a time. If runs are
short, only the plain loop runs, so the worst case costs as much as a loop over records.
"""

from __future__ import annotations

import struct
import sys
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.util.budget import current

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_PAGES", "Run", "RunTable", "run_length"]

_WORD = struct.Struct(">Q")
MAX_PAGES = (1 << 32) - 1  # of one run, 16 TiB of 4 KiB pages: the limit of its column
CHARGED = 1 << 16  # words of the table that are charged to the budget at once
RUN_BYTES = 224
"""The memory of a run when the writer of each page is resolved: 32 bytes here, columns, two orders."""
_SCALAR = 32  # words compared one by one before the strided view pays for its set-up
_FIRST_CHUNK = 256
_PLAIN = 1 << 15  # words of a run that are compared before numpy is imported, which takes longer than they do
_LARGEST_CHUNK = 1 << 16  # 512 KiB of expected words: stays in the cache


def run_length(buf: memoryview, start: int, stride: int, step: int, limit: int, fill_at: int | None = None) -> int:
    """Count the records from ``start`` on that continue the first one.

    ``stride`` is the distance of two records in bytes, ``step`` the increase of their first word (be64), ``limit`` the
    largest count to check; every record up to it is inside ``buf``. With ``fill_at``, the byte that
    far after each word must not change either (the fill byte of a ZERO record). Returns at least 1.
    """
    word = int(_WORD.unpack_from(buf, start)[0])
    fill = None if fill_at is None else buf[start + fill_at]
    count = 1
    pos = start
    for count in range(1, min(limit, _SCALAR)):
        pos += stride
        if _WORD.unpack_from(buf, pos)[0] != word + count * step:
            return count
        if fill_at is not None and buf[pos + fill_at] != fill:
            return count
    count = min(limit, _SCALAR)
    if count < limit and "numpy" not in sys.modules:
        most = min(limit, _PLAIN)
        count = _unpacked_run(buf, start, stride, step, count, most, word, fill_at)
        if count < most:
            return count
    if count < limit:
        count = _strided_run(buf, start, stride, step, count, limit, word, fill_at)
    return count


def _unpacked_run(
    buf: memoryview, start: int, stride: int, step: int, count: int, most: int, word: int, fill_at: int | None
) -> int:
    """Do the same without numpy, a few hundred words at a time, up to ``most`` of them."""
    while count < most:
        size = min(_FIRST_CHUNK, most - count)
        at = start + count * stride
        found = _spread(stride - 8, size).unpack_from(buf, at)
        first = word + count * step
        expected = tuple(range(first, first + size * step, step))
        same = size if found == expected else next(i for i in range(size) if found[i] != expected[i])
        if fill_at is not None:
            fills = bytes(buf[at + fill_at : at + (size - 1) * stride + fill_at + 1 : stride])
            same = min(same, size - len(fills.lstrip(bytes([buf[start + fill_at]]))))
        count += same
        if same < size:
            break
    return count


@lru_cache
def _spread(gap: int, count: int) -> struct.Struct:
    """Return the layout of ``count`` big-endian words with ``gap`` bytes between two, and none after the last."""
    return struct.Struct(">" + f"Q{gap}x" * (count - 1) + "Q")


def _strided_run(
    buf: memoryview, start: int, stride: int, step: int, count: int, limit: int, word: int, fill_at: int | None
) -> int:
    # numpy is imported at the first very long run: a stream without one never pays for it.
    import numpy as np

    steps = _steps(step)
    chunk = _FIRST_CHUNK
    while count < limit:
        size = min(chunk, limit - count)
        at = start + count * stride
        words = np.ndarray((size,), ">u8", buf, at, (stride,))
        same = words == steps[:size] + np.uint64(word + count * step)
        if fill_at is not None:
            same &= np.ndarray((size,), np.uint8, buf, at + fill_at, (stride,)) == buf[start + fill_at]
        if not same.all():
            return count + int(same.argmin())
        count += size
        chunk = min(chunk * 8, _LARGEST_CHUNK)
    return count


@lru_cache
def _steps(step: int) -> NDArray[np.uint64]:
    """Return 0, step, 2 * step, ..., for the largest chunk."""
    import numpy as np

    return np.arange(_LARGEST_CHUNK, dtype=np.uint64) * np.uint64(step)


class Run(NamedTuple):
    """Records of one kind whose addresses increase by one page.

    ``offset`` is the offset of the first record in the stream, ``flags`` its RAM_SAVE_FLAG_* without CONTINUE,
    ``block`` the index of its RAMBlock, ``addr`` its byte offset in the block, ``pages`` the number of records,
    ``head`` the bytes before each payload and ``payload`` the bytes of each payload. A record that names its block
    has a longer header than the others and is a separate run.
    """

    offset: int
    flags: int
    block: int
    addr: int
    pages: int
    head: int
    payload: int
    fill: int


class RunTable:
    """Runs, stored as columns: memory grows with the number of runs, 32 bytes each, not with RAM.

    ``words`` has four words a run: offset; addr; pages << 32 | payload; flags << 40 | block << 24 | head << 8 | fill.
    """

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.words = array("Q")
        self._charged = 0  # words that are charged to the budget

    def add(
        self,
        offset: int,
        flags: int,
        block: int,
        addr: int,
        pages: int,
        head: int,
        payload: int,
        fill: int,
    ) -> None:
        """Append a run (see :class:`Run`), or lengthen the last one: how the bytes arrived makes no difference."""
        words = self.words
        kind = flags << 40 | block << 24 | head << 8 | fill
        if len(words):
            last_offset, last_addr, sizes, last_kind = words[-4:]
            count = sizes >> 32
            if (
                kind == last_kind
                and sizes & 0xFFFFFFFF == payload
                and last_addr + count * self.page_size == addr
                and last_offset + count * (head + payload) == offset
                and count + pages <= MAX_PAGES
            ):
                words[-2] = (count + pages) << 32 | payload
                return
        # Runs that a walk appends are charged with the first one of its next stretch.
        if len(words) - self._charged >= CHARGED:
            more, self._charged = len(words) - self._charged, len(words)
            current().charge("memory", RUN_BYTES * more // 4, offset, "ram")
        words.extend((offset, addr, pages << 32 | payload, kind))

    def __len__(self) -> int:
        return len(self.words) // 4

    def __iter__(self) -> Iterator[Run]:
        words = self.words
        for i in range(0, len(words), 4):
            offset, addr, sizes, kind = words[i : i + 4]
            yield Run(
                offset=offset,
                flags=kind >> 40,
                block=kind >> 24 & 0xFFFF,
                addr=addr,
                pages=sizes >> 32,
                head=kind >> 8 & 0xFFFF,
                payload=sizes & 0xFFFFFFFF,
                fill=kind & 0xFF,
            )
