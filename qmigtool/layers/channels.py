"""Channels of a migration in scapy's own packets: ``bind_layers(TCP, MigrationChannel, dport=4444)``.

QEMU has no port of its own, so the caller names it. ``sniff(offline=..., session=TCPSession)`` then gives the messages
of the return path and the packets of multifd channels one by one; of the main channel it gives the file header and the
bytes after it, because a device section has no length: :func:`~qmigtool.layers.reading.rdqmig` takes that apart, from
the same capture. It also is the one for captures of a loopback device, whose packets of 65,549 bytes scapy cuts.
"""

from __future__ import annotations

from typing import Any

from scapy.config import conf
from scapy.packet import Packet, bind_layers

from qmigtool.errors import TruncatedError
from qmigtool.layers import known
from qmigtool.layers.packets import MigrationRecord, RawBytes
from qmigtool.parsers.multifd import MAX_PAYLOAD, MULTIFD_MAGIC, MultiFDFlag
from qmigtool.parsers.records import is_plain_stream
from qmigtool.parsers.returnpath import MAX_LENGTH, MigRpMessageType

__all__ = ["ChannelBytes", "MigrationChannel", "bind_migration"]

MULTIFD = MULTIFD_MAGIC.to_bytes(4, "big")
INIT_SIZE, PACKET_SIZE, FLAGS_AT = 64, 320, 8
HEAD = 4  # bytes that tell one kind of channel from another, and have the type and length of a message
MAX_STACKED = 100  # records that are the payload of one packet
MAX_PACKET = 2 * MAX_PAYLOAD  # bytes of a multifd packet or a bitmap that are waited for


class ChannelBytes(RawBytes):
    """Bytes of a channel that are not taken apart."""


class MigrationChannel(MigrationRecord):
    """What a TCP segment carries: the layer is chosen by its first bytes.

    Only the first record of a segment is dissected without a session, and what follows is padding.
    """

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_args: Any, **_more: Any) -> type[Packet]:
        """Return the layer for these bytes."""
        return _layer(bytes(_pkt or b""), started=False)

    @classmethod
    def tcp_reassemble(cls, data: bytes, metadata: dict[str, Any], session: dict[str, Any]) -> Packet | None:
        """Return the next records of a direction of a connection, or None if there is no complete one yet.

        ``session`` is that of both directions; ``metadata`` names the direction only for the first record of a packet.
        All complete records are returned at once: called again for each, scapy 2.8 loses its place.
        """
        direction = session["direction"] = metadata.get("ident", session.get("direction"))
        first: Packet | None = None
        for _ in range(MAX_STACKED):
            packet = _next(data, direction, session) if data else None
            if packet is None:
                break
            rest = packet.getlayer(conf.padding_layer)
            data = b"" if rest is None else rest.load
            if rest is not None and rest.underlayer is not None:
                rest.underlayer.remove_payload()
            if first is None:
                first = packet
            else:
                first.add_payload(packet)
        if first is not None and data:
            first.add_payload(conf.padding_layer(data))
        elif first is None:
            metadata["tcp_min_len"] = _least(data, session.get("kinds", {}).get(direction))
        return first


def _next(data: bytes, direction: Any, session: dict[str, Any]) -> Packet | None:
    kinds, started = session.setdefault("kinds", {}), session.setdefault("started", set())
    if len(data) < HEAD and kinds.get(direction) != "main":
        return None
    kind = kinds.setdefault(direction, _kind(data))
    try:
        packet = _record(data, kind, direction in started)
    except TruncatedError:
        packet = None
    if packet is None or not _complete(packet):
        return ChannelBytes(data) if len(data) >= MAX_PACKET else None
    started.add(direction)
    return packet


def bind_migration(port: int) -> None:
    """Take TCP traffic from and to ``port`` for that of a migration."""
    from scapy.layers.inet import TCP

    bind_layers(TCP, MigrationChannel, dport=port)
    bind_layers(TCP, MigrationChannel, sport=port)


def _kind(data: bytes) -> str:
    if is_plain_stream(data):
        return "main"
    if data.startswith(MULTIFD):
        return "multifd"
    type_, length = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    if 0 < type_ <= MigRpMessageType.MIG_RP_MSG_SWITCHOVER_ACK and length <= MAX_LENGTH:
        return "return path"
    return "other"


def _complete(packet: Packet) -> bool:
    """Return whether a record has all of what its length announces, not only its header."""
    following = packet.following if isinstance(packet, MigrationRecord) else None
    return following is None or not getattr(packet, following) or bool(packet.payload)


def _least(data: bytes, kind: str | None) -> int:
    """Return the bytes that a record needs at least: newer versions of scapy do not ask again before they are there."""
    if kind != "multifd" or len(data) < PACKET_SIZE or _layer(data, started=True) is known.DeviceStateData:
        return len(data) + 1
    head = known.MultiFDPacket(data[:PACKET_SIZE])
    payload = head.next_packet_size if head.normal_pages else 0
    return int(min(PACKET_SIZE + 8 * head.pages_alloc + payload, MAX_PACKET))


def _layer(data: bytes, *, started: bool) -> type[Packet]:
    kind = _kind(data)
    if kind == "main":
        return known.FileHeader
    if kind == "return path":
        return known.MessageHeader
    if kind == "multifd":
        # A greeting and a packet both start with magic and version; the flags of a packet are small, a UUID is not, and
        # a VM without a UUID sends zeros, as a packet without flags does.
        if not started and (len(data) == INIT_SIZE or not any(data[FLAGS_AT + 17 : INIT_SIZE])):
            return known.MultiFDInit
        flags = int.from_bytes(data[FLAGS_AT : FLAGS_AT + 4], "big")
        return known.DeviceStateData if flags & MultiFDFlag.DEVICE_STATE else known.MultiFDPagePacket
    return ChannelBytes if data else conf.raw_layer


def _record(data: bytes, kind: str, started: bool) -> Packet | None:
    if kind == "other" or (kind == "main" and started):
        return ChannelBytes(data)
    if kind == "multifd":
        return (_layer(data, started=True) if started else known.MultiFDInit)(data)
    if kind == "return path" and started and _kind(data) != "return path":
        return known.ReceivedBitmap(data)
    return (known.MessageHeader if kind == "return path" else known.FileHeader)(data)
