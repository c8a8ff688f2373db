"""Comparing broken streams gives only findings and problems."""

import random
import sys
import tracemalloc

import pytest

import qmigtool
from qmigtool.diff import compare
from qmigtool.errors import QmigError
from qmigtool.util.text import printable
from tests.diff.comparing import compared, places
from tests.rewrite.editing import stream_of
from tests.support import samplefiles
from tests.support.streamwriter import Vmsd, num, nums, structs


@pytest.mark.slow
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


def test_a_long_array_of_structs_is_told_by_its_first_elements() -> None:
    def array(fill: int) -> bytes:
        parts = [Vmsd("part", 1, [num("x", "uint8", fill)]) for _ in range(2000)]
        return stream_of(("d", 0, Vmsd("d", 1, [structs("t", parts)])))

    found = compared(array(0), array(1))
    assert places(found) == [*(f"d@0/t[{i}]/x" for i in range(16)), "d@0/t[...1999]"]
    assert found.differences[-1].meaning == "1984 more elements differ"


def test_differences_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["qmigtool.diff.compare"], "MAX_DIFFERENCES", 5)  # the name is a function's, too
    found = compared(samplefiles.path("pc-7.2"), samplefiles.path("q35-7.2"))
    assert (len(found.differences), len(found.excused)) == (5, 5)
    assert found.notes[-1].endswith("more differences are not listed")


def test_what_is_printed_is_no_command_of_a_ci_runner() -> None:
    """GitHub's runner reads ``::command::`` at the start of a line, and ``##[command]`` anywhere."""
    assert printable("::stop-commands::x") == "\\x3a:stop-commands::x"
    assert printable("a ##[error]b ::c") == "a #\\x23[error]b ::c"
    assert printable("cpu::x") == "cpu::x"


def test_devices_of_one_name_are_paired_in_their_order() -> None:
    one, two = (Vmsd("d", 1, [nums("t", "uint8", [fill])]) for fill in (1, 2))
    a, b = stream_of(("d", 0, one), ("d", 0, two)), stream_of(("d", 0, one), ("d", 0, one))
    assert places(compared(a, b)) == ["d@0/t"]
