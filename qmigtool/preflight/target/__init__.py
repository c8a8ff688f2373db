"""What is known of the QEMU that loads a stream.

==========  =====================================================================================
model       :class:`Target`: a plain value; what is None is not known
readers     targets from files of every kind, recognised by their contents; then one module for each kind:
reference   a stream saved by the target; partial targets joined to one
dump        -dump-vmstate
cpumodel    QMP's query-cpu-model-expansion
cpuidflags  features of a CPUID dump
masks       the properties of an MSHV partition
builds      QEMU's version
offers      what each version offers: machine types, devices, properties (``offers.json.xz``)
targetfile  TOML, written by a user (``template.toml`` has every key)
names       QEMU's names that a user may write there
machines    names of machine types, and their aliases
vcpus       the sections that each vCPU has
==========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.target.model import Target, TargetBlock, TargetSection, TargetVmsd

__all__ = ["Target", "TargetBlock", "TargetSection", "TargetVmsd"]
