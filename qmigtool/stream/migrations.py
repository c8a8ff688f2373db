"""The migrations in a capture: which connections are the channels of one, and why.

QEMU connects all channels of a migration to the same address and port, after the main one. So a channel belongs to the
latest main channel before it between the same hosts and to the same port. A multifd channel has a magic number; where
only one migration was captured and its addresses differ (a host with several), it belongs to that, which is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qmigtool.parsers.pcap import Role, role_of

if TYPE_CHECKING:
    from qmigtool.parsers.pcap import Capture, Connection
    from qmigtool.parsers.reassembly import TcpDirection

__all__ = ["Channel", "Migration", "find_migrations", "named"]


@dataclass(frozen=True, slots=True)
class Channel:
    """A direction of a connection; ``evidence`` says why it belongs to its migration, ``inferred`` that it may not."""

    role: Role
    connection: Connection
    direction: TcpDirection
    evidence: str = ""
    inferred: bool = False

    @property
    def name(self) -> str:
        """Both ends; a later connection between the same ends has its number."""
        number = f" (connection {self.connection.number})" if self.connection.again else ""
        return self.direction.name + number

    def document(self) -> dict[str, Any]:
        """Return what ``info --json`` says of it."""
        return {"name": self.name, "bytes": self.direction.size, "role": self.role.value}


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration: ``number`` counts from 1, in the order of the main channels; ``channels`` are the others."""

    number: int
    main: Channel
    channels: tuple[Channel, ...] = ()

    @property
    def every(self) -> tuple[Channel, ...]:
        """All channels, the main one first."""
        return self.main, *self.channels

    def document(self) -> dict[str, Any]:
        """Return what tells it from the others of a capture."""
        return {
            "migration": self.number,
            "name": self.main.name,
            "bytes": sum(one.direction.size for one in self.every),
            "channels": len(self.every),
        }


def find_migrations(capture: Capture, whole: memoryview) -> tuple[list[Migration], list[Channel]]:
    """Return the migrations of a capture, and the directions with data that belong to none of them."""
    mains: list[Channel] = []
    found: dict[int, list[Channel]] = {}
    rest: list[Channel] = []
    for connection in capture.connections:
        roles = {way.source: role_of(way.head(whole)) for way in connection.directions}
        for way, other in (connection.directions, connection.directions[::-1]):
            if not way.size:
                continue
            role = roles[way.source]
            if role is Role.MAIN:
                mains.append(Channel(role, connection, way, "magic"))
                found[len(mains) - 1] = []
            elif roles[other.source] is Role.MAIN:
                rest.append(Channel(Role.RETURN_PATH, connection, way, "the other direction of main"))
            else:
                rest.append(Channel(role, connection, way))
    others: list[Channel] = []
    for one in rest:
        index, channel = _assigned(one, mains)
        if index is None:
            others.append(channel)
        else:
            found[index].append(channel)
    return [Migration(i + 1, main, tuple(found[i])) for i, main in enumerate(mains)], others


def _assigned(one: Channel, mains: list[Channel]) -> tuple[int | None, Channel]:
    """Return the index of the main channel that a channel belongs to, and the channel with the evidence."""
    if one.role is Role.RETURN_PATH:
        return next(i for i, main in enumerate(mains) if main.connection is one.connection), one
    headless = not one.direction.began or bool(one.direction.holes and one.direction.holes[0].offset == 0)
    if headless and one.role in (Role.EMPTY, Role.OTHER):
        one = replace(one, role=Role.UNKNOWN)
    elif one.role not in (Role.MULTIFD, Role.PREEMPT, Role.RECOVERY):
        return None, one
    near = [i for i, main in enumerate(mains) if _same_ends(one.direction, main.direction)]
    before = [i for i in near if _follows(one.connection, mains[i].connection, recovery=one.role is Role.RECOVERY)]
    if before:
        return before[-1], _with(one, f"the same hosts and port, {_later(one, mains[before[-1]])}", inferred=False)
    after = [i for i in near if mains[i].connection.number > one.connection.number]
    if one.role is Role.MULTIFD and after:
        return after[0], _with(one, "magic; the same hosts and port, captured before main", inferred=True)
    if one.role is Role.MULTIFD and len(mains) == 1 and not near and _follows(one.connection, mains[0].connection):
        return 0, _with(one, "magic; other addresses than main, the only migration", inferred=True)
    return None, replace(one, role=Role.OTHER) if one.role is Role.UNKNOWN else one


def _with(one: Channel, evidence: str, *, inferred: bool) -> Channel:
    return Channel(one.role, one.connection, one.direction, evidence, inferred)


def _same_ends(one: TcpDirection, main: TcpDirection) -> bool:
    """Return whether both lead from the same host to the same host and port."""
    return one.source[:-2] == main.source[:-2] and one.destination == main.destination


def _follows(one: Connection, main: Connection, *, recovery: bool = False) -> bool:
    """Return whether a connection started while ``main`` was open, as far as the capture has times."""
    if one.number < main.number:
        return False
    if recovery:  # main was interrupted
        return True
    return one.opened is None or main.closed is None or one.opened <= main.closed


def _later(one: Channel, main: Channel) -> str:
    mine, theirs = one.connection.opened, main.connection.opened
    return "after main" if mine is None or theirs is None else f"{(mine - theirs) / 1e6:.1f} ms after main"


def named(found: Iterable[Migration], most: int = 20) -> str:
    """Return the numbers and names of migrations, for a message."""
    every = list(found)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(f"{one.number} ({one.main.name})" for one in every[:most]) + more
