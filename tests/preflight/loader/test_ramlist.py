"""The list of RAM blocks, compared with the target's."""

from __future__ import annotations

from tests.preflight.loader.decided import case, judged, target


def test_shared_memory_must_lie_where_it_lay() -> None:
    found = judged(case("ignshared-7.2.mig"), target("ignshared-7.2.ref", "7.2")).verdict
    assert found.loads is False
    assert found.errors == (
        "Mismatched GPAs for block 0000:00:01.0/x 4261412864!= 0",
        "error while loading state for instance 0x0 of device 'ram'",
        "load of migration failed: Invalid argument",
    )
    # Against itself the addresses are alike; the shared memory is nowhere to be seen.
    itself = judged(case("ignshared-7.2.mig"), target("ignshared-7.2.mig", "7.2")).verdict
    assert itself.loads is None
    assert all("shared memory" in doubt.message for doubt in itself.doubts)
