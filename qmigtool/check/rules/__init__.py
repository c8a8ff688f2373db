"""The rules that there are, by subject; a new one is a function in one of these modules, and in ``default.toml``.

=========  ===================================================================================
container  the stream as such: whole, readable, described
machine    machine type, devices, versions, accelerator, as a policy wants them
memory     RAM blocks and their pages
vcpus      the vCPUs together
registers  control registers and MSRs of each vCPU
xsave      extended state of each vCPU
baseline   against an older stream
=========  ===================================================================================
"""

from __future__ import annotations

from types import MappingProxyType

from qmigtool.check.rules import baseline, container, machine, memory, registers, vcpus, xsave

__all__ = ["RULES"]

RULES = MappingProxyType(
    {
        rule.id: rule
        for module in (container, machine, memory, vcpus, registers, xsave, baseline)
        for rule in module.RULES
    }
)
"""Every rule by its name, in the order in which they are asked."""
