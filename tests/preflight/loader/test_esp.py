"""The fields of ``esp`` in a body, by the version that wrote it."""

from __future__ import annotations

import pytest

from qmigtool.preflight.loader import esp


@pytest.mark.parametrize(("sent", "bytes_more"), [(8, 0), (7, -1), (6, 0), (5, -1), (4, 69 - 12)])
def test_esp_is_read_by_the_version_that_wrote_it(sent: int, bytes_more: int) -> None:
    """11.1's fields for each mig_version_id, in bytes against its own (asc_mode, ti_cmd, lun, FIFOs; hw/scsi/esp.c)."""
    own = ("cmdfifo_cdb_offset", "data_ready", "fifo", "cmdfifo", "lun", "drq_state", "asc_mode")
    sizes = {"cmdfifo_cdb_offset": 1, "data_ready": 1, "fifo": 4, "cmdfifo": 4, "lun": 1, "drq_state": 1, "asc_mode": 1}
    names = ("ti_size", "status", "dma", "do_cmd", *own)
    version = esp.effective({esp.SENT: sent}, 8)
    left_out = esp.not_sent(version)
    more = sum(esp.more_behind(name, version, own) for name in names)
    total = more - sum(size for name, size in sizes.items() if name in left_out)
    assert total == bytes_more
