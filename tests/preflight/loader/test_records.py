"""RAM records as the target loads them."""

from __future__ import annotations

from tests.preflight import recorded
from tests.preflight.edited import Edited
from tests.preflight.loader.predicted import pc, verdict


def test_a_file_that_ends_between_two_records() -> None:
    """Real 7.2 takes zeros for a record there, 10.0 and 11.1 look first."""
    edited = Edited("pc-7.2")
    edited.cut(edited.last_record() + 4, len(edited.data))
    data = edited.result()
    assert verdict(data, pc()).errors[0] == "Unknown combination of migration flags: 0x0"
    assert verdict(data, recorded.target("t00", "10.0")).errors[0] == "Getting RAM address failed"
