"""From one version of a machine type to another: the name, and the little of the state that goes with the version.

QEMU keeps old machine types alive by properties (``hw_compat_*`` in ``hw/core/machine.c``); a few of them change what
is sent or checked. Measured by loading streams of pc-i440fx-7.2 and pc-q35-7.2 (71 devices) as every later version that
QEMU 10.0 and 11.1 have, and some the other way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qmigtool.errors import UsageError
from qmigtool.parsers.vmdesc import FieldDescription
from qmigtool.parsers.vmstate import Kind
from qmigtool.rewrite import header
from qmigtool.rewrite.body import Body, Entry

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Field
    from qmigtool.rewrite.draft import Draft, SectionDraft

__all__ = ["STEPS", "Step", "upgrade"]

EDIT = "upgrade-machine"
_NAME = re.compile(r"(.+)-(\d{1,3})\.(\d{1,3})")
Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """What machine types from version ``since`` on have; ``run(draft, later)`` gives it, or takes it away."""

    since: Version
    why: str
    run: Callable[[Draft, bool, str], None]


def upgrade(draft: Draft, name: str) -> None:
    """Give a stream the machine type ``name``, of the same family and another version, and what that wants.

    Raises :class:`~qmigtool.errors.UsageError` for another family, or names without a version.
    """
    old = header.configuration(draft).machine
    (family, version), (new_family, new_version) = _parse(old), _parse(name)
    if family != new_family:
        raise UsageError(
            f"{name!r} is another machine than {old!r}: its devices are others", expected=f"{family}-MAJOR.MINOR"
        )
    header.set_machine_type(draft, name, EDIT)
    for step in STEPS:
        if (version < step.since) != (new_version < step.since):
            step.run(draft, new_version >= step.since, step.why)
    draft.notes.append("what the guest was told at its boot (ACPI tables, CPUID) stays that of the old machine type")


def _parse(name: str) -> tuple[str, Version]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"the machine type {name!r} has no version", expected="one like pc-q35-9.2")
    return match[1], (int(match[2]), int(match[3]))


# -- what versions differ in -----------------------------------------------------------------------------------------

TIMADJ = FieldDescription("core.timadj", "int64", 8, None, None, ())


def time_adjustment(draft: Draft, later: bool, why: str) -> None:
    """Give e1000e its last field, core.timadj, or take it away (x-migrate-timadj)."""
    for section in draft.sections:
        if (section.section.name or "").rsplit("/", 1)[-1] != "e1000e" or section.description is None:
            continue
        there = section.device.get(TIMADJ.name)
        if (there is not None) == later:
            continue
        if there is None:
            section.reshape(_append)
            draft.change(EDIT, f"{section.label}/{TIMADJ.name}", None, None, 0, why)
        else:
            offset = draft.source_offset(section, TIMADJ.name)
            draft.change(EDIT, f"{section.label}/{TIMADJ.name}", offset, there.value, None, why)
            section.reshape(_remove)


def _append(tree: Body) -> None:
    tree.entries.append(Entry(TIMADJ, bytes(TIMADJ.size)))


def _remove(tree: Body) -> None:
    tree.entries = [entry for entry in tree.entries if entry.description.name != TIMADJ.name]


PCI_STATUS, PCI_STATUS_CAP_LIST, PCI_CAPABILITY_LIST = 0x06, 0x10, 0x34
PCI_CAP_ID_EXP, PCI_EXP_DEVCAP, EXTENDED_TAG = 0x10, 4, 0x20
PCI_CONFIG = 256  # bytes in which capabilities lie
PCIE_CONFIG = 4096  # and those in which extended ones do, from 0x100 on
PCI_EXT_CAP_ID_ERR, PCI_ERR_UNCOR_MASK = 0x0001, 8
PCI_ERR_UNC_MASKED = ((2, 0x40), (3, 0x02))  # bits 22 (internal) and 25 (TLP prefix) of the mask: byte, bit in it


def extended_tag(draft: Draft, later: bool, why: str) -> None:
    """Set DevCap's Extended Tag bit in every PCI Express function, or clear it (x-pcie-ext-tag)."""
    for section in draft.sections:
        for path, field, start in list(_configurations(section)):
            capability = _express(field.raw[start : start + PCI_CONFIG])
            if capability is not None:
                _set_bit(draft, section, path, start + capability + PCI_EXP_DEVCAP, EXTENDED_TAG, later, why)


