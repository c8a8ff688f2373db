"""The vmdesc at the end of a stream, compared with what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, StreamError, UnsupportedError
from qmigtool.parsers.section import Type

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.tail import LocatedVmdesc
    from qmigtool.parsers.vmdesc import DeviceDescription, Vmdesc
    from qmigtool.stream.sectionindex import SectionIndex

__all__ = ["Descriptions", "disagreements", "ends_itself", "wrong_lengths"]


class Descriptions:
    """The vmdesc's devices, each returned once, by name and instance, in order."""

    def __init__(self, vmdesc: Vmdesc) -> None:
        self._left: dict[tuple[str, int], list[DeviceDescription]] = {}
        for device in reversed(vmdesc.devices):  # the first one is at the end
            self._left.setdefault((device.idstr, device.instance_id), []).append(device)

    def take(self, idstr: str, instance_id: int) -> DeviceDescription | None:
        """Return the next device of this name and instance, or None."""
        left = self._left.get((idstr, instance_id))
        return left.pop() if left else None

    def length(self, idstr: str, instance_id: int) -> int | None:
        """Return the body length of the next device of this name and instance, or None."""
        device = self.take(idstr, instance_id)
        return None if device is None else device.size


def disagreements(index: SectionIndex, located: LocatedVmdesc) -> Iterator[QmigError]:
    """Yield where the sections of a stream and its vmdesc disagree: its end, and its devices."""
    # A stream may have been written over a longer one: then the vmdesc at the end belongs to the older one.
    found = next((section.offset for section in reversed(index) if section.type is Type.EOF), None)
    if found is not None and found + 1 != located.offset:
        yield StreamError(
            f"the stream ends here, but the file has a vmdesc of another stream at {located.offset:#x}",
            offset=found,
            expected=f"EOF at {located.offset - 1:#x}",
        )
        return
    # With a damaged section id, the search for its footer skips the sections that follow.
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


def ends_itself(index: SectionIndex, foreign: Vmdesc) -> bool:
    """Return whether a stream that no vmdesc follows ends at its EOF, although the file ends with a vmdesc.

    The machine may suppress the vmdesc; then the one at the end belongs to an older, longer stream. Or the vmdesc is
    this stream's, and the EOF a damaged byte: then the sections before it are the first of those that it describes, or
    a live section has no END.
    """
    live = Counter(section.section_id for section in index if section.type is Type.START)
    live.subtract(section.section_id for section in index if section.type is Type.END)
    devices = [(section.name, section.instance_id) for section in index if section.type is Type.FULL]
    described = [(device.idstr, device.instance_id) for device in foreign.devices]
    cut = len(devices) < len(described) and devices == described[: len(devices)]
    return bool(devices) and not cut and not any(live.values())


def wrong_lengths(devices: Iterable[Device]) -> Iterator[QmigError]:
    """Yield the sections that are shorter or longer than the stream's own vmdesc says."""
    for device in devices:
        if device.schema_name is None and device.description is not None:
            try:
                device.check_length()
            except UnsupportedError:
                pass  # a QEMU defect, not the stream's: reading the fields reports it
            except StreamError as error:
                yield error
