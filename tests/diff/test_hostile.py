"""Comparing what somebody has broken: nothing but findings and problems comes of it."""

import random
import tracemalloc

import pytest

import qmigtool
from qmigtool.diff import compare
from qmigtool.errors import QmigError
from tests import samplefiles
from tests.diff.comparing import compared, places
from tests.rewrite.editing import stream_of
from tests.streamwriter import Vmsd, nums


@pytest.mark.parametrize(("name", "rounds"), [("kvm-avx512-7.2", 100), ("novmdesc-7.2", 20)])
def test_flipped_bytes(name: str, rounds: int) -> None:
    """Bytes of device state and of the vmdesc, at random but always the same ones."""
    data = samplefiles.read(name)
    chance = random.Random(5)  # noqa: S311 - no secret
    with qmigtool.open(data) as stream:
        start = min(device.section.offset for device in stream.devices)
        for _ in range(rounds):
            broken = bytearray(data)
            for _ in range(chance.randint(1, 4)):
                broken[chance.randrange(start, len(data))] ^= 1 << chance.randrange(8)
            try:
                with qmigtool.open(bytes(broken)) as other:
                    found = compare(stream, other)
                    assert found.differences or found.excused or other.problems or found.same
            except QmigError:
                pass


def test_a_long_array_that_differs_everywhere_is_one_difference() -> None:
    size = 1 << 17
    a, b = (stream_of(("d", 0, Vmsd("d", 1, [nums("t", "uint8", [fill] * size)]))) for fill in (0, 1))
    tracemalloc.start()
    found = compared(a, b)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert places(found) == [f"d@0/t[0:{size}]"]
    assert found.differences[0].meaning == f"{size} elements differ"
    assert len(found.differences[0].a) == 16
    assert peak < 64 * size


def test_devices_of_one_name_are_paired_in_their_order() -> None:
    one, two = (Vmsd("d", 1, [nums("t", "uint8", [fill])]) for fill in (1, 2))
    a, b = stream_of(("d", 0, one), ("d", 0, two)), stream_of(("d", 0, one), ("d", 0, one))
    assert places(compared(a, b)) == ["d@0/t"]
