"""Convert a stream to another version of its machine type: the name, and the state that depends on the version.

QEMU supports old machine types by compatibility properties (``hw_compat_*`` in ``hw/core/machine.c``); a few of them
change what is sent or checked. Measured by loading streams of pc-i440fx-7.2 and pc-q35-7.2 (71 devices) as every later
version that QEMU 10.0 and 11.1 have, and some in the other direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qmigtool.devices.machinetypes import machine_type
from qmigtool.errors import UsageError
from qmigtool.parsers import pci
from qmigtool.parsers.vmdesc import FieldDescription
from qmigtool.parsers.vmstate import leaves
from qmigtool.rewrite import header
from qmigtool.rewrite.bodyfields import put_in, take_out
from qmigtool.rewrite.vendors import upstream

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Field
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft

__all__ = ["STEPS", "Step", "upgrade"]

# The only name with a third number is pc-q35-4.0.1.
WITH_MICRO = (4, 0, 1)  # the only machine type with a third number is pc-q35-4.0.1
Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """A difference of machine types from version ``since`` on; ``run(draft, later, why)`` adds or removes it."""

    since: Version
    why: str
    run: Callable[[Draft, bool, str], None]


def upgrade(draft: Draft, name: str) -> None:
    """Change the machine type to ``name``, another version of the same family, and the state that depends on it.

    A vendor's machine type is treated as the nearest upstream one (:mod:`~qmigtool.rewrite.vendors`), with a note.
    Raises :class:`~qmigtool.errors.UsageError` for another family, or names without a version.
    """
    old = header.configuration(draft).machine
    for called in (old, name):
        if (other := upstream(called)) is not None:
            draft.note(f"{called} is a vendor's machine type, treated as {other}: a guess")
    (family, version), (new_family, new_version) = _parse(old), _parse(name)
    if family != new_family:
        raise UsageError(
            f"{name!r} is another machine than {old!r}, with other devices", expected=f"{family}-MAJOR.MINOR"
        )
    header.set_machine_type(draft, name)
    for step in STEPS:
        if (version < step.since) != (new_version < step.since):
            step.run(draft, new_version >= step.since, step.why)
    for one in (version, new_version):
        if not FIRST <= one <= LAST:
            known = " to ".join(f"{major}.{minor}" for major, minor in (FIRST, LAST))
            draft.note(
                f"qmigtool does not know what changed in the machine types of {one[0]}.{one[1]} (known: {known})"
            )
    draft.note("what the guest read at boot (ACPI tables, CPUID) stays that of the old machine type")


def _parse(name: str) -> tuple[str, Version]:
    found = machine_type(upstream(name) or name)
    if found is None or found.vendor or (len(found.version) > 2 and found.version != WITH_MICRO):
        raise UsageError(
            f"the machine type {name!r} has no version",
            expected="a name like pc-q35-9.2; --machine-type changes only the name",
        )
    return found.family, found.release


# -- differences between versions ------------------------------------------------------------------------------------

TIMADJ = FieldDescription("core.timadj", "int64", 8, None, None, ())
ACPI_INDEX = FieldDescription("acpi_pci_hotplug.acpi_index", "uint32", 4, None, None, ())


def trailing_field(device: str, described: FieldDescription, draft: Draft, later: bool, why: str) -> None:
    """Add the last field of a device that a later machine type sends, or remove it."""
    for section in draft.sections:
        if section.description is None or section.old_style or section.last_name != device:
            continue
        there = section.device.get(described.name)
        if (there is not None) == later:
            continue
        if there is None:
            draft.change(described.name, None, None, 0, why, device=section.label)
            put_in(section, "", described, {one.name for one in section.description.fields})
        else:
            offset = draft.source_offset(section, described.name)
            draft.change(described.name, offset, there.value, None, why, device=section.label)
            take_out(section, "", described.name)


EXTENDED_TAG = 0x20  # bit 5 of DevCap
UNCORRECTABLE = ((2, 0x40), (3, 0x02))  # bits 22 (internal) and 25 (TLP prefix) of the mask: byte, bit in it


def extended_tag(draft: Draft, later: bool, why: str) -> None:
    """Set DevCap's Extended Tag bit in every PCI Express function, or clear it (x-pcie-ext-tag)."""
    for section in draft.sections:
        for path, field, start in list(_configurations(section)):
            capability = pci.express_capability(field.raw[start:])
            if capability is not None:
                _set_bit(draft, section, path, start + capability + pci.PCI_EXP_DEVCAP, EXTENDED_TAG, later, why)


