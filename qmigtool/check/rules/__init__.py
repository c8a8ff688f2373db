"""The built-in rules, by subject; a new one is a function in one of these modules, and a name in its ``RULES``.

=========  ===================================================================================
container  the stream itself: complete, readable, described
machine    machine type, devices, versions, accelerator, as a policy requires them
memory     RAM blocks and their pages
vcpus      all vCPUs together
registers  control registers and MSRs of each vCPU
xsave      extended state of each vCPU
baseline   comparison with an older stream
=========  ===================================================================================

Another distribution names a :class:`~qmigtool.check.rule.CheckRule`, or a list of them, as an entry point in
``qmigtool.rules``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from qmigtool.check.rule import CheckRule
from qmigtool.check.rules import baseline, container, machine, memory, registers, vcpus, xsave
from qmigtool.util.plugins import RULES as GROUP
from qmigtool.util.plugins import conflict, plugins

__all__ = ["RULES"]

_OWN = [rule for module in (container, machine, memory, vcpus, registers, xsave, baseline) for rule in module.RULES]


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
            yield rule


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
