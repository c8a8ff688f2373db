"""Guest memory that devices read while they load."""

from __future__ import annotations

from tests.preflight.loader.decided import case, judged, target, undecided


def test_memory_that_went_by_other_channels() -> None:
    (doubt,) = undecided(judged(case("mfddest-10.0.mig"), target("mfddest-10.0.ref", "10.0")))
    assert "--channel" in doubt.message


def test_which_block_is_low_memory() -> None:
    """Main memory by two names that people gave; the stream's own page tells, if only one has a ROM there."""
    data = case("numa-dimm-11.1.mig").replace(b"\x06pc.ram", b"\x06node_a")
    reference = case("numa-dimm-11.1.ref").replace(b"\x06pc.ram", b"\x06node_a")
    assert judged(data, target("numa-dimm-11.1.ref", "11.1", reference)).loads is True
