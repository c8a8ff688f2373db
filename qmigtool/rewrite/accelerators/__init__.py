"""From one accelerator to another: the same field means different things to each, and rules say what to do about it.

===========  ===================================================================================
rule         what a rule is, and what it works on
extended     extended state: XCR0, XSTATE_BV, the order of the x87 registers
registers    the other registers of a vCPU
board        devices beside the CPU: clocks, timers, interrupt controllers
limits       what a target cannot take or does not restore
unwritten    what QEMU does not write to a partition of Hyper-V
===========  ===================================================================================

A rule applies where the traits of source and target differ in what it is about; so every pair of accelerators has its
rules. Their names are those under which they were proved (or not: see ``status``) with real QEMU and /dev/kvm, by
leaving each one out: TK from TCG to KVM, KT from KVM to TCG, MS for MSHV and WHPX.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from qmigtool.errors import UndecidedError, UsageError
from qmigtool.rewrite.accelerators import board, extended, limits, registers
from qmigtool.rewrite.accelerators.rule import Conversion, Rule
from qmigtool.x86.traits import TARGETS, TRAITS
from qmigtool.x86.vcpu import SAVED_BY, UNKNOWN_SAVER

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft

__all__ = ["RULES", "TARGETS", "convert", "rules_for"]

# Refusals first. Components go before what is left of them is declared.
RULES: tuple[Rule, ...] = (*limits.RULES, *extended.RULES, *registers.RULES, *board.RULES)


def rules_for(source: str, target: str) -> tuple[Rule, ...]:
    """Return the rules that apply from one accelerator to another; raises :class:`~qmigtool.errors.UsageError`."""
    _check_known(source, tuple(TRAITS))
    _check_known(target, TARGETS)
    if source == target:
        return tuple(rule for rule in RULES if rule.run in ALWAYS and rule.applies(TRAITS[source], TRAITS[target]))
    return tuple(rule for rule in RULES if rule.applies(TRAITS[source], TRAITS[target]))


def _check_known(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UsageError(f"no conversion for the accelerator {name!r}", expected="one of " + ", ".join(known))


# What the target CPU decides, not the accelerator.
ALWAYS = (extended.foreign_components, extended.declare_sse)


def convert(
    draft: Draft, target: str, *, mask: int | None = None, lossy: bool = False, without: Collection[str] = ()
) -> None:
    """Turn a draft into what accelerator ``target`` takes; all of it or, if it raises, nothing.

    ``mask``: the user components that the target's XCR0 can have, if known. ``lossy``: what it cannot express is
    dropped and said in the draft's ``losses``; else :class:`~qmigtool.errors.LiveStateError` names it. ``without``:
    rules to leave out, for showing what each is for. Raises :class:`~qmigtool.errors.UnsupportedError` if there is no
    x86 vCPU, :class:`~qmigtool.errors.UndecidedError` if it is not known who saved the stream.
    """
    target, source = target.lower(), draft.accelerator
    _check_known(target, TARGETS)
    draft.x86_cpus()
    if source not in TRAITS:
        raise UndecidedError(SAVED_BY, f"what {target} needs depends on who saved the stream; {UNKNOWN_SAVER}")
    rules = rules_for(source, target)
    with draft.edit("to-accelerator"):
        if source == target:
            draft.note(f"the stream is {target}'s already")
        conversion = Conversion(draft, TRAITS[source], TRAITS[target], mask, lossy)
        for rule in rules:
            if rule.name not in without:
                conversion.apply(rule)
        draft.accelerator = target
        if source != target and TRAITS[target].hypervisor:
            draft.note(
                f"nothing in the output may tell that it is for {target}: later commands want --accelerator {target}"
            )
