"""Fixes of PCI devices: properties of the target's devices that make their configuration spaces equal the file's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.parsers import pci
from qmigtool.parsers.vmstate import Field, Kind
from qmigtool.preflight.remedies.fix import Fix
from qmigtool.preflight.remedies.offered import has_property
from qmigtool.preflight.remedies.sections import device_of

if TYPE_CHECKING:
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["pci_config", "queue_size"]

EXTENDED_TAG = 0x20  # bit 5 of DevCap


def pci_config(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Return the property of the target's device that makes this byte of its configuration space equal the file's."""
    device = device_of(stream, verdict)
    if device is None or target.sections is None:
        return None
    at, sent, local = (verdict.values[name] for name in ("at", "received", "local"))
    found = next(((one, start) for one, start in _configurations(device.fields) if one.raw[start + at] == sent), None)
    if found is None:
        return None
    field_, start = found
    config = field_.raw[start:]
    express = pci.express_capability(config)
    msix = pci.capability(config, pci.PCI_CAP_ID_MSIX)
    if msix is not None and at == msix + 2:
        option = f"vectors={sent + 1} for {device.name}, or as many queues as it had"
    elif express is not None and at == express + pci.PCI_EXP_DEVCAP and sent ^ local == EXTENDED_TAG:
        if has_property(target, "pcie-root-port", "x-pcie-ext-tag") is False:
            return None
        option = f"-global pci-device.x-pcie-ext-tag={'on' if sent & EXTENDED_TAG else 'off'}"
    elif express is not None and at - express in range(pci.PCI_EXP_LNKCAP, pci.PCI_EXP_LNKCAP + 2):
        link = _link(config, express, device.name, target)
        if link is None:
            return None
        option = link
    else:
        return None
    key = (device.name, device.instance_id)
    section = target.sections.get(key)
    place = field_.offset - device.section.body_offset + start + at
    if section is None or section.template is None or section.template[place : place + 1] != bytes([local]):
        return Fix(options=(option,))
    given = bytes([sent])
    if express is not None and at - express in range(pci.PCI_EXP_LNKCAP, pci.PCI_EXP_LNKCAP + 2):
        start_, end = express + pci.PCI_EXP_LNKCAP, express + pci.PCI_EXP_LNKCAP + 4
        place, given = place - at + start_, config[start_:end]
    template = section.template[:place] + given + section.template[place + len(given) :]
    return Fix(
        options=(option,),
        target=replace(target, sections={**target.sections, key: replace(section, template=template)}),
    )


_SPEEDS = {1: "2_5", 2: "5", 3: "8", 4: "16", 5: "32"}  # GT/s, as QEMU's properties name them


def _link(config: bytes, express: int, name: str, target: Target) -> str | None:
    """Return the options that give a port of the target the stream's link: before QEMU 4.0 links are slower."""
    device = name.rsplit("/", 1)[-1]
    link = int.from_bytes(config[express + pci.PCI_EXP_LNKCAP : express + pci.PCI_EXP_LNKCAP + 4], "little")
    speed, width = _SPEEDS.get(link & 0xF), link >> 4 & 0x3F
    if speed is None or not all(has_property(target, device, one) for one in ("x-speed", "x-width")):
        return None
    return f"-global {device}.x-speed={speed} -global {device}.x-width={width}"


def _configurations(fields: Sequence[Field]) -> Iterator[tuple[Field, int]]:
    """Yield (field, offset in it) of every PCI configuration space of a device."""
    for one in fields:
        if one.kind is Kind.LEAF:
            if one.type == "pci config" and one.length >= pci.CONFIG_SIZE:
                yield one, 0
            elif one.type == "virtio" and (start := pci.virtio_configuration(one.raw)) is not None:
                yield one, start
        elif one.kind is not Kind.ARRAY:
            yield from _configurations(one.children)


# vmsd -> (device, property that sets the size of all its queues). Other devices have no such property, or not for all.
_QUEUES = {"virtio-blk": ("virtio-blk-pci", "queue-size"), "virtio-scsi": ("virtio-scsi-pci", "virtqueue_size")}


def queue_size(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Return the option that sets the size of the device's virtqueues, if the target's device has one."""
    device, name = _QUEUES.get((verdict.section or "").rsplit("/", 1)[-1], ("", ""))
    if not name or not has_property(target, device, name):
        return None
    return Fix(options=(f"{name}={verdict.values['received']} for {verdict.section}",))
