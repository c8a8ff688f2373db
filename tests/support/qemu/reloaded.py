"""What the tests with real QEMU share: edit a stream, load it, look at what was loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import qmigtool
from qmigtool.rewrite import Rewriter
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.process import QemuError
from tests.support.qemu.registers import MonitorRegisters, parse_registers

Edits = Callable[[Rewriter], None]


def edited(source: Path, target: Path, edits: Edits) -> Path:
    """Write ``source`` with edits to ``target``."""
    with qmigtool.open(source) as stream:
        rewriter = Rewriter(stream)
        edits(rewriter)
        rewriter.save(target)
    return target


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stream that QEMU loaded: its registers as the monitor prints them, and the stream that it saved again."""

    registers: list[MonitorRegisters]
    mtree: str
    again: Path


def load(machine: Machine, path: Path, again: Path) -> Loaded:
    """Load a stream, ask the monitor, and save it again; QemuError if QEMU refuses it."""
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(path)
        registers, mtree = parse_registers(qemu.info_registers()), qemu.hmp("info mtree -f")
        qemu.migrate_to_file(again)
    return Loaded(registers, mtree, again)


def refusal(machine: Machine, path: Path) -> str:
    """Return what QEMU says when it refuses a stream; an AssertionError if it does not."""
    try:
        with Qemu(machine, incoming=True) as qemu:
            qemu.load(path)
    except QemuError as error:
        return str(error)
    raise AssertionError("QEMU loads it")
