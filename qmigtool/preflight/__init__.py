"""Preflight: would this stream load on that target, in which words would QEMU refuse it, and what would be lost?

==================  ==================================================================================
outcome             the whole: :func:`preflight`
target              :class:`Target`, what is known of the QEMU that is to load the stream
readers             targets from files of every kind, recognised by what is in them; then one each:
reference           a stream that the target has saved itself; partial targets joined to one
vmstate_dump        -dump-vmstate
cpumodel            QMP's query-cpu-model-expansion
cpuidflags          features of a CPUID dump
masks               the properties of an MSHV partition
builds              QEMU's version (``vmsds.json``)
targetfile          TOML, as a person writes it
predict             whether it loads, and QEMU's words if not: its loader, acted out on what is known of it
                    (cursor, configuration, sections, ramlist and records, bodies, commands, postload)
words               QEMU's words, by version
losses              what is lost in silence: what the file lacks; losses_cpu, what the target's CPU lacks;
                    losses_accelerator, what another accelerator takes otherwise or does not take
remedies            the command that mends it; fixes, what mends each refusal (fix: one of them)
==================  ==================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.outcome import Preflight, preflight
from qmigtool.preflight.predict import Verdict, predict
from qmigtool.preflight.readers import read_target, read_targets
from qmigtool.preflight.target import Target, TargetBlock, TargetSection, TargetVmsd

__all__ = [
    "Preflight",
    "Target",
    "TargetBlock",
    "TargetSection",
    "TargetVmsd",
    "Verdict",
    "predict",
    "preflight",
    "read_target",
    "read_targets",
]