def error_mask(draft: Draft, later: bool, why: str) -> None:
    """Clear the bits of the mask of uncorrectable errors that a later machine type sets (x-pcie-err-unc-mask).

    The other way nothing needs to be done: there the guest may write the bit, so QEMU takes either value.
    """
    for section in draft.sections if not later else ():
        for path, field, start in list(_configurations(section)):
            capability = _error_reporting(field.raw[start : start + PCIE_CONFIG])
            if capability is not None:
                for byte, bit in PCI_ERR_UNC_MASKED:
                    at = start + capability + PCI_ERR_UNCOR_MASK + byte
                    _set_bit(draft, section, path, at, bit, False, why)


def _set_bit(draft: Draft, section: SectionDraft, path: str, at: int, bit: int, on: bool, why: str) -> None:
    """Set or clear a bit of byte ``at`` of a field."""
    field = section.device.field(path)
    raw = field.raw
    new = raw[at] | bit if on else raw[at] & ~bit
    if new != raw[at]:
        offset = draft.source_offset(section, path)
        section.patch(field, raw[:at] + bytes([new]) + raw[at + 1 :])
        where = f"{section.label}/{path} byte {at:#x}"
        draft.change(EDIT, where, None if offset is None else offset + at, raw[at], new, why)


def _configurations(section: SectionDraft) -> Iterator[tuple[str, Field, int]]:
    """Give (path, field, where in it) of every PCI configuration space of a device."""
    if section.description is None:
        return
    for path, field in _leaves(section.device.fields, ""):
        if field.type == "pci config":
            yield path, field, 0
        elif field.type == "virtio" and field.length >= 4 + PCI_CONFIG and field.raw[:4] == b"\0\0\0\2":
            # virtio_pci_save_config: a PCI device's be32 version, its configuration space, and more
            yield path, field, 4


def _leaves(fields: tuple[Field, ...], prefix: str) -> Iterator[tuple[str, Field]]:
    for field in fields:
        if field.kind is Kind.LEAF:
            yield prefix + field.name, field
        elif field.kind in (Kind.STRUCT, Kind.SUBSECTION) or (field.kind is Kind.ARRAY and field.value is None):
            inner = "" if field.kind is Kind.ARRAY else prefix + field.name + "/"
            yield from _leaves(field.children, inner or prefix)


def _express(config: bytes) -> int | None:
    """Return where the PCI Express capability lies in a configuration space, or None."""
    if not config[PCI_STATUS] & PCI_STATUS_CAP_LIST:
        return None
    at, seen = config[PCI_CAPABILITY_LIST] & ~3, set()
    while 0x40 <= at < PCI_CONFIG - PCI_EXP_DEVCAP and at not in seen:
        if config[at] == PCI_CAP_ID_EXP:
            return at
        seen.add(at)
        at = config[at + 1] & ~3
    return None


def _error_reporting(config: bytes) -> int | None:
    """Return where the Advanced Error Reporting capability lies, or None."""
    at, seen = PCI_CONFIG, set()
    while PCI_CONFIG <= at <= len(config) - 16 and at not in seen:
        header = int.from_bytes(config[at : at + 4], "little")
        if header & 0xFFFF == PCI_EXT_CAP_ID_ERR:
            return at
        seen.add(at)
        at = header >> 20 & ~3
    return None


def switchover(draft: Draft, later: bool, why: str) -> None:
    """Leave the command SWITCHOVER_START out for a QEMU that may be older than it."""
    if not later and draft.commands("SWITCHOVER_START"):
        header.drop_command(draft, "SWITCHOVER_START", EDIT, why)


def msix_vectors(name: str, draft: Draft, later: bool, why: str) -> None:
    """Say what no edit can do: a virtio device has MSI-X vectors from this version on."""
    if any((section.section.name or "").endswith(f"/{name}") for section in draft.sections):
        vectors = 0 if later else 2
        draft.notes.append(f"start the target with -device {name}-pci,vectors={vectors}: {why}")


STEPS = (
    Step((7, 2), "it has MSI-X since 7.2 (hw_compat_7_1)", partial(msix_vectors, "virtio-rng")),
    Step((8, 0), "e1000e sends core.timadj since 8.0 (hw_compat_7_2: migrate-timadj)", time_adjustment),
    Step((8, 1), "masked since 8.1 (hw_compat_8_0: x-pcie-err-unc-mask)", error_mask),
    Step(
        (9, 2), "PCI Express functions announce extended tags since 9.2 (hw_compat_9_1: x-pcie-ext-tag)", extended_tag
    ),
    Step((10, 0), "QEMU before 10.0 does not know it (hw_compat_9_2: send-switchover-start)", switchover),
    Step((10, 0), "it has MSI-X since 10.0 (hw_compat_9_2)", partial(msix_vectors, "virtio-balloon")),
)
"""What changes between versions of the pc and q35 machine types, by the first version that has it."""
