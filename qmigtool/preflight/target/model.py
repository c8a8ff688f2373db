"""What is known of the QEMU that is to load a stream. What is None is not known, and then nothing is judged by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description
    from qmigtool.xsave import Layout

__all__ = ["Bound", "Target", "TargetBlock", "TargetSection", "TargetVmsd", "Version"]

Version = tuple[int, ...]
"""A version of QEMU, as (7, 2)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A version that a target is at least (``from_``), or is older than; ``why`` says what shows it."""

    version: Version
    why: str
    from_: bool = True


@dataclass(frozen=True, slots=True)
class TargetBlock:
    """A RAMBlock of the target: ``used_length`` bytes; ``max_length`` if it is resizable, else None.

    ``address`` is its guest-physical address (None if not known), ``shared`` whether x-ignore-shared leaves it out.
    """

    used_length: int
    max_length: int | None = None
    address: int | None = None
    shared: bool | None = None


@dataclass(frozen=True, slots=True)
class TargetSection:
    """A section that the target has registered.

    ``version`` and ``minimum_version`` are the vmsd's (the second None if not known); ``description`` is the shape of a
    body as the target itself sends it; ``subsections`` names every subsection that it knows (None if not known);
    ``template`` is a body as the target sent it, for what is compared byte by byte (PCI config space).
    """

    version: int
    minimum_version: int | None = None
    vmsd: str | None = None
    description: Description | None = None
    subsections: frozenset[str] | None = None
    template: bytes | None = None


@dataclass(frozen=True, slots=True)
class TargetVmsd:
    """A VMStateDescription that the target's QEMU has, of a device, of a struct inside one, or of a subsection.

    ``subsections`` are the names of those that stand directly behind its fields, as they are sent
    (``fdrive/media_changed``); each has an entry of its own. Where two devices of one QEMU call different things by one
    name, ``version`` and ``minimum_version`` are None if they differ, and ``subsections`` has those of both.
    ``field_versions`` has, for every field by the name that a vmdesc gives it, the version of the body from which on it
    is there (``version_id`` of the field; one that is missing is in every body; None: not known): what an older body
    lacks follows from it. ``maybe`` are subsections that only some of the versions have which the target may be.
    """

    version: int | None
    minimum_version: int | None
    subsections: frozenset[str] = frozenset()
    field_versions: Mapping[str, int] | None = None
    maybe: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a migration.

    ``qemu`` is its version, as (7, 2) or (10, 0), which decides what it takes and the words of its errors; where that
    is None, ``bounds`` are what is known of it all the same (:func:`~.versions.possible`). ``sections`` maps (idstr,
    instance_id) to what is registered there, ``vmsds`` the name of a VMStateDescription to what is known of it (None:
    of none; a name that is missing is not known either), ``blocks`` idstr to RAMBlock. ``capabilities`` are the
    migration capabilities that are on or off, ``properties`` those of ``-global migration.X``. ``xcr0`` and ``xss`` are
    the masks of components that its vCPUs may have, ``xcr0_shown`` those that a vCPU of it has been seen to have;
    ``cpu_flags`` the CPU's features by QEMU's names, ``cpuid_flags`` those that a CPUID dump shows
    (:data:`.cpuidflags.KNOWN` and no others). ``xsave_max`` is the size in bytes of the compacted area that an MSHV
    partition takes at most. ``tsc_khz`` is what ``-cpu ...,tsc-frequency=`` asks for, ``host_tsc_khz`` what the host's
    TSC has. ``vcpus`` is how many vCPUs it has, ``maxcpus`` how many it can have (-smp maxcpus=). ``evidence`` says of
    each part where it comes from. ``uuid`` is empty where it is known that the target was given none. ``absent`` are
    sections that it has not, whatever a reference says: they are taken away once all that is known is joined.
    """

    name: str = "target"
    qemu: tuple[int, ...] | None = None
    bounds: tuple[Bound, ...] = ()
    machine: str | None = None
    accelerator: str | None = None
    irqchip: str | None = None
    vcpus: int | None = None
    maxcpus: int | None = None
    uuid: str | None = None
    page_bits: int | None = None
    page_size_host: int | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    properties: Mapping[str, bool] = field(default_factory=dict)
    sections: Mapping[tuple[str, int], TargetSection] | None = None
    vmsds: Mapping[str, TargetVmsd] | None = None
    blocks: Mapping[str, TargetBlock] | None = None
    xcr0: int | None = None
    xss: int | None = None
    xcr0_shown: int = 0
    layout: Layout | None = None
    xsave_max: int | None = None
    cpu_flags: frozenset[str] | None = None
    cpuid_flags: frozenset[str] | None = None
    tsc_khz: int | None = None
    host_tsc_khz: int | None = None
    unmigratable: tuple[str, ...] = ()
    absent: tuple[tuple[str, int], ...] = ()
    evidence: Mapping[str, str] = field(default_factory=dict)
