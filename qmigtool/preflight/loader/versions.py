"""One verdict for all possible versions of a target's QEMU.

The walk uses the version only where versions differ (:meth:`~.state.Load.since`). Where the possible versions differ,
it is repeated, once for each side, and the verdicts are joined: what all have in common is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.devices.schema.vmsds import BUILDS
from qmigtool.preflight.loader.verdict import Verdict
from qmigtool.preflight.remark import remark
from qmigtool.preflight.target.builds import unknown_version, vmsds_of_versions
from qmigtool.preflight.target.reference import merge
from qmigtool.preflight.target.versions import ANY, Possible, Split, possible, version_text

if TYPE_CHECKING:
    from qmigtool.preflight.target.model import Target

__all__ = ["judge_versions"]

DECIDES = "--target VERSION decides it"
ANY_VERSION = frozenset({"empty", "magic", "version", "version-obsolete"})
"""Refusals that depend only on the format, not on the version."""
Walk = Callable[[Possible, "Target"], Verdict]


class _Leaf(NamedTuple):
    """Versions that behave alike, and their verdict."""

    versions: Possible
    verdict: Verdict


def judge_versions(target: Target, walk: Walk) -> Verdict:
    """Walk once for a known version, and once for each group of possible versions otherwise."""
    versions, why = possible(target)
    if target.qemu is not None:
        return _undecided(versions, walk(versions, target))
    leaves = list(_leaves(versions, target, walk))
    shown = f" ({'; '.join(why)})" if why else ""
    note = remark(f"the target's version of QEMU is unknown: assumed to be {versions}{shown}")
    if why and versions == ANY:
        note = remark(f"the target's version of QEMU is unknown: {why[0]}")
    joined = leaves[0].verdict if len(leaves) == 1 else _joined(leaves)
    return _undecided(versions, replace(joined, notes=(note, *joined.notes)))


def _undecided(versions: Possible, verdict: Verdict) -> Verdict:
    """Withdraw a verdict that uses another version's rules, because those of the target's version are not known."""
    unknown = unknown_version(versions)
    if unknown is None or verdict.rule in ANY_VERSION:
        return verdict
    nearest = version_text(BUILDS[-1] if versions.first >= BUILDS[-1] else BUILDS[0])
    if verdict.loads is False:
        said = f"would refuse it: {verdict.errors[0] if verdict.errors else verdict.rule}"
    else:
        said = "would load it" if verdict.loads else "was used for the prediction"
    doubt = remark(f"{unknown}; QEMU {nearest} {said}")
    return replace(
        verdict,
        loads=None,
        errors=(),
        rule=None,
        offset=None,
        section=None,
        values={},
        otherwise=(),
        doubts=(doubt, *verdict.doubts),
        unknown=(doubt, *verdict.unknown),
    )


def _leaves(versions: Possible, target: Target, walk: Walk) -> list[_Leaf]:
    found = vmsds_of_versions(versions, target)
    known = target if found is None else replace(merge(found, target), name=target.name)
    try:
        return [_Leaf(versions, walk(versions, known))]
    except Split as split:
        return [leaf for part in versions.split(split.at) for leaf in _leaves(part, target, walk)]


def _joined(leaves: Sequence[_Leaf]) -> Verdict:
    """Join the verdicts: whether it loads and why not if all agree, else a doubt that names the differing versions."""
    verdicts = [leaf.verdict for leaf in leaves]
    first = verdicts[0]
    unknown = tuple(dict.fromkeys(text for one in verdicts for text in one.unknown))
    notes = tuple(dict.fromkeys(text for one in verdicts for text in one.notes))
    warnings = tuple(dict.fromkeys(text for one in verdicts for text in one.warnings))
    if len({one.loads for one in verdicts}) > 1:
        doubts = [text for one in verdicts for text in one.doubts]
        doubts.insert(0, remark(f"{'; '.join(map(_said, _alike(leaves)))}: {DECIDES}"))
        everything = tuple(dict.fromkeys((*doubts, *unknown)))
        return Verdict(None, (), warnings, unknown=everything, notes=notes, doubts=tuple(dict.fromkeys(doubts)))
    if first.loads is not False:
        doubts = [text for one in verdicts for text in one.doubts]
        return replace(first, warnings=warnings, unknown=unknown, notes=notes, doubts=tuple(dict.fromkeys(doubts)))
    others: dict[tuple[str, ...], list[str]] = {}
    for leaf in leaves[1:]:
        if leaf.verdict.errors != first.errors:
            others.setdefault(leaf.verdict.errors, []).append(str(leaf.versions))
    otherwise = tuple((", ".join(who), lines) for lines, who in others.items())
    same = all((one.rule, one.offset, one.section) == (first.rule, first.offset, first.section) for one in verdicts)
    if not same:
        notes = (*notes, remark("versions of QEMU refuse it at different places; this is that of the oldest"))
    return replace(first, unknown=unknown, notes=notes, otherwise=otherwise)


def _alike(leaves: Sequence[_Leaf]) -> list[_Leaf]:
    """Join adjacent versions with the same verdict."""
    found = [leaves[0]]
    for leaf in leaves[1:]:
        last = found[-1]
        if (last.verdict.loads, last.verdict.errors[:1]) == (leaf.verdict.loads, leaf.verdict.errors[:1]):
            found[-1] = _Leaf(Possible(last.versions.first, leaf.versions.below), last.verdict)
        else:
            found.append(leaf)
    return found


def _said(leaf: _Leaf) -> str:
    verdict = leaf.verdict
    if verdict.loads is False:
        return f"{leaf.versions} refuses it ({verdict.errors[0] if verdict.errors else verdict.rule})"
    return f"{leaf.versions} loads it" if verdict.loads else f"{leaf.versions}: not decided"
