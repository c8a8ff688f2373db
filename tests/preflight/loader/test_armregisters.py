"""An Arm vCPU's system registers as the target loads them."""

from __future__ import annotations

import qmigtool
from tests.preflight.loader.decided import case, judged, target


def test_more_registers_than_an_arm_cpu_has() -> None:
    found = judged(case("armmax.mig"), target("arm72.mig", "7.2")).verdict
    assert found.errors == (
        "Invalid value 304 expecting positive value <= 258",
        "Failed to load cpu:cpreg_vmstate_array_len",
        "error while loading state for instance 0x0 of device 'cpu'",
        "load of migration failed: Invalid argument",
    )


def edited(name: str, path: str, index: int, value: int) -> bytes:
    """Change one 64-bit element of an array."""
    data = bytearray(case(name))
    with qmigtool.open(case(name)) as stream:
        at = stream.field(path).offset + 8 * index
    data[at : at + 8] = value.to_bytes(8, "big")
    return bytes(data)


def index_of(name: str, number: int) -> int:
    with qmigtool.open(case(name)) as stream:
        raw = bytes(stream.field("cpu@0/cpreg_vmstate_indexes").raw)
    return [int.from_bytes(raw[at : at + 8], "big") for at in range(0, len(raw), 8)].index(number)


ID_ISAR0_EL1, SCTLR_EL1 = 0x6030_0000_0013_C010, 0x6030_0000_0013_C080


def test_an_arm_cpu_that_is_another_one() -> None:
    """By register: what tells the CPU must be equal, what a guest writes need not."""
    aim = target("arm72.mig", "7.2")
    values = "cpu@0/cpreg_vmstate_values"
    other = judged(edited("arm72.mig", values, index_of("arm72.mig", ID_ISAR0_EL1), 0x2101111), aim).verdict
    assert (other.loads, other.section, other.errors[-1]) == (
        False,
        "cpu",
        "load of migration failed: Operation not permitted",
    )
    written = judged(edited("arm72.mig", values, index_of("arm72.mig", SCTLR_EL1), 0x30C50830), aim).verdict
    assert written.loads is True


def test_registers_are_compared_by_name_since_11() -> None:
    """As real 11.1 said of it, line by line (its warnings about the machine type left out)."""
    found = judged(case("armmax.mig"), target("arm72-11.1.ref", "11.1")).verdict
    real = case("armmax-into-11.1.txt").decode().splitlines()
    assert list(found.errors) == [line.removeprefix("qemu-system-aarch64: ").rstrip() for line in real]
    # The same CPU of 7.2 has registers that 11.1 does not know: real 11.1 refuses it, too.
    assert judged(case("arm72.mig"), target("arm72-11.1.ref", "11.1")).verdict.rule == "registers"
    # A target that has more than the stream tells so, and goes on.
    fewer = judged(case("arm72-11.1.ref"), target("arm72-11.1.ref", "11.1")).verdict
    assert (fewer.loads, fewer.warnings) == (True, ())
