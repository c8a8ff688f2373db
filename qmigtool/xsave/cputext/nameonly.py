"""Texts that name a CPU or its features without CPUID registers: what each is, and which command prints them.

::

    processor       : 0                       /proc/cpuinfo
    flags           : fpu vme ... xsave

    Architecture:            x86_64           lscpu
    Flags:                   fpu vme ... xsave

    CPU features:                             kcpuid without -r
    =============
            sse3

    CPUID_0xd_EAX[0x0]:                       kcpuid -d

       version information (1/eax):           cpuid -l 1, or a part of cpuid's output
"""

from __future__ import annotations

import re
from typing import NamedTuple

from qmigtool.xsave.catalog import is_layout_name

__all__ = ["NameOnly", "name_only"]

_ON_THAT_MACHINE = "`cpuid -1 -r` or `kcpuid -r` on that machine, or its boot messages: `dmesg | grep x86/fpu`"
_FLAGS = re.compile(r"^[ \t>]*flags[ \t]*:[ \t]*(?P<flags>\w[^\n]*)$", re.MULTILINE | re.IGNORECASE)
_HEAD = re.compile(r"^[ \t>]*[^\n=:()]{1,80} ?\(((?:0x)?[0-9a-f]{1,8}(?:/\w{1,8})?)\):[ \t\r]*$", re.MULTILINE)


class NameOnly(NamedTuple):
    """A message that says what a text is, and what to give instead; None where there is nothing better."""

    what: str
    give: str | None


def name_only(text: str) -> NameOnly | None:
    """Return what a text without a row of CPUID is; None if its format is unknown."""
    if re.search(r"\bCPUID_0x[0-9a-f]{1,8}_E[A-D]X\[", text) or re.search(r"^CPU features:\s*={8}", text, re.MULTILINE):
        return NameOnly("kcpuid prints registers only with -r", "`kcpuid -r` on that machine")
    if re.search(r"^[ \t>]*Architecture:[ \t]*\S", text, re.MULTILINE):
        return NameOnly(f"lscpu {_without(text)}", _ON_THAT_MACHINE)
    if re.search(r"^[ \t>]*(?:processor|vendor_id|cpu family|model name)[ \t]*:", text, re.MULTILINE) or _FLAGS.search(
        text
    ):
        return NameOnly(f"/proc/cpuinfo {_without(text)}", _ON_THAT_MACHINE)
    if heads := _HEAD.findall(text):
        there = ", ".join(list(dict.fromkeys(heads))[:4])
        return NameOnly(
            f"cpuid's text has ({there}) here, but not (0xd/0), which has the bits that XCR0 can have",
            "the whole output of `cpuid -1` or `cpuid -1 -r`, without -l and -s",
        )
    if re.search(r"<cpu[\s>]", text):
        models = dict.fromkeys(re.findall(r"<model\b[^>]{0,200}>\s*([\w.-]{1,60})\s*</model>", text))
        known = next((f"; --layout {name} is QEMU's model of that name" for name in models if is_layout_name(name)), "")
        return NameOnly(f"libvirt's XML has a model and features here, but no <cpudata> with registers{known}", None)
    return None


def _without(text: str) -> str:
    flags = _FLAGS.search(text)
    if flags is None:
        return "has a CPU's name, but not CPUID leaf 0xD, which has the components' offsets"
    there = "have xsave" if "xsave" in flags["flags"].lower().split() else "do not have xsave"
    return f"has a CPU's name and flags (they {there}), but not CPUID leaf 0xD, which has the components' offsets"
