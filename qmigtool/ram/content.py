"""The bytes of pages, whatever their encoding."""

from __future__ import annotations

import tempfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from qmigtool.errors import ClosedError, QmigError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.multifd import Compression, Packet, decode_payload, page_decoder
from qmigtool.ram.columns import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from qmigtool.parsers.source import Source

__all__ = ["Content", "UnpackedChannel"]

RAW = (Encoding.NORMAL, Encoding.MAPPED, Encoding.MULTIFD)
PACKED = (
    Encoding.MULTIFD_ZLIB,
    Encoding.MULTIFD_ZSTD,
    Encoding.MULTIFD_QPL,
    Encoding.MULTIFD_UADK,
    Encoding.MULTIFD_QATZIP,
)


class UnpackedChannel:
    """The pages of a compressed multifd channel: a single stream, so it is decompressed once, to a temporary file.

    After an error, the bytes before it remain readable; reading those after it raises the error.
    """

    def __init__(self, source: Source, packets: Iterable[Packet], packing: Compression, page_size: int) -> None:
        self._source = source
        self._packets = packets
        self._packing = packing
        self._page_size = page_size
        self._pages: NDArray[np.uint8] | None = None
        self._error: QmigError | None = None

    @property
    def closed(self) -> bool:
        """Whether the channel is closed."""
        return self._source.closed

    def view(self, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes of pages at ``offset``; raises the error of decompressing them."""
        if self._pages is None:
            self._pages = self._unpack()
        if offset + length > len(self._pages):
            raise (self._error or TruncatedError("the channel ends here", section="multifd")).with_traceback(None)
        return self._pages[offset : offset + length].data

    def _unpack(self) -> NDArray[np.uint8]:
        with tempfile.TemporaryFile(prefix="qmigtool-") as file:
            try:
                decoder = page_decoder(self._packing)
                for packet in self._packets:
                    if packet.normal:
                        payload = bytes(self._source.view(packet.payload, packet.payload_length))
                        file.write(decode_payload(decoder, packet, payload, self._page_size))
            except QmigError as error:
                self._error = error
            file.flush()
            # The mapping keeps the file alive after it is closed; it has no name.
            return np.memmap(file, dtype=np.uint8, mode="r") if file.tell() else np.zeros(0, np.uint8)


class Content:
    """Reads pages of runs; ``channels`` are the sources by channel number."""

    def __init__(
        self, channels: dict[int, Source | UnpackedChannel], packed: dict[int, UnpackedChannel], page_size: int
    ) -> None:
        self._channels = channels
        self._packed = packed
        self.page_size = page_size

    def source(self, channel: int) -> Source | UnpackedChannel:
        """Return the source of a channel."""
        return self._channels[channel]

    def check_open(self) -> None:
        """Raise :class:`~qmigtool.errors.ClosedError` if the stream is closed: zero pages are not read from it."""
        if self._channels[0].closed:
            raise ClosedError("the stream is closed")

    def page(self, run: np.void, index: int) -> bytes:
        """Return page number ``index`` of a run of whole pages (not XBZRLE)."""
        encoding = Encoding(run["encoding"])
        if encoding.holds_zero:
            return bytes([int(run["fill"])]) * self.page_size
        if encoding is Encoding.COMPRESSED:
            return self._inflate(run, index)
        return self.pages(run, index, 1).tobytes()

    def pages(self, run: np.void, index: int, count: int) -> NDArray[np.uint8]:
        """Return pages ``[index, index + count)`` of a run, uint8 of shape (count, page size)."""
        encoding = Encoding(run["encoding"])
        size = self.page_size
        if encoding in RAW or encoding in PACKED:
            stride = int(run["head"]) + int(run["payload"])
            source = self._packed[int(run["channel"])] if encoding in PACKED else self._channels[int(run["channel"])]
            start = int(run["offset"]) + index * stride
            raw = np.frombuffer(source.view(start, count * stride), np.uint8)
            return raw.reshape(count, stride)[:, int(run["head"]) :]
        if encoding.holds_zero:
            return np.full((count, size), int(run["fill"]), np.uint8)
        if encoding is Encoding.COMPRESSED:
            inflated = b"".join(self._inflate(run, index + i) for i in range(count))
            return np.frombuffer(inflated, np.uint8).reshape(count, size)
        raise UnsupportedError(f"reading {encoding.name} pages in bulk")

    def payload(self, run: np.void, index: int) -> bytes:
        """Return the payload of record number ``index`` of a run."""
        head, length = int(run["head"]), int(run["payload"])
        start = int(run["offset"]) + index * (head + length) + head
        return bytes(self._channels[int(run["channel"])].view(start, length))

    def _inflate(self, run: np.void, index: int) -> bytes:
        try:
            inflate = zlib.decompressobj()
            page = inflate.decompress(self.payload(run, index), self.page_size + 1)
        except zlib.error as error:
            raise StreamError(f"a compressed page: {error}", offset=int(run["offset"]), section="ram") from None
        if len(page) != self.page_size or not inflate.eof:
            raise StreamError(
                f"a compressed page of {len(page)} bytes",
                offset=int(run["offset"]),
                section="ram",
                expected=f"{self.page_size}",
            )
        return page
