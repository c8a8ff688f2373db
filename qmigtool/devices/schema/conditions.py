"""Fields of which an earlier field of the same stream says whether they are there: no description tells that.

Other conditions of fields depend on the machine, which then is another on both sides.
"""

from __future__ import annotations

__all__ = ["TOLD_BY", "TOLD_SINCE"]

TOLD_BY = {"esp": "esp.mig_version_id"}
"""vmsd -> the field, sent before it, that says as which version it is sent (hw/scsi/esp.c, ``mig_version_id``)."""
TOLD_SINCE = {"esp": {"asc_mode": 8}}
"""vmsd -> field -> the version from which on it is sent, and expected."""
