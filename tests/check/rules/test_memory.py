"""The rules about guest memory."""

from __future__ import annotations

import struct

import pytest

from tests.check.checking import edited, sample
from tests.check.rules.cases import KVM, PC, Case, check_case


def without_block() -> bytes:
    """No page of /rom@etc/acpi/rsdp: its one record, with its name, is taken out of the PART that has it."""
    data = sample(PC)
    name = b"/rom@etc/acpi/rsdp"
    at = data.index(bytes([len(name)]) + name, data.index(name) + 30)  # behind the list of blocks
    (word,) = struct.unpack(">Q", data[at - 8 : at])
    assert word & 0xFFF == 0x08  # a page, the first of its block
    return data[: at - 8] + data[at + 1 + len(name) + 4096 :]


CASES = (
    Case(
        "ram-blocks",
        lambda: edited(PC, lambda r: r.rename_block("pc.ram", "mem0")),
        [("error", "ram/pc.ram")],
        PC,
        '[rules.ram-blocks]\nsizes = { "pc.ram" = "16M" }',
    ),
    Case("ram-block-sent", without_block, [("warning", "ram//rom@etc/acpi/rsdp")], PC),
    Case("ram-pages-sent", lambda: sample("multifd-none-7.2"), [("error", "ram")], PC, says="348 of 4178 pages"),
    Case("ram-zero-ratio", lambda: sample(KVM), [("error", "ram")], PC, "[rules.ram-zero-ratio]\nmaximum = 0.98"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    check_case(case)
