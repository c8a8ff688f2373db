"""Which fields of ``esp`` a body has: the adapters am53c974 and dc390, and the one on SPARC boards.

The structure inside ``pciespscsi`` and ``sysbusespscsi`` has no version in the stream. ``esp.mig_version_id``, which
stands before it since version 2 of these, says which one wrote it; what is older counts as 0. The target reads the
fields of that version, or of its own if that is older (``esp_is_before_version_5`` and the others in hw/scsi/esp.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SENT", "VMSD", "effective", "more_behind", "not_sent"]

VMSD, SENT = "esp", "esp.mig_version_id"
FIFO = 5
"""The version that keeps the data in FIFOs: what was there before it is sent no more."""

_SINCE = {
    **dict.fromkeys(("data_ready", "data_in_ready", "cmdfifo_cdb_offset", "fifo", "cmdfifo", "ti_cmd"), FIFO),
    "lun": 6,
    "asc_mode": 8,
}
_UNTIL = {"mig_ti_cmd": 7}
# field -> what follows it in a body of other versions: (bytes, first version, first version without it)
_MORE = {
    "ti_size": ((4 + 4 + 16, 0, FIFO),),  # ti_rptr, ti_wptr, ti_buf
    "status": ((4 + 1, 0, FIFO),),  # deferred_status, deferred_complete
    "dma": ((16 + 16 + 4, 0, FIFO),),  # cmdbuf in two parts, cmdlen
    "do_cmd": ((4, 0, FIFO),),  # dma_left
    "cmdfifo": ((1, FIFO, 7),),  # ti_cmd
}
_TI_CMD = ("ti_cmd", "mig_ti_cmd")


def effective(values: Mapping[str, Any], local: int) -> int:
    """Return the version by whose fields a target of version ``local`` reads the structure."""
    sent: int = values.get(SENT, 0)
    return min(local, sent)


def not_sent(version: int) -> set[str]:
    """Return the fields of the target's own that a body of this version does not have."""
    return {name for name, since in _SINCE.items() if version < since} | {
        name for name, until in _UNTIL.items() if not FIFO <= version < until
    }


def more_behind(name: str, version: int, own: Iterable[str]) -> int:
    """Return how many bytes a body of this version has behind a field, of what is not among the target's ``own``."""
    if name == "cmdfifo" and not set(_TI_CMD).isdisjoint(own):
        return 0
    return sum(size for size, since, until in _MORE.get(name, ()) if since <= version < until)
