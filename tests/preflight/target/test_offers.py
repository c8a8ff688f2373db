"""What QEMU's builds offer, against facts of the releases and against the QEMU that is there."""

from __future__ import annotations

import re
import subprocess

import pytest

from qmigtool.preflight.target import offers
from tests.support.qemu.process import find_qemu


@pytest.mark.parametrize(
    ("version", "name", "answer"),
    [
        # pc-i440fx-2.12 and older went before 11.1; every upstream type lives six years.
        ((10, 0), "pc-i440fx-2.12", True),
        ((11, 1), "pc-i440fx-2.12", False),
        ((11, 1, 3), "pc-q35-5.2", True),
        ((5, 2), "pc-q35-7.2", False),
        ((7, 2), "pc", True),
        ((7, 2), "pc-i440fx-bionic", False),
        # between two builds: only what both say
        ((8, 2), "pc-q35-7.2", True),
        ((8, 2), "pc-q35-8.2", None),
        ((8, 2), "pc-q35-bionic", False),
        # 10.0.50 is on the way to 10.1, whatever 10.0 has
        ((10, 0, 50), "pc-q35-10.0", True),
        ((10, 0, 50), "pc-i440fx-2.12", None),
        ((4, 2), "pc-q35-4.2", None),
        ((12, 0), "pc-q35-11.1", None),
        (None, "pc", None),
    ],
)
def test_machine_types(version: tuple[int, ...] | None, name: str, answer: bool | None) -> None:
    assert offers.offers_machine(version, name) is answer


def test_aliases_and_architectures() -> None:
    newest = {version: offers.machine(version, "q35") for version in offers.BUILDS}
    assert {version: one.name for version, one in newest.items() if one is not None} == {
        (5, 2): "pc-q35-5.2",
        (7, 2): "pc-q35-7.2",
        (10, 0): "pc-q35-10.0",
        (11, 1): "pc-q35-11.1",
    }
    assert offers.machine((10, 0), "virt", "aarch64") == offers.machine((10, 0), "virt-10.0", "aarch64")
    assert offers.offers_machine((10, 0), "virt-10.0", "riscv64") is False  # "virt" is its only name there
    assert offers.offers_machine((10, 0), "virt", "riscv64") is True
    assert offers.offers_machine((10, 0), "virt", "no-such-target") is None
    old = offers.machine((7, 2), "pc-i440fx-1.4")
    assert old is not None
    assert old.deprecated


def test_devices_and_their_properties() -> None:
    assert offers.device((5, 2), "virtio-sound-pci") is False
    assert offers.device((11, 1), "virtio-sound-pci") is True
    assert offers.device_property((10, 0), "virtio-net-pci", "rx_queue_size") is True
    assert offers.device_property((10, 0), "virtio-net-pci", "queue-size") is False
    assert offers.device_property((10, 0), "virtio-net", "rx_queue_size") is True  # an alias of the former
    assert offers.device_property((10, 0), "virtio-blk-pci", "queue-size") is True
    assert offers.device_property((10, 0), "no-such-device", "queue-size") is False
    # which comes with a machine, and takes -global
    assert offers.device_option((7, 2), "PIIX4_PM") is False
    assert offers.device_property((7, 2), "PIIX4_PM", "acpi-pci-hotplug-with-bridge-support") is True
    assert offers.device_option((7, 2), "e1000-82540em") is True
    assert offers.machine_property((5, 2), "pc-i440fx-5.2", "default-bus-bypass-iommu") is False  # came with 6.1
    assert offers.machine_property((7, 2), "pc-i440fx-5.2", "default-bus-bypass-iommu") is True
    assert offers.machine_property((7, 2), "pc", "hpet") is True
    assert offers.machine_property((7, 2), "pc-q35-10.0", "hpet") is None
    properties = offers.device_properties((7, 2), "e1000")
    assert properties is not None
    assert {"mac", "netdev", "addr"} <= properties
    assert offers.device_properties((8, 0), "e1000") is None


def test_cpu_models() -> None:
    assert offers.cpu_model((5, 2), "EPYC-Genoa") is False
    assert offers.cpu_model((10, 0), "EPYC-Genoa") is True
    assert offers.cpu_model((7, 2), "SapphireRapids") is False
    assert offers.cpu_model((11, 1), "cortex-a72", "aarch64") is True


@pytest.mark.qemu
def test_against_the_qemu_that_is_there() -> None:
    binary = find_qemu()
    if binary is None:
        pytest.skip("no qemu-system-x86_64")
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    assert found is not None
    version = (int(found[1]), int(found[2]))
    known = offers.machines(version)
    if known is None:
        pytest.skip(f"QEMU {version} is none of those that were asked")
    text = subprocess.run([str(binary), "-M", "help"], capture_output=True, text=True, check=True).stdout
    there = {line.split()[0] for line in text.splitlines()[1:]} - {"none"}
    ours = {one.name for one in known} | {one.alias for one in known if one.alias} - {"none"}
    # A distribution takes away (Xen's) or adds its own; upstream's are the same.
    upstream = re.compile(r"pc-(i440fx|q35)-\d+\.\d+|pc|q35|microvm|isapc")
    assert {name for name in there if upstream.fullmatch(name)} == {name for name in ours if upstream.fullmatch(name)}
