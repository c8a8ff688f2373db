"""The opaque state of a virtio device and its rings."""

from __future__ import annotations

import pytest

import qmigtool
from qmigtool.findings.text import sentence
from tests.preflight import recorded
from tests.preflight.edited import Edited
from tests.preflight.loader.decided import case, judged, target, undecided
from tests.preflight.loader.predicted import verdict

LAST = "load of migration failed: Invalid argument"


def test_virtio_state_is_read_to_its_end() -> None:
    """Of what no vmdesc describes: real 7.2 says the same (test_predict_qemu damages pc-7.2 only)."""
    edited = Edited("q35-7.2")
    edited.append(edited.section("0000:00:04.0/virtio-rng"), b"\0")
    found = verdict(edited.result(), recorded.target("t23", "7.2"))
    assert found.errors == ("Missing section footer for 0000:00:04.0/virtio-rng", LAST)


def test_a_virtio_device_whose_own_part_is_cut_reads_on_to_the_end() -> None:
    """Real 7.2 takes other bytes for the number of addresses, and ends with the same last line."""
    edited = Edited("q35-7.2")
    net = edited.section("0000:00:03.0/virtio-net")
    queues_end = net.body_offset + 415
    edited.cut(queues_end, queues_end + 2)
    found = verdict(edited.result(), recorded.target("t23", "7.2"))
    assert (found.loads, found.section) == (False, "0000:00:03.0/virtio-net")
    assert found.errors[-1] == "load of migration failed: Input/output error"


def test_features_that_a_backend_brings() -> None:
    (doubt,) = undecided(judged(case("f6b.mig"), target("f6ref.mig", "10.0")))
    assert sentence(doubt).startswith("0000:00:01.0/virtio-net@0: virtio: whether the target's device offers features")


def test_a_ring_that_was_used_further() -> None:
    found = judged(case("c7b.mig"), target("c7ref.mig", "10.0")).verdict
    assert found.loads is False
    assert found.errors[0] == "VQ 0 size 0x100 < last_avail_idx 0x0 - used_idx 0x1"
    assert found.errors[-1] == "load of migration failed: Operation not permitted"


def test_a_ring_that_stands_still() -> None:
    found = judged(case("c7a.mig"), target("c7ref.mig", "10.0"))
    assert found.loads is True
    assert found.verdict.warnings == (
        "VQ 0 size 0x100 Guest index 0x1 inconsistent with Host index 0x200: delta 0xfe01",
    )
    assert [one.device for one in found.losses if one.rule == "device-broken"] == ["0000:00:01.0/virtio-blk@0"]


def test_packed_rings_with_requests_in_flight_load_nowhere() -> None:
    """QEMU refuses its own file: it writes a word before an element, and reads it behind."""
    found = judged(case("iblkpk100.mig"), target("iblkpk100.mig", "10.0")).verdict
    assert (found.loads, found.errors) == (False, ("virtio: unexpected memory split",))


@pytest.mark.parametrize("change", [1, 0x200])
def test_last_avail_idx_of_mmio(change: int) -> None:
    """A queue of 5.2's virtio-mmio whose index is moved: refused, or (by 0x200) left alone."""
    data = bytearray(case("mm52.mig"))
    aim = target("mm52.mig", "5.2")
    with qmigtool.open(case("mm52.mig")) as stream:
        device = next(one for one in stream.devices if one.name.endswith("/virtio-blk"))
        at = next(field.offset for field in device.fields if field.name == "virtio")
    # host and guest selectors, page shift; status, isr, queue_sel, features; config; queues
    at += 12 + 8
    at += 4 + int.from_bytes(data[at : at + 4], "big") + 4
    last = at + 4 + 4 + 8
    index = int.from_bytes(data[last : last + 2], "big")
    data[last : last + 2] = ((index - change) & 0xFFFF).to_bytes(2, "big")
    found = judged(bytes(data), aim)
    assert found.loads is False or any(one.rule == "device-broken" for one in found.losses)
