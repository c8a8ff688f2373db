"""Reading a file into packets, and writing packets to a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from scapy.plist import PacketList

from qmigtool.layers.cuts import Cut, cuts
from qmigtool.layers.packets import MigrationRecord
from qmigtool.stream.opening import open_stream
from qmigtool.util.budget import current, ensured
from qmigtool.util.files import replacing

if TYPE_CHECKING:
    import os

    from scapy.packet import Packet

    from qmigtool.errors import QmigError

__all__ = ["QmigReader", "rdqmig", "wrqmig"]

PACKET_BYTES = 1200  # of a packet in memory, beside its bytes
_LOG = logging.getLogger("scapy.qmigtool")  # scapy.runtime leaves out what is said often


def packet_of(cut: Cut, data: memoryview) -> MigrationRecord:
    """Return the packet of a record."""
    packet = cut.layer(bytes(data))
    one: Any = packet
    while isinstance(one, MigrationRecord):
        one.offset, one.source, one.section = cut.offset, cut.source, cut.section
        one = one.payload
    packet.time = 0.0
    return packet


class QmigReader:
    """The records of a stream, a container or a capture as packets, one at a time; use it as a context manager.

    ``target`` and ``options`` are those of :func:`qmigtool.open`. Each packet has ``offset``, ``source`` and
    ``section``. ``problems`` has the errors met so far; what they make unreadable is a packet ``Unparsed``.
    """

    def __init__(self, target: Any, **options: Any) -> None:
        self._stream = open_stream(target, **options)
        self._problems: list[QmigError] = []

    def __enter__(self) -> QmigReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    @property
    def problems(self) -> Sequence[QmigError]:
        """The errors met so far."""
        return (*self._stream.problems, *self._problems)

    def __iter__(self) -> Iterator[MigrationRecord]:
        for cut, data in cuts(self._stream, self._problems.append):
            yield packet_of(cut, data)


def rdqmig(target: Any, count: int = -1, **options: Any) -> PacketList:
    """Return the records of a stream, a container or a capture as a list of packets; at most ``count`` of them.

    ``target`` and ``options`` are those of :func:`qmigtool.open`; ``channels`` are extra channels. The bytes of the
    packets whose ``source`` is ``main``, one after the other, are the stream. An error in the bytes is a warning, and
    what it makes unreadable a packet ``Unparsed``; raises :class:`~qmigtool.errors.StreamError` if the target is no
    stream, and :class:`~qmigtool.errors.BudgetError` for more packets than memory is allowed for: use
    :class:`QmigReader`, or ``count``.
    """
    found: list[Packet] = []
    with QmigReader(target, **options) as reader, ensured():
        budget = current()
        budget.admit(reader._stream.size or 0)
        for packet in reader:
            if 0 <= count <= len(found):
                break
            budget.charge("memory", PACKET_BYTES + len(packet.original), packet.offset, packet.section)
            found.append(packet)
        for problem in reader.problems:
            _LOG.warning("%s: %s", reader._stream.source.name, problem)
        name = str(reader._stream.source.name)
    return PacketList(found, name)


def wrqmig(path: str | os.PathLike[str], packets: Iterable[Packet]) -> None:
    """Write the bytes of packets to a file, one after the other; of those of :func:`rdqmig` only the main channel.

    Nothing is computed but the lengths inside each packet: a vmdesc stays as it was, and the hole of a capture is left
    out.
    """
    with replacing(str(path)) as file:
        for packet in packets:
            if getattr(packet, "source", None) in (None, "main"):
                file.write(bytes(packet))
