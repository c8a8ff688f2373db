"""Guest memory that an input lacks: it travelled on other channels (multifd, postcopy), and they are not given.

Not missing is shared memory that the stream leaves where it is (x-ignore-shared), and what virtio-mem has not plugged.
What a guest told QEMU that it does not use (free page hinting) is not sent either, and nothing in a stream says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qmigtool.errors import BudgetError, UnsupportedError
from qmigtool.ram.unplugged import find_regions

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["Missing", "is_complete", "missing_memory"]

VIRTIO_MEM = ("virtio-mem", "virtio-mem-device-early")


class Missing(NamedTuple):
    """``pages`` of ``total`` are in no channel given; ``excuse`` says why the guest may not miss them, or is empty."""

    pages: int
    total: int
    excuse: str

    @property
    def words(self) -> str:
        """What is missing, or was not sent."""
        count = f"{self.pages} of {self.total} pages of memory"
        return f"{count} were not sent: {self.excuse}" if self.excuse else f"{count} are missing: in no channel given"


def missing_memory(stream: Stream) -> Missing | None:
    """Return what is missing of a stream's memory, or None; reads all of RAM's headers, and all channels.

    Where channels are given, pages are counted one by one; else a page that was sent twice may count for one that was
    never sent, so that at least ``pages`` are missing.
    """
    held, total = stream.pages_held
    if held >= total:
        return None
    pages = total - held
    if stream.channels:
        # Imported here: numpy is not needed for device state.
        from qmigtool.ram import usage

        try:
            blocks = [block for block in usage.blocks(stream.ram) if not block["elsewhere"]]
        except UnsupportedError:  # of a pipe, whose records were not kept
            blocks = []
        else:
            pages = sum(block["absent"] for block in blocks)
    return Missing(pages, total, _excuse(stream)) if pages else None


def is_complete(stream: Stream, lacking: Missing | None = None) -> bool | None:
    """Say whether a stream is complete; None where a limit was reached before that could be seen."""
    if stream.problems and all(isinstance(one, BudgetError) for one in stream.problems):
        return None
    return stream.complete and (lacking is None or bool(lacking.excuse))


def _excuse(stream: Stream) -> str:
    """Say why pages may be missing from a stream that has all that there was to send."""
    names = {device.name.rpartition("/")[2] for device in stream.devices}
    if names & set(VIRTIO_MEM) and not find_regions(stream.devices, stream.ram_blocks):
        return "virtio-mem may not have plugged them, but its state cannot be read"
    # With multifd no whole page goes through the main channel, and postcopy announces itself by commands.
    postcopy = any((section.name or "").startswith("POSTCOPY_") for section in stream.sections)
    if "virtio-balloon" in names and not postcopy and stream.whole_pages:
        return "the guest may have said that it does not use them (balloon)"
    return ""
