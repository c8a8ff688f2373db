"""Fixes of PCI devices: properties of the target's devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qmigtool.preflight import TargetBlock
from tests.preflight.recorded import target
from tests.preflight.remedies.remedied import judge
from tests.support.paths import SAMPLES


@pytest.mark.parametrize("size", [0x10000, 0x40000])
def test_memory_behind_a_bar_keeps_its_size(edited: Callable[..., Path], size: int) -> None:
    """The guest has placed the BAR by its size: with another one real QEMU 10.0 refuses the configuration space."""
    name = "0000:00:02.0/vga.vram"
    path = edited("pc-7.2", lambda edits: edits.rename_block("pc.rom", name))
    aim = target("t00", "7.2")
    blocks = {one: block for one, block in (aim.blocks or {}).items() if one != "pc.rom"}
    found = judge(path, replace(aim, blocks={**blocks, name: TargetBlock(size)})).remedy
    assert found is not None
    assert (found.command, found.needed) == (None, (f"a block {name} of 131072 bytes",))
    assert found.verdict is not None
    assert found.verdict.loads is True


def test_properties_of_the_targets_devices() -> None:
    # Cases R11c (mq=on) and R11d (num-queues=1): MSI-X has other vectors; R11e: queue-size=128, which 11.1 refuses.
    for name, version, words in (
        ("t33", "7.2", "vectors=4 for 0000:00:03.0/virtio-net"),
        ("t34", "7.2", "vectors=4 for 0000:00:02.0/virtio-blk"),
        ("t35", "11.1", "queue-size=256 for 0000:00:02.0/virtio-blk"),
    ):
        result = judge(SAMPLES / "q35-7.2.mig", target(name, version))
        assert result.verdict.loads is False
        assert result.remedy is not None
        assert result.remedy.needed[0].startswith(words)


def test_a_pcie_bit_of_another_machine_version() -> None:
    # A stream whose name alone was changed: the functions have no extended tags, those of pc-q35-9.2 have.
    aim = replace(target("t55", "10.0"), machine="pc-q35-7.2")
    result = judge(SAMPLES / "q35-7.2.mig", aim)
    assert result.verdict.rule == "pci-config"
    assert result.remedy is not None
    assert result.remedy.needed == ("-global pci-device.x-pcie-ext-tag=off",)
    assert result.remedy.verdict is not None
    assert result.remedy.verdict.loads is True
