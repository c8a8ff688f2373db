"""What a stream says of itself at its end, held against what was read."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, StreamError, UnsupportedError
from qmigtool.parsers.savevm import Type

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.tail import LocatedVmdesc
    from qmigtool.parsers.vmdesc import DeviceDescription, Vmdesc
    from qmigtool.stream.sectionindex import SectionIndex

__all__ = ["Descriptions", "disagreements", "wrong_lengths"]


class Descriptions:
    """The vmdesc's devices, each handed out once, by name and instance, in order."""

    def __init__(self, vmdesc: Vmdesc) -> None:
        self._left: dict[tuple[str, int], deque[DeviceDescription]] = {}
        for device in vmdesc.devices:
            self._left.setdefault((device.idstr, device.instance_id), deque()).append(device)

    def take(self, idstr: str, instance_id: int) -> DeviceDescription | None:
        """Hand out the next device of a name, or None."""
        left = self._left.get((idstr, instance_id))
        return left.popleft() if left else None

    def length(self, idstr: str, instance_id: int) -> int | None:
        """Hand out the length of the next body of a device, or None."""
        device = self.take(idstr, instance_id)
        return None if device is None else device.size


def disagreements(index: SectionIndex, located: LocatedVmdesc) -> Iterator[QmigError]:
    """Give what the sections of a stream and its vmdesc do not agree on: where it ends, and which devices it has."""
    # A stream may have been written over a longer one: what is at the end is then the older one's.
    found = next((section.offset for section in reversed(index) if section.type is Type.EOF), None)
    if found is not None and found + 1 != located.offset:
        yield StreamError(
            f"the stream ends here, but there is a vmdesc at {located.offset:#x}, of another stream",
            offset=found,
            expected=f"EOF at {located.offset - 1:#x}",
        )
        return
    # A damaged section id lets the search for its footer run over the sections that follow.
    left = Counter((device.idstr, device.instance_id) for device in located.vmdesc.devices)
    left.subtract((section.name or "", section.instance_id or 0) for section in index if section.type is Type.FULL)
    lost = [f"{idstr}@{instance_id}" for (idstr, instance_id), count in left.items() if count > 0]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        yield StreamError(
            f"the vmdesc describes sections that are not in the stream: {', '.join(lost[:3])}{more}",
            offset=located.offset,
            section="vmdesc",
        )


def wrong_lengths(devices: Iterable[Device]) -> Iterator[QmigError]:
    """Give the sections whose footer is not where the stream's own vmdesc puts it: bytes are missing, or too many."""
    for device in devices:
        if device.borrowed is None and device.description is not None:
            try:
                device.check_length()
            except UnsupportedError:
                pass  # QEMU's mistake, not the stream's: who asks for the fields is told
            except StreamError as error:
                yield error
