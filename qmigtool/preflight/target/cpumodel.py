"""A reply to QMP's ``query-cpu-model-expansion``: a CPU's features by name, and their extended state.

::

    { "execute": "query-cpu-model-expansion", "arguments": { "type": "full", "model": { "name": "host" } } }
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from qmigtool.errors import StreamError
from qmigtool.preflight.target.model import Target
from qmigtool.xsave.components import (
    AMX_MASK,
    APX_MASK,
    AVX512_MASK,
    AVX_MASK,
    CET_MASK,
    LBR_MASK,
    LEGACY_MASK,
    MPX_MASK,
    PKRU_MASK,
    PT_MASK,
)

__all__ = ["masks_of_flags", "target_from_expansion"]

SECTION = "query-cpu-model-expansion"

# CPU feature -> components (x86_ext_save_areas in target/i386/cpu.c).
USER = {
    "avx": AVX_MASK,
    "mpx": MPX_MASK,
    "avx512f": AVX512_MASK,
    "avx10": AVX512_MASK,
    "pku": PKRU_MASK,
    "amx-tile": AMX_MASK,
    "apxf": APX_MASK,
}
SUPERVISOR = {"intel-pt": PT_MASK, "cet-ss": CET_MASK, "cet-ibt": CET_MASK, "arch-lbr": LBR_MASK}
FULL = 100  # minimum number of properties of a full expansion; that of QEMU 5.2 has some 400


def masks_of_flags(flags: Collection[str]) -> tuple[int, int]:
    """Return the masks of XCR0 and IA32_XSS of a CPU with these features; without xsave, only x87 and SSE."""
    if "xsave" not in flags:
        return LEGACY_MASK, 0
    xcr0, xss = LEGACY_MASK, 0
    for flag in flags:
        xcr0 |= USER.get(flag, 0)
        xss |= SUPERVISOR.get(flag, 0)
    return xcr0, xss if "xsaves" in flags else 0


def target_from_expansion(reply: dict[str, Any], name: str) -> Target:
    """Return the target of a reply (without its ``return``); raises :class:`~qmigtool.errors.StreamError` if malformed.

    A static expansion lists only the features that its base model does not have.
    """
    model = reply.get("model")
    props = model.get("props") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(props, dict):
        raise StreamError("no model with props", section=SECTION, expected='a reply of type "full"')
    how = f"{name}, query-cpu-model-expansion of {str(model.get('name'))[:64]!r}"
    flags = frozenset(str(flag).replace("_", "-") for flag, on in props.items() if on is True)
    if model.get("name") != "base" and len(props) < FULL:
        raise StreamError(
            f"a model with {len(props)} properties", section=SECTION, expected='the reply to "type": "full", or a base'
        )
    xcr0, xss = masks_of_flags(flags)
    frequency = props.get("tsc-frequency")
    hertz = frequency if type(frequency) is int and 0 < frequency < 1 << 63 else 0
    return Target(
        name=name,
        xcr0=xcr0,
        xss=xss,
        cpu_flags=flags,
        tsc_khz=hertz // 1000 or None,
        evidence=dict.fromkeys(("xcr0", "xss", "cpu_flags", *(["tsc_khz"] if hertz else [])), how),
    )
