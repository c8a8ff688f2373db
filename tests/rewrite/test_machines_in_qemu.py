"""A machine type of another version, loaded by real QEMU: what the name alone does not do, the upgrade does."""

import os
import shutil
from pathlib import Path

import pytest

import qmigtool
from tests.conftest import QemuStreamFactory
from tests.support.qemu.machine import Machine
from tests.support.qemu.reloaded import edited, load, refusal

pytestmark = pytest.mark.qemu

DEVICES = (
    *("-device", "pcie-root-port,id=rp1,chassis=1,slot=1", "-device", "pcie-root-port,id=rp2,chassis=2,slot=2"),
    *("-device", "pcie-pci-bridge,bus=rp1", "-device", "virtio-net-pci,bus=rp2,netdev=b"),
    *("-netdev", "hubport,id=a,hubid=0", "-netdev", "hubport,id=b,hubid=0", "-device", "e1000e,netdev=a"),
    *("-device", "qemu-xhci", "-device", "usb-tablet", "-device", "virtio-rng-pci"),
)


def q35(version: str) -> Machine:
    return Machine(machine=f"pc-q35-{version}", extra=DEVICES)


def test_what_no_edit_can_do_is_said(qemu_stream: QemuStreamFactory, tmp_path: Path) -> None:
    saved = qemu_stream(q35("6.2"))
    assert "Machine type received is 'pc-q35-6.2'" in refusal(q35("7.2"), saved.path)
    with qmigtool.open(saved.path) as stream:
        rewriter = qmigtool.Rewriter(stream)
        rewriter.upgrade_machine("pc-q35-7.2")
        assert any("-device virtio-rng-pci,vectors=0" in note for note in rewriter.notes)
        rewriter.save(tmp_path / "made.mig")
    said = refusal(q35("7.2"), tmp_path / "made.mig")
    assert "Failed to load virtio-rng:virtio" in said or "Failed to load element of type virtio" in said  # as 11.1 does
    devices = tuple(word.replace("virtio-rng-pci", "virtio-rng-pci,vectors=0") for word in DEVICES)
    loaded = load(Machine(machine="pc-q35-7.2", extra=devices), tmp_path / "made.mig", tmp_path / "again.mig")
    assert loaded.registers == list(saved.registers)


@pytest.fixture
def newer(qemu_stream: QemuStreamFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a stream of the installed QEMU; from now on QEMU is a newer one."""
    named = os.environ.get("QMIGTOOL_QEMU_NEW")
    if not named or shutil.which(named) is None:
        pytest.skip("QMIGTOOL_QEMU_NEW names no newer qemu-system-x86_64")
    saved = qemu_stream(q35("7.2"))
    if saved.qemu_version >= (8,):
        pytest.skip(
            "QEMU from 8 on saves a size of virtio-net's queues that a newer one refuses, and no edit changes it"
        )
    monkeypatch.setenv("QMIGTOOL_QEMU", named)
    return saved.path


@pytest.mark.parametrize(
    ("version", "error"),
    [
        ("8.0", "Missing section footer for 0000:00:03.0/e1000e"),
        ("9.1", "Missing section footer for 0000:00:03.0/e1000e"),
        ("9.2", "Bad config data: i=0x58 read: 0 device: 20"),
        ("10.0", "Bad config data: i=0x58 read: 0 device: 20"),
    ],
)
def test_later_versions_want_more(newer: Path, version: str, error: str, tmp_path: Path) -> None:
    named = edited(newer, tmp_path / "named.mig", lambda r: r.machine_type(f"pc-q35-{version}"))
    assert error in refusal(q35(version), named)
    made = edited(newer, tmp_path / "made.mig", lambda r: r.upgrade_machine(f"pc-q35-{version}"))
    load(q35(version), made, tmp_path / "again.mig")


def test_an_older_one_wants_less(newer: Path, tmp_path: Path) -> None:
    """Up with the newer QEMU, saved by it, and down again: the older one loads what it had sent."""
    made = edited(newer, tmp_path / "up.mig", lambda r: r.upgrade_machine("pc-q35-10.0"))
    load(q35("10.0"), made, tmp_path / "newer.mig")
    os.environ.pop("QMIGTOOL_QEMU")
    named = edited(tmp_path / "newer.mig", tmp_path / "n.mig", lambda r: r.machine_type("pc-q35-7.2"))
    assert "MIG_CMD 0xb unknown" in refusal(q35("7.2"), named)
    down = edited(tmp_path / "newer.mig", tmp_path / "down.mig", lambda r: r.upgrade_machine("pc-q35-7.2"))
    load(q35("7.2"), down, tmp_path / "again.mig")