def error_mask(draft: Draft, later: bool, why: str) -> None:
    """Clear the bits of the mask of uncorrectable errors that a later machine type sets (x-pcie-err-unc-mask).

    The other direction needs no change: there the guest may write the bits, so QEMU accepts either value.
    """
    for section in draft.sections if not later else ():
        for path, field, start in list(_configurations(section)):
            capability = pci.extended_capability(field.raw[start:])
            if capability is not None:
                for byte, bit in UNCORRECTABLE:
                    at = start + capability + pci.PCI_ERR_UNCOR_MASK + byte
                    _set_bit(draft, section, path, at, bit, False, why)


def _set_bit(draft: Draft, section: SectionDraft, path: str, at: int, bit: int, on: bool, why: str) -> None:
    """Set or clear a bit of byte ``at`` of a field."""
    field = section.device.field(path)
    raw = field.raw
    new = raw[at] | bit if on else raw[at] & ~bit
    if new != raw[at]:
        offset = draft.source_offset(section, path)
        section.patch(field, raw[:at] + bytes([new]) + raw[at + 1 :])
        place = None if offset is None else offset + at
        draft.change(f"{path} byte {at:#x}", place, raw[at], new, why, device=section.label)


def _configurations(section: SectionDraft) -> Iterator[tuple[str, Field, int]]:
    """Yield (path, field, offset in the field) of every PCI configuration space of a device."""
    if section.description is None:
        return
    for path, field in leaves(section.device.fields, whole_arrays=True):
        if field.type == "pci config" and field.length >= pci.CONFIG_SIZE:
            yield path, field, 0
        elif field.type == "virtio":
            start = pci.virtio_configuration(field.raw)
            if start is not None:
                yield path, field, start


def switchover(draft: Draft, later: bool, why: str) -> None:
    """Drop the command SWITCHOVER_START for a QEMU that may be too old to know it."""
    if not later and draft.commands("SWITCHOVER_START"):
        header.drop_command(draft, "SWITCHOVER_START", why)


def msix_vectors(name: str, draft: Draft, later: bool, why: str) -> None:
    """Note what no edit can do: a virtio device has MSI-X vectors from this version on."""
    if any((section.section.name or "").endswith(f"/{name}") for section in draft.sections):
        vectors = 0 if later else 2
        draft.note(f"start the target with -device {name}-pci,vectors={vectors}: {why}")


STEPS = (
    Step(
        (7, 0),
        "piix4_pm sends acpi_index since 7.0 (hw_compat_6_2: x-not-migrate-acpi-index)",
        partial(trailing_field, "piix4_pm", ACPI_INDEX),
    ),
    Step((7, 2), "it has MSI-X since 7.2 (hw_compat_7_1)", partial(msix_vectors, "virtio-rng")),
    Step(
        (8, 0),
        "e1000e sends core.timadj since 8.0 (hw_compat_7_2: migrate-timadj)",
        partial(trailing_field, "e1000e", TIMADJ),
    ),
    Step((8, 1), "masked since 8.1 (hw_compat_8_0: x-pcie-err-unc-mask)", error_mask),
    Step(
        (9, 2), "PCI Express functions announce extended tags since 9.2 (hw_compat_9_1: x-pcie-ext-tag)", extended_tag
    ),
    Step((10, 0), "QEMU before 10.0 does not know it (hw_compat_9_2: send-switchover-start)", switchover),
    Step((10, 0), "it has MSI-X since 10.0 (hw_compat_9_2)", partial(msix_vectors, "virtio-balloon")),
)
"""Changes between versions of the pc and q35 machine types, by the first version that has them."""

FIRST, LAST = (5, 2), (11, 1)  # the versions between which this has been measured
