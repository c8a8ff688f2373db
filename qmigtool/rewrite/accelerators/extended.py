"""Rules for extended state: the components that exist, those that are declared, and the order of the x87 registers."""

from __future__ import annotations

from collections import deque

from qmigtool.findings import Severity
from qmigtool.rewrite import components
from qmigtool.rewrite.accelerators.rule import Conversion, ConversionRule, Loss
from qmigtool.x86.registers import FSW
from qmigtool.xsave import mask_names
from qmigtool.xsave.components import MPX_MASK, MXCSR_INIT, PKRU_MASK, with_dependents

__all__ = ["RULES", "UNDECLARED"]

UNDECLARED = Loss("undeclared-state", Severity.ERROR, "XSTATE_BV does not declare live state: QEMU initialises it")
FPREGS = "env.fpregs"
# TCG under -cpu max enables components that few hosts have.
RARE = MPX_MASK | PKRU_MASK


def foreign_components(conversion: Conversion) -> None:
    """Drop the components that the target cannot hold: idle ones with a note, live ones only if ``lossy``."""
    target, draft = conversion.target, conversion.draft
    held = 0
    for _, vcpu in conversion.cpus():
        held |= vcpu.live | vcpu.xstate_bv | vcpu.enabled
    # The accelerator's own limit first: no mask changes it.
    foreign = with_dependents(held & ~target.allowed()) & held
    masked = with_dependents(held & ~target.allowed(conversion.mask)) & held & ~foreign
    _drop(conversion, foreign, f"{target.name} cannot hold it")
    if masked:
        who = conversion.mask_name
        with draft.edit(conversion.name, f"{who} does not have the component: {target.foreign}"):
            _drop(conversion, masked, f"{who} does not have the component{'' if masked.bit_count() == 1 else 's'}")
    if foreign | masked:
        return
    if conversion.mask is None and not conversion.source.declares and held & RARE:
        conversion.note(
            f"XCR0 has {' '.join(mask_names(held & RARE))}: a host without them refuses all of XCR0; "
            "name the target's components (--layout, --xcr0)"
        )


def _drop(conversion: Conversion, mask: int, refusal: str) -> None:
    """Drop components from every vCPU; ``refusal`` starts the message if one is live and nothing may be lost."""
    for _, vcpu in conversion.cpus():
        if names := mask_names(vcpu.live & mask):
            conversion.check_lossy(f"{refusal}: vCPU {vcpu.index}: live {' '.join(names)}", names)
        if names := mask_names(vcpu.enabled & mask):
            conversion.note(f"vCPU {vcpu.index}: {' '.join(names)} no longer enabled; a guest that uses them faults")
    if mask:
        components.drop_components(conversion.draft, mask, rule=conversion.name)


def declare(conversion: Conversion) -> None:
    """Declare live components in XSTATE_BV."""
    components.repair_xstate_bv(conversion.draft)


def undeclare(conversion: Conversion) -> None:
    """Clear XSTATE_BV, as TCG does."""
    for section, _ in conversion.cpus():
        conversion.assign(section, components.XSTATE_BV, 0)


def declare_sse(conversion: Conversion) -> None:
    """Declare SSE where MXCSR is not its initial value."""
    for section, vcpu in conversion.cpus():
        if vcpu.mxcsr != MXCSR_INIT:
            conversion.assign(section, components.XSTATE_BV, vcpu.xstate_bv | 2)


def to_stack_order(conversion: Conversion) -> None:
    """Bring physical x87 registers into ST order: new[i] = old[(TOP + i) & 7]."""
    _rotate(conversion, -1)


def to_physical_order(conversion: Conversion) -> None:
    """Bring ST registers into physical order: new[(TOP + i) & 7] = old[i]."""
    _rotate(conversion, 1)


def _rotate(conversion: Conversion, direction: int) -> None:
    for section, _ in conversion.cpus():
        registers = deque(child.raw for child in section.device.field(FPREGS).children)
        registers.rotate(direction * (FSW.part(conversion.number(section, FSW.path), "TOP")))
        conversion.assign(section, FPREGS, b"".join(registers))


RULES = (
    ConversionRule(
        "not-enabled-components",
        "a hypervisor refuses XCR0 with components that the host does not have, and with it every MSR",
        "proved",
        lambda source, target: target.declares and not target.hyperv,
        foreign_components,
        None,
    ),
    ConversionRule(
        "tcg-components",
        "TCG has no AVX-512, no AMX and no CET: the guest's next such instruction is #UD",
        "proved",
        lambda source, target: not target.declares,
        foreign_components,
        None,
    ),
    ConversionRule(
        "partition-components",
        "the partition's XSAVE page has no place for it: MSHV has no bit for PKRU and APX, and the page has 4096 bytes",
        "source",
        lambda source, target: target.hyperv,
        foreign_components,
        None,
    ),
    ConversionRule(
        "undeclared-state",
        "TCG never fills XSTATE_BV, and undeclared components are initialised on load",
        "proved",
        lambda source, target: not source.declares and target.declares,
        declare,
        UNDECLARED,
    ),
    ConversionRule(
        "undeclared-mxcsr",
        "with bit 1 of XSTATE_BV clear the CPU loads MXCSR 1F80",
        "proved",
        lambda source, target: target.declares,
        declare_sse,
        Loss("undeclared-mxcsr", Severity.ERROR, "XSTATE_BV does not declare SSE: MXCSR becomes 1F80"),
    ),
    ConversionRule(
        "x87-to-stack",
        "TCG stores physical x87 registers, hypervisors ST order",
        "proved",
        lambda source, target: source.physical_x87 and not target.physical_x87,
        to_stack_order,
        Loss("x87-order", Severity.ERROR, "physical x87 registers would be treated as ST(0) to ST(7)"),
    ),
    ConversionRule(
        "x87-to-physical",
        "hypervisors store x87 registers in ST order, TCG physical ones",
        "proved",
        lambda source, target: target.physical_x87 and not source.physical_x87,
        to_physical_order,
        Loss("x87-order", Severity.ERROR, "ST(0) to ST(7) would be treated as physical x87 registers"),
    ),
    ConversionRule(
        "undeclare",
        "TCG ignores it and sends 0, which identifies its streams",
        "proved",  # that it has no effect
        lambda source, target: source.declares and not target.declares,
        undeclare,
        None,
    ),
)
