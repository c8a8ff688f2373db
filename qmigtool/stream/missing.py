"""Guest memory that the input does not contain: it was sent on other channels (multifd, postcopy) that are not given.

Shared memory that the stream leaves in place (x-ignore-shared) and memory that virtio-mem has not plugged are not
missing. Pages that the guest reported as free (free page hinting) are not sent either, and the stream does not record
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qmigtool.errors import BudgetError, UnsupportedError
from qmigtool.ram.unplugged import find_regions

if TYPE_CHECKING:
    from qmigtool.stream.facts import Facts

__all__ = ["Missing", "is_complete", "missing_memory"]

VIRTIO_MEM = ("virtio-mem", "virtio-mem-device-early")


class Missing(NamedTuple):
    """``pages`` of ``total`` are in none of the given channels; ``excuse`` says why they may be unused, or is empty."""

    pages: int
    total: int
    excuse: str

    @property
    def status(self) -> int:
        """The exit status of what needs all memory: 1, or 0 if the pages may be unused."""
        return int(not self.excuse)

    @property
    def words(self) -> str:
        """The message about the pages that are missing or were not sent."""
        count = f"{self.pages} of {self.total} pages of memory"
        if self.excuse:
            return f"{count} were not sent: {self.excuse}"
        return f"{count} are missing: they are in none of the given channels"

    @property
    def advice(self) -> str:
        """What to do about it, or an empty string where the pages may be unused."""
        return "" if self.excuse else "multifd and postcopy use others: --channel adds them"


def missing_memory(stream: Facts) -> Missing | None:
    """Return which memory of a stream is missing, or None; reads all of RAM's headers, and all channels.

    Where channels are given, pages are counted one by one; otherwise a page that was sent twice may hide one that was
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
        except UnsupportedError:  # a pipe, whose records were not kept
            blocks = []
        else:
            pages = sum(block["absent"] for block in blocks)
    return Missing(pages, total, _excuse(stream)) if pages else None


def is_complete(stream: Facts, lacking: Missing | None = None) -> bool | None:
    """Return whether a stream is complete; None where a limit was reached before that was known."""
    if stream.problems and all(isinstance(one, BudgetError) for one in stream.problems):
        return None
    return stream.complete and (lacking is None or not lacking.status)


def _excuse(stream: Facts) -> str:
    """Return why pages may be missing from a stream that was sent completely."""
    names = {device.name.rpartition("/")[2] for device in stream.devices}
    if names & set(VIRTIO_MEM) and not find_regions(stream.devices, stream.ram_blocks):
        return "virtio-mem may not have plugged them, but its state cannot be read"
    # With multifd no whole page is in the main channel, and postcopy sends commands.
    postcopy = any((section.name or "").startswith("POSTCOPY_") for section in stream.sections)
    if "virtio-balloon" in names and not postcopy and stream.whole_pages:
        return "the guest may have reported them as free (balloon)"
    return ""
