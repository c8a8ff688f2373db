"""The fields of ``esp`` in a body: of the adapters am53c974 and dc390, and of the one on SPARC boards.

The structure inside ``pciespscsi`` and ``sysbusespscsi`` has no version in the stream. ``esp.mig_version_id``, which
precedes it since version 2 of these, is the version that wrote it; older ones count as 0. The target reads the fields
of that version, or of its own if that is older (``esp_is_before_version_5`` and the others in hw/scsi/esp.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SENT", "VMSD", "effective", "more_behind", "not_sent"]

VMSD, SENT = "esp", "esp.mig_version_id"
FIFO = 5
"""The version that keeps the data in FIFOs and no longer sends the fields used before."""

_SINCE = {
    **dict.fromkeys(("data_ready", "data_in_ready", "cmdfifo_cdb_offset", "fifo", "cmdfifo", "ti_cmd"), FIFO),
    "lun": 6,
    "asc_mode": 8,
}
_UNTIL = {"mig_ti_cmd": 7}
# field -> additional bytes after it in bodies of other versions: (bytes, first version, first version without them)
_MORE = {
    "ti_size": ((4 + 4 + 16, 0, FIFO),),  # ti_rptr, ti_wptr, ti_buf
    "status": ((4 + 1, 0, FIFO),),  # deferred_status, deferred_complete
    "dma": ((16 + 16 + 4, 0, FIFO),),  # cmdbuf in two parts, cmdlen
    "do_cmd": ((4, 0, FIFO),),  # dma_left
    "cmdfifo": ((1, FIFO, 7),),  # ti_cmd
}
_TI_CMD = ("ti_cmd", "mig_ti_cmd")


def effective(values: Mapping[str, Any], local: int) -> int:
    """Return the version whose fields a target of version ``local`` reads."""
    sent: int = values.get(SENT, 0)
    return min(local, sent)


def not_sent(version: int) -> set[str]:
    """Return the fields of the target that a body of this version does not have."""
    return {name for name, since in _SINCE.items() if version < since} | {
        name for name, until in _UNTIL.items() if not FIFO <= version < until
    }


def more_behind(name: str, version: int, own: Iterable[str]) -> int:
    """Return the number of bytes after a field, in a body of this version, that are not in the target's fields."""
    if name == "cmdfifo" and not set(_TI_CMD).isdisjoint(own):
        return 0
    return sum(size for size, since, until in _MORE.get(name, ()) if since <= version < until)
