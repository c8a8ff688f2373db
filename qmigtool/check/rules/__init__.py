"""The built-in rules, by subject; a new one is a function in one of these modules, and a name in its ``RULES``.

=========  ===================================================================================
container  the stream itself: complete, readable, described
machine    machine type, devices, versions, accelerator, as a policy requires them
memory     RAM blocks and their pages
vcpus      all vCPUs together
registers  control registers and MSRs of each vCPU
xsave      extended state of each vCPU
domain     the libvirt XML of a save image, against the stream
baseline   comparison with an older stream
=========  ===================================================================================

Another distribution names a :class:`~qmigtool.check.rule.CheckRule`, or a list of them, as an entry point in
``qmigtool.rules``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from qmigtool.check.rule import CheckRule
from qmigtool.check.rules import baseline, container, domain, machine, memory, registers, vcpus, xsave
from qmigtool.errors import QmigError
from qmigtool.findings import Finding
from qmigtool.util.plugins import RULES as GROUP
from qmigtool.util.plugins import conflict, plugins

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from qmigtool.check.rule import Check, Context, Options

__all__ = ["RULES", "SUBJECTS"]

SUBJECTS: Mapping[str, tuple[CheckRule, ...]] = {
    "the stream itself": container.RULES,
    "the machine, as a policy requires it": machine.RULES,
    "guest memory": memory.RULES,
    "all vCPUs together": vcpus.RULES,
    "registers of each vCPU": registers.RULES,
    "extended state of each vCPU": xsave.RULES,
    "the libvirt XML of a save image": domain.RULES,
    "comparison with an older stream: --baseline": baseline.RULES,
}
"""The built-in rules by their subject."""

_OWN = [rule for rules in SUBJECTS.values() for rule in rules]


def _installed() -> Iterator[CheckRule]:
    """Yield the rules of other distributions; raises :class:`~qmigtool.errors.UsageError` if one is not a rule."""
    taken = {rule.id for rule in _OWN}
    for point, found in plugins(GROUP):
        for rule in [found] if isinstance(found, CheckRule) else found if isinstance(found, list | tuple) else [None]:
            if not isinstance(rule, CheckRule):
                raise conflict(point, "is not a qmigtool.check.rule.CheckRule or a list of them")
            if rule.id in taken:
                raise conflict(point, f"has a rule {rule.id!r}, which exists already")
            taken.add(rule.id)
            yield replace(rule, check=_guarded(point, rule))


def _guarded(point: EntryPoint, rule: CheckRule) -> Check:
    """Return the check of another distribution's rule, whose own failures name the distribution."""

    def check(context: Context, options: Options) -> Iterator[Finding]:
        try:
            for one in rule.check(context, options):
                if not isinstance(one, Finding):
                    raise conflict(point, f"has a rule {rule.id!r} that returns {type(one).__name__}, not a Finding")
                yield one
        except (QmigError, MemoryError):
            raise  # what the stream lacks
        except (Exception, SystemExit) as error:
            raise conflict(point, f"has a rule {rule.id!r} that fails: {type(error).__name__}: {error}") from error

    return check


class _Rules(Mapping[str, CheckRule]):
    """Rules by name. Those of other distributions are loaded on the first access, because they import this module."""

    @cached_property
    def _all(self) -> dict[str, CheckRule]:
        return {rule.id: rule for rule in (*_OWN, *_installed())}

    def __getitem__(self, name: str) -> CheckRule:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


RULES: Mapping[str, CheckRule] = _Rules()
"""Every rule by its name, in the order in which they run."""
