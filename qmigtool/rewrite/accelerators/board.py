"""Rules for the devices of the board: clocks, the PIT, the PIC, sections that only one accelerator has."""

from __future__ import annotations

from qmigtool.findings import Severity
from qmigtool.rewrite import structure
from qmigtool.rewrite.accelerators.rule import Conversion, ConversionRule, Loss

__all__ = ["RULES"]

PIT_HZ = 1_193_182
NANOSECONDS = 1_000_000_000
CHANNEL = "channels[0]"
PERIODIC = (2, 3, 6, 7)  # periodic modes of the 8254; 6 and 7 are aliases of 2 and 3
TICKS, CLOCK = "cpu_ticks_offset", "cpu_clock_offset"


def foreign_sections(conversion: Conversion) -> None:
    """Drop the sections that only the source's accelerator has."""
    for name in conversion.source.sections:
        if name not in conversion.target.sections:
            for section in conversion.draft.named(name):
                structure.drop_section(conversion.draft, section.label)


def pit_edge(conversion: Conversion) -> None:
    """Clear the PIT's line in the PIC's ``last_irr``, so that the PIC sees its next edge."""
    for pic in conversion.draft.named("i8259")[:1]:
        conversion.assign(pic, "last_irr", conversion.number(pic, "last_irr") & ~1)


def pit_times(conversion: Conversion) -> None:
    """Restart the PIT's channel 0 when the VM resumes: the times saved by the kernel's PIT are not valid."""
    timers = conversion.draft.named("timer")
    for pit in conversion.draft.named("i8254"):
        if not timers:
            conversion.note("without a section 'timer' the current time is not known: the PIT will not run")
            continue
        now = conversion.number(timers[0], CLOCK)
        count = conversion.number(pit, f"{CHANNEL}/count") or 0x10000
        conversion.assign(pit, f"{CHANNEL}/count_load_time", now)
        for path in (f"{CHANNEL}/next_transition_time", f"{CHANNEL}.next_transition_time"):
            conversion.assign(pit, path, now + count * NANOSECONDS // PIT_HZ)
        if conversion.number(pit, f"{CHANNEL}/mode") not in PERIODIC:
            # Whether it had fired is not known; a guest that waits for it would hang, another one ignores it.
            conversion.note("the PIT's channel 0 is in a one-shot mode: it will fire after one full count")


def ticks_to_tsc(conversion: Conversion) -> None:
    """Set the TSC of every vCPU to the ticks clock, which was the TSC of its guest."""
    for timer in conversion.draft.named("timer"):
        for section, _ in conversion.cpus():
            conversion.assign(section, "env.tsc", conversion.number(timer, TICKS) % (1 << 64))


def tsc_to_ticks(conversion: Conversion) -> None:
    """Set the ticks clock to the TSC."""
    for section, _ in conversion.cpus():
        tsc = conversion.number(section, "env.tsc")
        for timer in conversion.draft.named("timer"):
            # An i64 in the stream.
            conversion.assign(timer, TICKS, tsc - (1 << 64) if tsc >> 63 else tsc)
        return


RULES = (
    ConversionRule(
        "foreign-section",
        "no other accelerator has such a device, and QEMU refuses to load its section",
        "proved",
        lambda source, target: bool(source.sections),
        foreign_sections,
        None,
    ),
    ConversionRule(
        "pic-edge",
        "an in-kernel PIC misses the first edge of a line that is already high, and no PIT interrupt arrives",
        "proved",
        lambda source, target: target.in_kernel_irqchip and not source.in_kernel_irqchip,
        pit_edge,
        Loss("pic-edge", Severity.WARNING, "an in-kernel PIC may never see the PIT's next edge, and the timer stops"),
    ),
    ConversionRule(
        "pit-times",
        "an in-kernel PIT does not keep channel 0's times; QEMU's own PIT would count up to them and stop",
        "proved",
        lambda source, target: source.in_kernel_irqchip and not target.in_kernel_irqchip,
        pit_times,
        Loss("pit-times", Severity.ERROR, "the PIT's channel 0 stops after one tick"),
    ),
    ConversionRule(
        "tsc-from-ticks",
        "TCG's TSC is the ticks clock, and env.tsc is 0: the guest's TSC would restart",
        "inferred",
        lambda source, target: source.ticks and not target.ticks,
        ticks_to_tsc,
        Loss("tsc", Severity.WARNING, "the guest's TSC restarts: the ticks clock has its value, env.tsc does not"),
    ),
    ConversionRule(
        "ticks-from-tsc",
        "TCG's TSC is the ticks clock: the guest would see its TSC go back",
        "proved",
        lambda source, target: target.ticks and not source.ticks,
        tsc_to_ticks,
        Loss("tsc", Severity.WARNING, "the guest's TSC goes backwards: TCG reads it from the ticks clock"),
    ),
)
