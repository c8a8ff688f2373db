"""What is known of the QEMU that loads a stream. None means unknown, and then no prediction depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qmigtool.x86.traits import traits_of
from qmigtool.xsave.components import LEGACY_MASK, SUPERVISOR_MASK

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description
    from qmigtool.xsave import Layout

__all__ = ["Bound", "Target", "TargetBlock", "TargetSection", "TargetVmsd", "Version"]

Version = tuple[int, ...]
"""A version of QEMU, as (7, 2)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A version that a target has at least (``from_``), or is older than; ``why`` is the evidence."""

    version: Version
    why: str
    from_: bool = True


@dataclass(frozen=True, slots=True)
class TargetBlock:
    """A RAMBlock of the target: ``used_length`` bytes; ``max_length`` if it is resizable, else None.

    ``address`` is its guest-physical address (None if not known), ``shared`` whether x-ignore-shared omits its pages.
    """

    used_length: int
    max_length: int | None = None
    address: int | None = None
    shared: bool | None = None


@dataclass(frozen=True, slots=True)
class TargetSection:
    """A section that the target has registered.

    ``version`` and ``minimum_version`` are the vmsd's (the second None if not known); ``description`` is the shape of
    the body that the target sends; ``subsections`` names every subsection that it knows (None if not known);
    ``template`` is a body that the target sent, for what is compared byte by byte (PCI config space).
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

    ``subsections`` are the names of its direct subsections, as sent (``fdrive/media_changed``); each has an entry of
    its own. If two devices of one QEMU have different vmsds of one name, ``version`` and ``minimum_version`` are None
    if they differ, and ``subsections`` has those of both. ``field_versions`` maps the name of a field in a vmdesc to
    the first version of the body that has the field (``version_id`` of the field; a field that is missing is in every
    body; None: not known): this gives the fields that an older body lacks. ``maybe`` are subsections that only some of
    the target's possible versions have.
    """

    version: int | None
    minimum_version: int | None
    subsections: frozenset[str] = frozenset()
    field_versions: Mapping[str, int] | None = None
    maybe: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a migration.

    ``qemu`` is its version, such as (7, 2) or (10, 0), which decides what it accepts and its error messages; if it is
    None, ``bounds`` limit it (:func:`~.versions.possible`). ``sections`` maps (idstr, instance_id) to the registered
    section, ``vmsds`` the name of a VMStateDescription to what is known of it (None: of none; a name that is missing
    is not known either), ``blocks`` idstr to RAMBlock. ``capabilities`` are the migration capabilities that are on or
    off, ``properties`` those of ``-global migration.X``. ``xcr0`` and ``xss`` are the masks of components that its
    vCPUs may have, ``xcr0_shown`` those that one of its vCPUs had in a stream; ``cpu_flags`` the CPU's features by
    QEMU's names, ``cpuid_flags`` those that a CPUID dump shows (only :data:`.cpuidflags.KNOWN`). ``xsave_max`` is the
    maximum size in bytes of the compacted area of an MSHV partition. ``tsc_khz`` is the frequency of
    ``-cpu ...,tsc-frequency=``, ``host_tsc_khz`` that of the host's TSC. ``vcpus`` is the number of its vCPUs,
    ``maxcpus`` the maximum (-smp maxcpus=). ``evidence`` maps each part to its source. ``uuid`` is empty if the target
    is known to have none. ``absent`` are sections that it does not have, even if a reference has them: they are
    removed after all parts are joined.
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

    @property
    def allowed_components(self) -> int | None:
        """The components that a vCPU of the target can have, in XCR0 and IA32_XSS; None if that is not known."""
        traits = traits_of(self.accelerator)
        # Without a mask only an accelerator is known that has the same on every host, as TCG.
        return traits.allowed(self.xcr0, self.xss) if self.xcr0 is not None or traits.same_everywhere else None

    def unknown_components(self, asked: int) -> int:
        """Return the user components in ``asked`` that the target is not known to have; 0 if its mask is known."""
        return 0 if self.xcr0 is not None else asked & ~SUPERVISOR_MASK & ~(LEGACY_MASK | self.xcr0_shown)
