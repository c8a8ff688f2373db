"""Conversion from one accelerator to another. The same field can mean different things to each; rules convert it.

===========  ===================================================================================
rule         the types of a rule and of a conversion
extended     extended state: XCR0, XSTATE_BV, the order of the x87 registers
registers    the other registers of a vCPU
board        devices other than the CPU: clocks, timers, interrupt controllers
limits       state that a target refuses or does not restore
unwritten    state that QEMU does not write to a Hyper-V partition
===========  ===================================================================================

A rule applies where source and target differ in the trait that it converts, so every pair of accelerators has its
rules. Its name says what it converts; ``status`` says whether it was proved with real QEMU and /dev/kvm, by leaving it
out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from qmigtool.errors import UndecidedError, UsageError
from qmigtool.rewrite.accelerators import board, extended, limits, registers
from qmigtool.rewrite.accelerators.rule import Conversion, ConversionRule
from qmigtool.x86.traits import TARGETS, TRAITS
from qmigtool.x86.vcpu import SAVED_BY, UNKNOWN_SAVER

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft

__all__ = ["RULES", "TARGETS", "convert", "rules_for"]

# Refusals first. Components are dropped before the remaining ones are declared.
RULES: tuple[ConversionRule, ...] = (*limits.RULES, *extended.RULES, *registers.RULES, *board.RULES)


def rules_for(source: str, target: str) -> tuple[ConversionRule, ...]:
    """Return the rules that apply from one accelerator to another; raises :class:`~qmigtool.errors.UsageError`."""
    _check_known(source, tuple(TRAITS))
    _check_known(target, TARGETS)
    if source == target:
        return tuple(rule for rule in RULES if rule.run in ALWAYS and rule.applies(TRAITS[source], TRAITS[target]))
    return tuple(rule for rule in RULES if rule.applies(TRAITS[source], TRAITS[target]))


def _check_known(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UsageError(f"no conversion for the accelerator {name!r}", expected="one of " + ", ".join(known))


# Rules that depend on the target CPU, not on the accelerator.
ALWAYS = (extended.foreign_components, extended.declare_sse)


def convert(
    draft: Draft,
    target: str,
    *,
    mask: int | None = None,
    mask_name: str = "",
    lossy: bool = False,
    without: Collection[str] = (),
) -> None:
    """Convert a draft for accelerator ``target``, completely or, if it raises, not at all.

    ``mask``: the user components that the target's XCR0 can have, if known; ``mask_name`` says what gives them, such as
    ``layout amd-zen2``. ``lossy``: state that the target cannot
    express is dropped and listed in the draft's ``losses``; otherwise :class:`~qmigtool.errors.LiveStateError` names
    it. ``without``: rules to leave out, to show the effect of each. Raises
    :class:`~qmigtool.errors.UnsupportedError` if there is no x86 vCPU, :class:`~qmigtool.errors.UndecidedError` if the
    accelerator that saved the stream is not known.
    """
    target, source = target.lower(), draft.accelerator
    _check_known(target, TARGETS)
    draft.x86_cpus()
    if source not in TRAITS:
        raise UndecidedError(
            SAVED_BY, f"what {target} needs depends on the accelerator that saved the stream; {UNKNOWN_SAVER}"
        )
    rules = rules_for(source, target)
    with draft.edit("to-accelerator"):
        if source == target:
            draft.note(f"the stream is in {target}'s form already")
        name = mask_name or ("" if mask is None else f"XCR0 {mask:#x}")
        conversion = Conversion(draft, TRAITS[source], TRAITS[target], mask, name, lossy)
        for rule in rules:
            if rule.name not in without:
                conversion.apply(rule)
        draft.accelerator = target
        if source != target and TRAITS[target].hypervisor:
            draft.note(f"the output may not show that it is for {target}: give later commands --accelerator {target}")
