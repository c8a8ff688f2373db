"""Compare the extended state of two vCPUs by its meaning: registers, independent of their order and place.

A component in its initial configuration equals an absent one, and x87 registers are compared in stack order, whichever
accelerator saved them. A component that XSTATE_BV does not declare is initial, as for the processor that would restore
it. TCG declares nothing: there, and where the accelerator that saved the stream is not known, live components count
(:meth:`VCpu.effective_xstate_bv`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.devices.schema.cpusection import FPREGS, X87
from qmigtool.diff.model import Difference, DifferenceKind
from qmigtool.diff.words import bits_changed, decides
from qmigtool.x86.registers import FCW, FSW, MXCSR
from qmigtool.x86.vcpu import VCpu
from qmigtool.xsave import COMPONENTS, XsaveArea, bits
from qmigtool.xsave.components import MXCSR_OFFSET
from qmigtool.xsave.registerfile import ST_REGISTERS, Slot, registers_in, x87_value

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Field

__all__ = ["differing_registers", "x87_unknown"]

SSE = 1
REGISTER = "register"
XSTATE_BV = "env.xstate_bv"


class _Side(NamedTuple):
    vcpu: VCpu
    area: XsaveArea


class Unknown(NamedTuple):
    """x87 registers in unknown order; ``equal``: they are the same if one accelerator saved both streams."""

    equal: bool
    words: str


def x87_unknown(a: VCpu, b: VCpu, sides: tuple[str, str] = ("A", "B")) -> Unknown | None:
    """Return what is not known of the x87 registers, or None if they can be compared; ``sides`` names both."""
    unknown = [name for name, vcpu in zip(sides, (a, b), strict=True) if vcpu.x87_undecided]
    if not unknown:
        return None
    label = a.device.label
    if len(unknown) == 2 and a.x87_control[2:4] == b.x87_control[2:4] and _registers(a) == _registers(b):
        words = f"{label}: ST0 to ST7 are the same if one accelerator saved {' and '.join(sides)} (saved by: unknown)"
        return Unknown(True, words)
    why = "; ".join(filter(None, ("saved by: unknown", decides(unknown))))
    order = f"their order in {' and '.join(unknown)} depends on the accelerator ({why})"
    return Unknown(False, f"{label}: ST0 to ST7 are not compared: {order}")


def _registers(vcpu: VCpu) -> bytes:
    return b"".join(field.raw for spec, field in vcpu.sent if spec.path == (FPREGS,))


def differing_registers(a: VCpu, b: VCpu, *, declared: tuple[bool, bool]) -> Iterator[Difference]:
    """Yield every register in which the extended state of two vCPUs differs.

    x87 registers in unknown order are left out (:func:`x87_unknown`). ``declared``: for each side, whether a hypervisor
    saved it, so that only components declared in XSTATE_BV count. Raises :class:`~qmigtool.errors.XsaveError` if the
    state of one is not known: it declares an unknown component.
    """
    undecided = x87_unknown(a, b) is not None
    one, other = (
        _Side(vcpu, (vcpu.ordered() if undecided else vcpu).xsave_area(xstate_bv="declared" if only else "auto"))
        for vcpu, only in zip((a, b), declared, strict=True)
    )
    if one.area.mxcsr != other.area.mxcsr:
        yield _register(one, other, SSE, Slot("MXCSR", 0, 4), one.area.mxcsr, other.area.mxcsr)
    for bit in bits(one.area.live | other.area.live):
        if bit not in COMPONENTS:
            continue
        ours, theirs = one.area.component(bit), other.area.component(bit)
        if ours == theirs:
            continue
        for slot in registers_in(bit):
            x, y = (raw[slot.offset : slot.offset + slot.size] for raw in (ours, theirs))
            stack = bit == X87 and slot.offset >= ST_REGISTERS
            if x != y and not (undecided and stack):
                if stack:
                    yield _register(one, other, bit, slot, x, y)
                else:
                    yield _register(one, other, bit, slot, int.from_bytes(x, "little"), int.from_bytes(y, "little"))


def _register(a: _Side, b: _Side, bit: int, slot: Slot, x: int | bytes, y: int | bytes) -> Difference:
    places = [_place(side, bit, slot) for side in (a, b)]
    path = next((place[0] for place in places if place is not None), f"[{slot.name}]")
    words = slot.name
    view = _VIEWS.get(slot.name)
    if isinstance(x, bytes) and isinstance(y, bytes):
        words += f": {x87_value(x)} -> {x87_value(y)}"
        x, y = int.from_bytes(x, "little"), int.from_bytes(y, "little")
    elif view is not None and isinstance(x, int) and isinstance(y, int):
        words += f": {bits_changed(view, x, y)}"
    at_a, at_b = (None if place is None else place[1] for place in places)
    return Difference(
        device=a.vcpu.device.label,
        path=path,
        kind=DifferenceKind.CHANGED,
        a=x,
        b=y,
        offset=at_a,
        offset_b=at_b,
        words=words,
        type=REGISTER,
    )


_VIEWS = {register.name: register for register in (MXCSR, FCW, FSW)}


def _place(side: _Side, bit: int, slot: Slot) -> tuple[str, int] | None:
    """Return the path and the offset of the field that holds a register, or None if the stream has none."""
    mxcsr = slot.name == "MXCSR"
    for spec, field in side.vcpu.sent:
        if spec.component != bit or (spec.offset == MXCSR_OFFSET) != mxcsr:
            continue
        # x87 and SSE count from the start of the area, and x87's contents do not include the 8 bytes of MXCSR.
        start = spec.offset if bit > SSE else spec.offset - (160 if bit == SSE else 8 if spec.offset >= 32 else 0)
        if mxcsr:
            return "/".join(spec.path), field.offset
        if not spec.stride:
            if start == slot.offset:
                return "/".join(spec.path), field.offset
            continue
        index, rest = divmod(slot.offset - start, spec.stride)
        if rest or not 0 <= index < field.length // spec.wire_size:
            continue
        if bit == X87 and slot.offset >= ST_REGISTERS and side.vcpu.tcg:
            index = (index + (FSW.part(side.area.fsw, "TOP"))) % 8  # physical registers
        return _element(spec.path, field, index), field.offset + index * spec.wire_size
    return None


def _element(path: tuple[str, ...], field: Field, index: int) -> str:
    return "/".join((*path[:-1], f"{field.name}[{index}]"))
