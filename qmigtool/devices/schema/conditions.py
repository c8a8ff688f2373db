"""Fields that exist depending on an earlier field of the same stream, which no description records.

Other conditions of fields depend on the machine, which then differs between the two sides.
"""

from __future__ import annotations

__all__ = ["TOLD_BY", "TOLD_SINCE"]

TOLD_BY = {"esp": "esp.mig_version_id"}
"""vmsd -> the field, sent before it, with the version as which it is sent (hw/scsi/esp.c, ``mig_version_id``)."""
TOLD_SINCE = {"esp": {"asc_mode": 8}}
"""vmsd -> field -> the version from which on it is sent, and expected."""
