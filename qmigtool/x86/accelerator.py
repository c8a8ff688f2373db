"""The accelerator that saved a stream: the stream does not record it, so it is inferred and the evidence shown.

It matters because the same field means different things: TCG keeps the x87 registers in physical order and never fills
XSTATE_BV. Each mark below is a fact about what QEMU's accelerators write to a stream (see ``target/i386/kvm/kvm.c``,
``target/i386/tcg``, ``hw/i386/kvm``; compared on twins of one guest saved under KVM and TCG by 10.0 and 11.1).

All marks are weighed together, because an edit changes single fields: a TCG stream whose XSTATE_BV was repaired still
has TCG's descriptors, and its x87 registers are still in TCG's order. Marks that contradict each other leave
``unknown``, which is a valid result: code that depends on it must report it (:mod:`qmigtool.x86.vcpu`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.errors import QmigError, UsageError
from qmigtool.x86.kvm import MP_STATE
from qmigtool.x86.registers import SEGMENT, SEGMENTS, TSS_AVAILABLE
from qmigtool.x86.traits import KVM, NAMES, TCG, TRAITS
from qmigtool.x86.vcpu import DECIDES, VCpu, is_x86
from qmigtool.xsave import mask_names

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.x86.vcpu import VCpu

__all__ = ["UNKNOWN", "Accelerator", "infer", "parse"]

UNKNOWN = "unknown"
HYPERVISOR = "not tcg"
CONTRADICTION = "the evidence contradicts itself"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """``name`` is one of :data:`NAMES` or ``unknown``; ``evidence`` lists what the stream shows.

    Evidence against the name comes last in ``evidence``. ``hypervisor``: it is not TCG, even if it is not known which
    accelerator it is. ``contradicts``: no name, because the evidence contradicts itself.
    """

    name: str
    evidence: tuple[str, ...]
    given: bool = False
    hypervisor: bool = False
    contradicts: bool = False

    @property
    def words(self) -> str:
        """The accelerator that saved the stream, and how that is known, in one phrase."""
        return self.told(DECIDES)

    def told(self, decides: str) -> str:
        """Return :attr:`words` with another hint of what decides an unknown accelerator; an empty one is left out."""
        if self.name == UNKNOWN:
            why = "" if self.hypervisor and not self.contradicts else f" ({self.evidence[0]})"
            return "; ".join(filter(None, (f"saved by: unknown{why}", decides)))
        return f"saved by {self.name} ({'given' if self.given else f'inferred: {self.evidence[0]}'})"

    @property
    def tcg(self) -> bool | None:
        """Whether TCG saved the stream; None if it is unknown."""
        if self.name == UNKNOWN:
            return False if self.hypervisor else None
        return self.name == TCG.name


def parse(name: str | None) -> Accelerator | None:
    """Return the accelerator that the caller names, or None; raises :class:`~qmigtool.errors.UsageError`."""
    if name is None:
        return None
    if name.lower() not in NAMES:
        raise UsageError(f"no accelerator {name!r}", expected="one of " + ", ".join(NAMES))
    return Accelerator(name.lower(), ("given by the caller",), given=True)


class _Mark(NamedTuple):
    """Evidence that ``who`` saved the stream (:data:`HYPERVISOR`: any but TCG).

    ``weight`` 1: an edit or an earlier load under another accelerator may have caused it; 2 and 3: only unlikely ones.
    Two ``strong`` marks that contradict each other cannot both be right.
    """

    who: str
    weight: int
    text: str
    strong: bool = False


def infer(devices: Sequence[Device]) -> Accelerator:
    """Infer the accelerator that saved these devices; ``unknown`` without evidence."""
    marks = list(_marks(list(devices)))
    if not marks:
        return Accelerator(UNKNOWN, ("the device state has no evidence",))
    tcg = [mark for mark in marks if mark.who == TCG.name]
    others = [mark for mark in marks if mark.who != TCG.name]
    winners = _weigh(tcg, others)
    if winners is None:
        why = CONTRADICTION if tcg else "too little evidence"
        evidence = (why, *(f"{m.who}: {m.text}" for m in marks))
        return Accelerator(UNKNOWN, evidence, contradicts=bool(tcg))
    names = {mark.who for mark in winners} - {HYPERVISOR}
    against = tuple(f"against it: {mark.text}" for mark in marks if mark not in winners)
    if len(names) == 1:
        # A mark of all hypervisors adds nothing to one that names a hypervisor.
        told = tuple(mark.text for mark in winners if mark.who in names)
        return Accelerator(names.pop(), told + against, hypervisor=winners is others)
    why = "the hypervisor is not known" if not names else CONTRADICTION
    evidence = (why, *(f"{m.who}: {m.text}" for m in winners), *against)
    return Accelerator(UNKNOWN, evidence, hypervisor=True, contradicts=bool(names))


def _weigh(tcg: list[_Mark], others: list[_Mark]) -> list[_Mark] | None:
    """Return the side that is right, or None if they contradict each other."""
    if not others:
        return tcg
    if not tcg:
        return others if sum(mark.weight for mark in others) > 1 else None
    strong = [any(mark.strong for mark in side) for side in (tcg, others)]
    ours, theirs = (sum(mark.weight for mark in side) for side in (tcg, others))
    if all(strong):  # one of them is from an edit: the single one
        return tcg if ours >= 2 * theirs else others if theirs >= 2 * ours else None
    if ours > theirs and not strong[1]:
        return tcg
    return others if theirs > ours and strong[1] else None


def _readable(devices: Iterable[Device]) -> Iterator[Device]:
    """Yield the devices that can be decoded; reading the others reports the error."""
    for device in devices:
        try:
            _ = device.fields
        except QmigError:
            continue
        yield device


def _marks(devices: list[Device]) -> Iterator[_Mark]:
    """Yield every mark, those that name an accelerator first."""
    names = {device.name for device in devices}
    for traits in reversed(TRAITS.values()):
        for name in traits.sections:
            if name in names:
                text = f"section {name}, which only {traits.title} sends"
                yield _Mark(traits.name, 3, text, strong=True)
    cpus = []
    for device in _readable(devices):
        if device.name == "cpu" and is_x86(device):
            vcpu = VCpu(device)
            with contextlib.suppress(QmigError):
                _ = vcpu.live, vcpu.xstate_bv, vcpu.xcr0
                cpus.append(vcpu)
        elif device.name == "cpu_common" and device.subsection("cpu_common/exception_index"):
            yield _Mark(
                TCG.name, 3, f"{device.label} has the subsection exception_index, which only TCG sends", strong=True
            )
        elif device.name == "i8254" and (loaded := _number(device, "channels[0]/count_load_time") or 0) < 0:
            text = f"i8254 channel 0 was loaded at {loaded} ns, before the VM's start: an in-kernel PIT's value"
            yield _Mark(KVM.name, 3, text, strong=True)
    if cpus:
        yield from _of_vcpus(cpus)


def _of_vcpus(cpus: list[VCpu]) -> Iterator[_Mark]:
    def first(holds: Callable[[VCpu], object]) -> VCpu | None:
        return next((vcpu for vcpu in cpus if holds(vcpu)), None)

    if vcpu := first(lambda v: v.device.subsection("cpu/kvm_nested_state") or v.device.get("cpu/nested_state")):
        text = f"{vcpu.device.label} has nested virtualisation state, which only KVM sends"
        yield _Mark(KVM.name, 3, text, strong=True)
    if vcpu := first(lambda v: v.device.subsection("cpu/cet")):
        yield _Mark(HYPERVISOR, 3, f"vCPU {vcpu.index} has the subsection cpu/cet, which TCG never sends", strong=True)
    if vcpu := first(lambda v: v.xcr0 & ~TCG.components):
        names = " ".join(mask_names(vcpu.xcr0 & ~TCG.components))
        yield _Mark(HYPERVISOR, 3, f"XCR0 of vCPU {vcpu.index} has {names}, which TCG's CPUs do not have", strong=True)
    declaring = first(lambda v: v.xstate_bv)
    if declaring is None and (vcpu := first(lambda v: v.live)):
        yield _Mark(TCG.name, 2, f"vCPU {vcpu.index} has live state {vcpu.live:#x} and XSTATE_BV 0: TCG never sets it")
    # A hypervisor's CPU has a busy TSS (11, 3), and RESET sets one; TCG keeps the descriptor's own type.
    if vcpu := first(lambda v: _tr_type(v) in TSS_AVAILABLE):
        yield _Mark(TCG.name, 3, f"TR of vCPU {vcpu.index} is a non-busy TSS, which only TCG saves", strong=True)
    # TCG keeps the descriptor's second word as it was; the others rebuild it from the CPU's state, without bits
    # 19:16 of the limit (a conversion from TCG keeps them, because they have no meaning).
    if vcpu := first(_whole_descriptor):
        text = f"env.segs of vCPU {vcpu.index} has bits of a limit among the flags, which only TCG saves"
        yield _Mark(TCG.name, 2, text)
    if vcpu := declaring:
        yield _Mark(HYPERVISOR, 1, f"XSTATE_BV of vCPU {vcpu.index} is {vcpu.xstate_bv:#x}, and TCG never sets it")
    if vcpu := first(lambda v: _number(v.device, MP_STATE)):
        yield _Mark(HYPERVISOR, 1, f"vCPU {vcpu.index} has a non-zero mp_state, which TCG never has")
    counts = [tsc for vcpu in cpus if (tsc := _number(vcpu.device, "env.tsc")) is not None]
    if counts and not any(counts):
        bv = "" if declaring else " and XSTATE_BV is 0"
        yield _Mark(TCG.name, 1, f"env.tsc is 0{bv} on every vCPU, as from TCG")
    elif any(counts):
        yield _Mark(HYPERVISOR, 1, "env.tsc is not 0, and TCG keeps the TSC elsewhere")


def _number(device: Device, path: str) -> int | None:
    """Return a field that is a number; one that its vmdesc gives another type is no evidence."""
    try:
        return device.number(path)
    except QmigError:
        return None


def _tr_type(vcpu: VCpu) -> int | None:
    flags = _number(vcpu.device, "env.tr/flags")
    return None if flags is None else SEGMENT.part(flags, "TYPE")


def _whole_descriptor(vcpu: VCpu) -> bool:
    return any((_number(vcpu.device, f"env.segs[{i}]/flags") or 0) & SEGMENT["LIMIT"] for i in range(len(SEGMENTS)))
