"""Which accelerator saved a stream: nothing in it says so, but its contents tell, and the evidence is shown.

It matters because the same field means different things: TCG keeps the x87 registers in physical order and never fills
XSTATE_BV. Each rule below is a fact about what QEMU's accelerators put into a stream (see ``target/i386/kvm/kvm.c``,
``target/i386/tcg``, ``hw/i386/kvm``; compared on twins of one guest saved under KVM and TCG by 10.0 and 11.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qmigtool import cpu_x86
from qmigtool.errors import QmigError, UsageError

if TYPE_CHECKING:
    from qmigtool.device import Device

__all__ = ["HYPERVISORS", "NAMES", "UNKNOWN", "Accelerator", "infer", "parse"]

NAMES = ("kvm", "tcg", "mshv", "whpx", "hvf")
HYPERVISORS = frozenset(NAMES) - {"tcg"}
"""Those that fill XSTATE_BV: what it does not declare is in its initial configuration."""

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """``name`` is one of :data:`NAMES` or ``unknown``; ``evidence`` says what in the stream tells, strongest first."""

    name: str
    evidence: tuple[str, ...]
    given: bool = False


def parse(name: str | None) -> Accelerator | None:
    """Return the accelerator that the caller names, or None; raises :class:`~qmigtool.errors.UsageError`."""
    if name is None:
        return None
    if name.lower() not in NAMES:
        raise UsageError(f"no accelerator {name!r}", expected="one of " + ", ".join(NAMES))
    return Accelerator(name.lower(), ("given by the caller",), given=True)


def infer(devices: Sequence[Device]) -> Accelerator:
    """Say who saved these devices. ``unknown`` is an answer: nothing is guessed without evidence."""
    names = {device.name for device in devices}
    certain = [
        *(("mshv", f"section {name}, which only MSHV sends") for name in ("mshv-clock", "mshv-apic") if name in names),
        *(("kvm", "section kvmclock, which only KVM sends") for name in ("kvmclock",) if name in names),
    ]
    fields = list(_from_fields(list(_readable(devices))))
    found = certain + fields
    if not found:
        return Accelerator(UNKNOWN, ("nothing in the device state tells",))
    name = found[0][0]
    return Accelerator(name, tuple(text for who, text in found if who == name))


def _readable(devices: Iterable[Device]) -> Iterator[Device]:
    """Give the devices that can be decoded; the others tell nothing, and reading them says why."""
    for device in devices:
        try:
            _ = device.fields
        except QmigError:
            continue
        yield device


def _from_fields(devices: Iterable[Device]) -> Iterator[tuple[str, str]]:
    """Give (accelerator, evidence) from field values, strongest first."""
    cpus, nested, exceptions, pit = [], [], [], []
    for device in devices:
        if device.name == "cpu" and cpu_x86.is_x86(device):
            vcpu = cpu_x86.VCpu(device)
            try:
                _ = vcpu.live, vcpu.xstate_bv
            except QmigError:
                continue
            cpus.append(vcpu)
            if device.subsection("cpu/kvm_nested_state") or device.get("cpu/nested_state"):
                nested.append(device.label)
        elif device.name == "cpu_common":
            if device.subsection("cpu_common/exception_index"):
                exceptions.append(device.label)
        elif device.name == "i8254":
            loaded = _number(device, "channels[0]/count_load_time")
            if loaded is not None and loaded < 0:
                pit.append(loaded)
    if nested:
        yield "kvm", f"{nested[0]} has nested virtualisation state, which only KVM sends"
    if exceptions:
        yield "tcg", f"{exceptions[0]} has the subsection exception_index, which only TCG sends"
    if not cpus:
        return
    # A busy TSS (11, 3) is what KVM_GET_SREGS gives; TCG leaves the descriptor's own type (9, 1).
    types = {vcpu.index: _tr_type(vcpu) for vcpu in cpus}
    undeclared = [vcpu for vcpu in cpus if vcpu.live and not vcpu.xstate_bv]
    declaring = [vcpu for vcpu in cpus if vcpu.xstate_bv]
    moving = [vcpu for vcpu in cpus if _number(vcpu.device, "env.mp_state")]
    if undeclared and not declaring:
        vcpu = undeclared[0]
        yield "tcg", f"vCPU {vcpu.index} has live state {vcpu.live:#x} and XSTATE_BV 0: TCG never sets it"
    if pit:
        yield "kvm", f"i8254 channel 0 was loaded at {pit[0]} ns, before the VM's start: an in-kernel PIT's value"
    if moving and declaring:
        yield "kvm", f"vCPU {moving[0].index} has a non-zero mp_state, which TCG never has"
    if not declaring and all(type_ in (1, 9) for type_ in types.values()):
        yield "tcg", "TR is a non-busy TSS on every vCPU, as only TCG leaves it"
    if not declaring and not any(_tsc(vcpu) for vcpu in cpus):
        yield "tcg", "env.tsc is 0 and XSTATE_BV is 0 on every vCPU, as from TCG"


def _number(device: Device, path: str) -> int | None:
    """Return a field that is a number; one that its vmdesc calls something else tells nothing."""
    try:
        return device.number(path)
    except QmigError:
        return None


def _tr_type(vcpu: cpu_x86.VCpu) -> int | None:
    flags = _number(vcpu.device, "env.tr/flags")
    return None if flags is None else flags >> 8 & 15


def _tsc(vcpu: cpu_x86.VCpu) -> int:
    return _number(vcpu.device, "env.tsc") or 0
