"""What QEMU does not load though it has saved it itself, as real 5.2, 7.2, 10.0 and 11.1 did with their own."""

from __future__ import annotations

from dataclasses import replace

import pytest

import qmigtool
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader.armregisters import SCTLR_EL3
from qmigtool.preflight.loader.predict import Verdict, predict_source
from qmigtool.preflight.target.reference import target_from_stream
from tests.support.ramwriter import plain
from tests.support.streamwriter import StreamWriter, Vmsd, num, nums

SCTLR_EL1, ACTLR_EL1 = 0x603000000013C080, 0x603000000013C081


def itself(data: bytes, version: tuple[int, int] | None) -> Verdict:
    """Judge a stream of QEMU of a version against itself."""
    with qmigtool.open(data) as stream:
        target = target_from_stream(stream, "reference")
    return predict_source(BufferSource(data), replace(target, qemu=version))


def device(name: str, vmsd: Vmsd) -> bytes:
    writer = StreamWriter(machine="virt")
    writer.device(1, name, 0, vmsd)
    return writer.finish()


def card(*subsections: Vmsd) -> bytes:
    return device("sd-card", Vmsd("sd-card", 1, [num("mode", "int32", 1)], subsections))


def vcpu(registers: list[int]) -> bytes:
    count = len(registers)
    fields = [
        num("cpreg_vmstate_array_len", "int32 le", count),
        nums("cpreg_vmstate_indexes", "uint64", registers),
        nums("cpreg_vmstate_values", "uint64", [0] * count),
    ]
    return device("cpu", Vmsd("cpu", 22, fields))


@pytest.mark.parametrize(
    ("version", "loads"), [((5, 2), True), ((7, 2), None), ((10, 0), None), ((11, 1), None), (None, None)]
)
def test_an_sd_card_that_is_powered_up_from_reset_on(version: tuple[int, int] | None, loads: bool | None) -> None:
    found = itself(card(), version)
    assert found.loads is loads
    assert loads or any("sd-card/ocr-state" in one.message for one in found.unknown)
    assert itself(card(Vmsd("sd-card/ocr-state", 1, [num("ocr", "uint32", 0)])), version).loads is True


@pytest.mark.parametrize(
    ("version", "loads"), [((5, 2), False), ((6, 2), None), ((7, 2), True), ((11, 1), True), (None, None)]
)
def test_a_vcpu_with_el3(version: tuple[int, int] | None, loads: bool | None) -> None:
    found = itself(vcpu([SCTLR_EL1, SCTLR_EL3]), version)
    assert found.loads is loads
    if loads is False:
        assert found.errors[-1] == "load of migration failed: Operation not permitted"
    assert itself(vcpu([SCTLR_EL1, ACTLR_EL1]), version).loads is True


@pytest.mark.parametrize(("version", "loads"), [((10, 0), True), ((11, 1), None)])
def test_a_block_on_which_qemu_dies(version: tuple[int, int], loads: bool | None) -> None:
    writer = plain()
    writer.device(2, "timer", 0, Vmsd("timer", 2, [num("ticks", "int64", 1)]))
    data = writer.finish()
    named = data.replace(b"\x01r", b"\x0asram-as-io")
    assert named != data
    assert itself(named, version).loads is loads
    assert itself(data, version).loads is True
