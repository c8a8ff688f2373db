"""The return path: the messages of the destination to the source (QEMU: ``migration/migration.c``).

``be16 type, be16 length, payload`` without a magic number; only a capture has it. Postcopy requests pages here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, overload

from qmigtool.errors import LimitError, StreamError
from qmigtool.parsers.record import FOLLOWING, Blob, Fixed, Record, be32, be64, record, str8
from qmigtool.parsers.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Message", "MigRpMessageType", "PageRequests", "read_return_path"]

MAX_LENGTH = 512
RECV_BITMAP_END = 0x0123456789ABCDEF


class MigRpMessageType(IntEnum):
    """``enum mig_rp_message_type``."""

    MIG_RP_MSG_INVALID = 0
    MIG_RP_MSG_SHUT = 1
    MIG_RP_MSG_PONG = 2
    MIG_RP_MSG_REQ_PAGES_ID = 3
    MIG_RP_MSG_REQ_PAGES = 4
    MIG_RP_MSG_RECV_BITMAP = 5
    MIG_RP_MSG_RESUME_ACK = 6
    MIG_RP_MSG_SWITCHOVER_ACK = 7


@record
class MessageHeader(Record):
    """The header of a message; ``length`` bytes follow."""

    type: Annotated[int, Fixed("H", MigRpMessageType)]
    length: Annotated[int, Fixed("H", counts=FOLLOWING)]


@record
class MessageValue(Record):
    """Payload of SHUT (0, or an error), PONG (the number of the PING) and RESUME_ACK."""

    value: be32


@record
class PageRequest(Record):
    """Payload of REQ_PAGES: pages of the block that was named last; ``start`` and ``size`` in bytes."""

    start: be64
    size: be32


@record
class NamedPageRequest(Record):
    """Payload of REQ_PAGES_ID."""

    start: be64
    size: be32
    idstr: str8


@record
class BitmapOf(Record):
    """Payload of RECV_BITMAP: the RAM block; :class:`ReceivedBitmap` follows the message."""

    idstr: str8


@record
class ReceivedBitmap(Record):
    """The pages that arrived, after a RECV_BITMAP and not in its length."""

    size: Annotated[int, Fixed("Q", counts="bitmap")]
    bitmap: Annotated[bytes, Blob(lambda found: found.size)]
    end: Annotated[int, Fixed("Q", default=RECV_BITMAP_END, constant="RAMBLOCK_RECV_BITMAP_ENDING")]


MESSAGE_RECORDS: dict[MigRpMessageType, type[Record]] = {
    MigRpMessageType.MIG_RP_MSG_SHUT: MessageValue,
    MigRpMessageType.MIG_RP_MSG_PONG: MessageValue,
    MigRpMessageType.MIG_RP_MSG_REQ_PAGES_ID: NamedPageRequest,
    MigRpMessageType.MIG_RP_MSG_REQ_PAGES: PageRequest,
    MigRpMessageType.MIG_RP_MSG_RECV_BITMAP: BitmapOf,
    MigRpMessageType.MIG_RP_MSG_RESUME_ACK: MessageValue,
}
"""The payload of a message; the others have none."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. For page requests: ``block`` (possibly from an earlier request), ``start``, ``length`` in bytes.

    ``value`` is the number in SHUT, PONG and RESUME_ACK.
    """

    type: MigRpMessageType
    offset: int
    end: int
    value: int | None = None
    block: str | None = None
    start: int | None = None
    length: int | None = None


class PageRequests(Sequence[Message]):
    """The page requests among the messages, in order; stored as columns, 40 bytes each.

    A message has as few as four bytes, so a list of objects would be many times larger than the file.
    """

    _WORDS = 5  # type << 16 | bytes of the message, offset, index of the name, start, length

    def __init__(self) -> None:
        self._words = array("Q")
        self._names: list[str | None] = []
        self._places: dict[str | None, int] = {}

    def add(self, message: Message) -> None:
        """Append a message if it is a page request."""
        if message.start is None or message.length is None:
            return
        place = self._places.setdefault(message.block, len(self._names))
        if place == len(self._names):
            self._names.append(message.block)
        size = message.end - message.offset
        self._words.extend((message.type << 16 | size, message.offset, place, message.start, message.length))

    def __len__(self) -> int:
        return len(self._words) // self._WORDS

    @overload
    def __getitem__(self, index: int) -> Message: ...

    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...

    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index] * self._WORDS
        kind, offset, place, start, length = self._words[at : at + self._WORDS]
        type_ = MigRpMessageType(kind >> 16)
        return Message(type_, offset, offset + (kind & 0xFFFF), None, self._names[place], start, length)


_LENGTHS = {
    MigRpMessageType.MIG_RP_MSG_SHUT: 4,
    MigRpMessageType.MIG_RP_MSG_PONG: 4,
    MigRpMessageType.MIG_RP_MSG_REQ_PAGES: 12,
    MigRpMessageType.MIG_RP_MSG_RESUME_ACK: 4,
    MigRpMessageType.MIG_RP_MSG_SWITCHOVER_ACK: 0,
}


def read_return_path(window: Window) -> Iterator[Message]:
    """Yield every message of a return path that is completely in memory; raises the window's errors and StreamError."""
    pos = 0
    block: str | None = None
    while not window.at_end(pos):
        head, at = MessageHeader.parse(window, pos)
        if head.length > MAX_LENGTH:
            raise LimitError(f"a message of {head.length} bytes", offset=pos + 2, expected=f"at most {MAX_LENGTH}")
        if not 0 < head.type <= MigRpMessageType.MIG_RP_MSG_SWITCHOVER_ACK:
            raise StreamError(f"return path message {head.type}", offset=pos, expected="1 to 7")
        type_ = MigRpMessageType(head.type)
        expected = _LENGTHS.get(type_)
        if expected is not None and head.length != expected:
            raise StreamError(f"{type_.name} of {head.length} bytes", offset=pos + 2, expected=f"{expected}")
        data = window.bytes(at, head.length, type_.name)
        end = at + head.length
        value = start = length = None
        if type_ in (MigRpMessageType.MIG_RP_MSG_REQ_PAGES_ID, MigRpMessageType.MIG_RP_MSG_REQ_PAGES):
            if len(data) < 12:
                raise StreamError(f"{type_.name} of {len(data)} bytes", offset=pos + 2, expected="12 or more")
            request, _ = PageRequest.parse(Window(data, final=True), 0)
            start, length = request.start, request.size
            if type_ is MigRpMessageType.MIG_RP_MSG_REQ_PAGES_ID:
                block = _name(data[12:], pos, type_)
        elif type_ is MigRpMessageType.MIG_RP_MSG_RECV_BITMAP:
            block = _name(data, pos, type_)
            end = _recv_bitmap(window, end)
        elif data:
            value = int.from_bytes(data, "big")
        named = block if start is not None or type_ is MigRpMessageType.MIG_RP_MSG_RECV_BITMAP else None
        yield Message(type_, pos, end, value, named, start, length)
        pos = end


def _name(raw: bytes, pos: int, type_: MigRpMessageType) -> str:
    if len(raw) < 2 or len(raw) != 1 + raw[0]:
        raise StreamError(f"{type_.name} with the name {raw.hex(' ')!r}", offset=pos, expected="a length and a name")
    return BitmapOf.parse(Window(raw, final=True), 0)[0].idstr


def _recv_bitmap(window: Window, pos: int) -> int:
    """Return the offset after a bitmap of received pages, which follows its message and is not in its length."""
    size = window.be64(pos, "the size of a bitmap of received pages")
    end = pos + 8 + size
    if window.be64(end, "the end mark of a bitmap of received pages") != RECV_BITMAP_END:
        raise StreamError("the bitmap of received pages does not end with its mark", offset=end)
    return end + 8
