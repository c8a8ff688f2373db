"""Rules over all vCPUs of a machine: values that must be the same, and sections that must exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qmigtool.check.rule import Context, Option, Options, at, finding, on, policy_rule, rule
from qmigtool.devices.schema.cpusection import BY_CPUID
from qmigtool.errors import QmigError
from qmigtool.findings import Finding
from qmigtool.findings.model import Wide
from qmigtool.util.values import number
from qmigtool.x86.accelerator import UNKNOWN
from qmigtool.x86.kvm import MP_STATE, MpState
from qmigtool.x86.lapic import LAPIC, pairs
from qmigtool.x86.traits import KVM, TCG
from qmigtool.xsave import mask_names

if TYPE_CHECKING:
    from qmigtool.x86.vcpu import VCpu

__all__ = ["RULES"]

RESET_XCR0 = 1
DEFAULT_KHZ = 3_000_000
CMOS, CPUS_COUNT = "cmos_data", 0x5F  # rtc_set_cpus_count: the number of vCPUs minus 1, up to 256


def _listed(numbers: set[int]) -> str:
    shown = ", ".join(map(str, sorted(numbers)[:8]))
    return f"{shown} and {len(numbers) - 8} more" if len(numbers) > 8 else shown


@rule(
    "vcpu-sections",
    "Every vCPU has its sections",
    "cpu, cpu_common and apic of a vCPU are sent together. QEMU does not report a missing one: the vCPU silently keeps "
    "that part of its reset state.",
    severity="error",
)
def vcpu_sections(context: Context, _: Options) -> Iterator[Finding]:
    cpus = {device.instance_id for device in context.named("cpu")}
    common = context.named("cpu_common")
    if cpus and common:
        those = {device.instance_id for device in common}
        if lost := _absent(context, "cpu", those - cpus):
            yield finding(f"cpu_common without cpu: vCPU {_listed(lost)}", "cpu")
        if lost := _absent(context, "cpu_common", cpus - those):
            yield finding(f"cpu without cpu_common: vCPU {_listed(lost)}", "cpu_common")
    apics = context.named(LAPIC)
    if context.vcpus and pairs([*cpus], apics) is None and context.stream.unreached is None:
        yield finding(
            f"there are {len(cpus)} vCPUs, but {len(apics)} local APICs", LAPIC, value=len(apics), expected=len(cpus)
        )


@rule(
    "vcpu-numbers",
    "vCPUs are numbered from 0 without gaps",
    "A section cpu may be missing. vCPUs that were plugged out of order leave gaps, too: then their number is the one "
    "that the board wrote to CMOS RAM for the firmware (byte 0x5f, hw/i386/x86-common.c), and nothing is reported.",
    severity="note",
    because="hotplug may leave gaps",
)
def vcpu_numbers(context: Context, _: Options) -> Iterator[Finding]:
    cpus = {device.instance_id for device in context.named("cpu")}
    if not cpus or not context.vcpus:
        return
    expected = set(range(min(max(cpus) + 1, 1 << 16)))
    if (lost := _absent(context, "cpu", expected - cpus)) and len(cpus) != _told(context):
        yield finding(f"the stream has vCPUs up to {max(cpus)}, but not {_listed(lost)}", "cpu")


def _absent(context: Context, name: str, instances: set[int]) -> set[int]:
    """Return which sections the stream does not have; those in a part that was not read are not known."""
    return {number for number in instances if not context.stream.may_have(name, number)}


def _told(context: Context) -> int | None:
    """Return the number of vCPUs in the CMOS RAM; None if it has none."""
    for device in context.named("mc146818rtc"):
        found = device.get(CMOS)
        if found is not None and len(found.raw) > CPUS_COUNT:
            return found.raw[CPUS_COUNT] + 1
    return None


@rule(
    "vcpu-features-equal",
    "All vCPUs carry the same features",
    "These subsections follow from the CPU model, which all vCPUs share, so they are in all or in none. In a vCPU "
    "without it, the registers keep their reset value after a load (target/i386/machine.c).",
)
def vcpu_features_equal(context: Context, _: Options) -> Iterator[Finding]:
    vcpus = context.vcpus
    for name in BY_CPUID:
        lacking = [vcpu for vcpu in vcpus if vcpu.device.subsection(name) is None]
        if lacking and len(lacking) < len(vcpus):
            having = next(vcpu for vcpu in vcpus if vcpu not in lacking)
            for vcpu in lacking:
                yield on(vcpu.device, f"has no {name}, which {having.device.label} has")
    for vcpu in vcpus[1:]:
        if vcpu.device.version_id != vcpus[0].device.version_id:
            versions = f"{vcpu.device.version_id}, that of {vcpus[0].device.label} {vcpus[0].device.version_id}"
            yield on(vcpu.device, f"the version of the section is {versions}")


@rule(
    "xcr0-equal",
    "All vCPUs have the same XCR0",
    "An operating system sets XCR0 alike on every vCPU that it runs; vCPUs at reset (XCR0 1) are not compared. "
    "If they differ, threads lose registers when they move to another vCPU. Firmware and test programs may do so.",
    severity="note",
    because="firmware and test programs differ on purpose",
)
def xcr0_equal(context: Context, _: Options) -> Iterator[Finding]:
    yield from _different("XCR0", "env.xcr0", [(vcpu, vcpu.xcr0) for vcpu in _running(context)])


@rule(
    "xss-equal",
    "All vCPUs have the same IA32_XSS",
    "An operating system sets IA32_XSS alike on every vCPU that it runs; vCPUs at reset (XCR0 1) are not compared. "
    "If they differ, threads lose supervisor state (CET) when they move to another vCPU.",
    severity="note",
    because="firmware and test programs differ on purpose",
)
def xss_equal(context: Context, _: Options) -> Iterator[Finding]:
    yield from _different("IA32_XSS", "cpu/xss/env.xss", [(vcpu, vcpu.xss) for vcpu in _running(context)])


def _running(context: Context) -> Iterator[VCpu]:
    """Yield the vCPUs on which an operating system has set XCR0."""
    return (vcpu for vcpu in _readable(context) if vcpu.xcr0 != RESET_XCR0)


def _different(register: str, path: str, masks: list[tuple[VCpu, int]]) -> Iterator[Finding]:
    """Yield a finding for each vCPU whose mask differs from that of the first."""
    for vcpu, mask in masks[1:]:
        first, other = masks[0]
        if mask != other:
            more, less = " ".join(mask_names(mask & ~other)), " ".join(mask_names(other & ~mask))
            differs = " and ".join(
                part for part in (f"it has {more}" if more else "", f"it lacks {less}" if less else "") if part
            )
            yield at(
                vcpu.device,
                path,
                f"{register} is {mask:#x}, that of {first.device.label} {other:#x}: {differs}",
                expected=Wide(other),
            )


@rule(
    "tsc-together",
    "The TSCs of the vCPUs are close to each other",
    "Under KVM they count in step, and QEMU reads them one after the other while the guest is stopped. A wide spread "
    "makes Linux mark its clock unstable, and time jumps between vCPUs.",
    seconds=Option(number, 10, "the largest allowed difference"),
)
def tsc_together(context: Context, options: Options) -> Iterator[Finding]:
    if context.accelerator == TCG.name:
        return  # the guest's TSC is not env.tsc there
    counted = []
    for vcpu in _readable(context):
        tsc = vcpu.device.word("env.tsc")
        if tsc and vcpu.device.number(MP_STATE) != MpState.UNINITIALIZED:
            counted.append((tsc, vcpu))
    if len(counted) < 2:
        return
    low, slow = min(counted, key=lambda pair: pair[0])
    high, fast = max(counted, key=lambda pair: pair[0])
    khz = fast.device.number("cpu/tsc_khz/env.tsc_khz") or 0
    spread = (high - low) / (1000 * (khz if khz > 0 else DEFAULT_KHZ))
    if spread > options["seconds"]:
        message = f"TSC is {high:#x}, that of {slow.device.label} {low:#x}: about {spread:.1f} s apart"
        yield at(fast.device, "env.tsc", message, lowest=Wide(low), seconds=spread, maximum=options["seconds"])


@rule(
    "kvmclock-sent",
    "A guest that uses kvm-clock has it in the stream",
    "Without the section kvmclock the guest's clock restarts after a load, and its time jumps.",
)
def kvmclock_sent(context: Context, _: Options) -> Iterator[Finding]:
    if context.accelerator not in (KVM.name, UNKNOWN) or context.named("kvmclock"):
        return
    path = "env.system_time_msr"
    for vcpu in _readable(context):
        value = vcpu.device.word(path)
        if value is not None and value & 1:
            yield at(vcpu.device, path, f"MSR_KVM_SYSTEM_TIME is {value:#x}, but the stream has no section kvmclock")
            return


def _limits(value: Any, what: str) -> int | None:
    return None if value is None else number(value, what)


@policy_rule(
    "vcpu-count",
    "The number of vCPUs is as the policy requires",
    "QEMU refuses a vCPU that it does not have, and does not report one that the stream does not have.",
    severity="error",
    equals=Option(_limits, None, "the exact number"),
    minimum=Option(_limits, None, "the minimum"),
    maximum=Option(_limits, None, "the maximum"),
)
def vcpu_count(context: Context, options: Options) -> Iterator[Finding]:
    found = len(context.named("cpu"))
    equals, minimum, maximum = options["equals"], options["minimum"], options["maximum"]
    limits = {name: limit for name, limit in options.items() if limit is not None}
    for wrong, wanted in (
        (equals is not None and found != equals, f"exactly {equals}"),
        (minimum is not None and found < minimum, f"at least {minimum}"),
        (maximum is not None and found > maximum, f"at most {maximum}"),
    ):
        if wrong:
            yield finding(f"there are {found} vCPUs, but the policy requires {wanted}", value=found, **limits)


def _readable(context: Context) -> Iterator[VCpu]:
    """Yield the vCPUs whose registers are numbers; the others are among the stream's problems."""
    for vcpu in context.vcpus:
        try:
            _ = vcpu.enabled, vcpu.device.number("env.tsc"), vcpu.device.number(MP_STATE)
            _ = vcpu.device.number("cpu/tsc_khz/env.tsc_khz"), vcpu.device.number("env.system_time_msr")
        except QmigError as error:
            context.stream.report(error)
        else:
            yield vcpu


RULES = (
    vcpu_sections,
    vcpu_numbers,
    vcpu_features_equal,
    xcr0_equal,
    xss_equal,
    tsc_together,
    kvmclock_sent,
    vcpu_count,
)
