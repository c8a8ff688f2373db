"""What is known of the QEMU that is to load a stream.

==========  =====================================================================================
model       :class:`Target`: a plain value; what is None is not known
readers     targets from files of every kind, recognised by what is in them; then one each:
reference   a stream that the target has saved itself; partial targets joined to one
dump        -dump-vmstate
cpumodel    QMP's query-cpu-model-expansion
cpuidflags  features of a CPUID dump
masks       the properties of an MSHV partition
builds      QEMU's version (``vmsds.json``)
offers      what each version offers: machine types, devices, properties (``offers.json.xz``)
targetfile  TOML, as a person writes it (``template.toml`` has every key)
names       QEMU's own names, that a person may write there
machines    names of machine types, and their aliases
vcpus       the sections that are there once for each vCPU
==========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.target.model import Target, TargetBlock, TargetSection, TargetVmsd

__all__ = ["Target", "TargetBlock", "TargetSection", "TargetVmsd"]
