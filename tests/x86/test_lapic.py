"""Which local APIC belongs to which vCPU."""

import pytest

from qmigtool.x86.lapic import pairs


@pytest.mark.parametrize(
    ("cpus", "others", "expected"),
    [
        ([0, 1, 2], [0, 1, 4], ((0, 0), (1, 1), (2, 4))),  # three cores a socket: APIC IDs have gaps
        ([0, 1], [], ()),
        ([0, 1], [0], None),
        ([0], [0, 1], None),
    ],
)
def test_sections_are_paired_by_order(cpus: list[int], others: list[int], expected: object) -> None:
    assert pairs(cpus, others) == expected
