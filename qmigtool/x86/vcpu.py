"""The one bridge between the vmstate fields of an x86 ``cpu`` section and an XSAVE area, both ways.

The place of each field in an area is in :data:`~qmigtool.devices.schema.cpusection.XSAVE_FIELDS`. Two fields need more
than a copy. ``env.fpregs`` is in stack order (ST(0) first), as in the area, from every accelerator but TCG, which keeps
physical registers: ST(i) = fpregs[(TOP+i) & 7]. And ``env.xstate_bv`` is always 0 from TCG, which never fills it,
whatever is live. If it is unknown whether TCG saved the stream, and the two orders give different registers, this
module raises, so that no use of them can guess.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from qmigtool.devices.schema.cpusection import FPREGS, SSE, X87, XSAVE_FIELDS, XsaveField
from qmigtool.errors import LiveStateError, UndecidedError
from qmigtool.parsers.vmstate import Field
from qmigtool.x86.registers import CR4, HFLAGS, XCR0
from qmigtool.x86.xsavefields import (
    decode,
    encode,
    legacy_image,
    matching,
    rotate,
    top,
    unheld,
    unheld_words,
)
from qmigtool.xsave import COMPONENTS, SUPERVISOR_MASK, XsaveArea, bits, layout, mask_names
from qmigtool.xsave.components import (
    APX_MASK,
    EXTENDED_OFFSET,
    FCW_INIT,
    LEGACY_MASK,
    LEGACY_SIZE,
    MPX_MASK,
    MXCSR_INIT,
    MXCSR_OFFSET,
    XSTATE_BV_OFFSET,
    bit_name,
    initial_configuration,
    is_initial,
)

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.xsave import Layout

__all__ = [
    "DECIDES",
    "HFLAGS",
    "SAVED_BY",
    "UNKNOWN_SAVER",
    "VCpu",
    "is_x86",
    "tcg_hflags",
]

SAVED_BY = "the accelerator that saved the stream"
DECIDES = "--accelerator NAME decides"
UNKNOWN_SAVER = f"saved by: unknown; {DECIDES}"
REGISTER_MASK = (1 << 64) - 1  # no register has a sign, whatever its type in a vmdesc


# A subsection that is not sent means that all of its fields are zero, which is the initial configuration: so these
# components are known in every stream. (A description older than version 12 does not have AVX at all.)
_ALWAYS = 1 << X87 | 1 << SSE


USER = 3  # the CPL of user mode


def tcg_hflags(device: Device) -> int:
    """Return env.hflags of a vCPU as TCG keeps it: with the bits that follow from CR4, XCR0 and the bounds registers.

    Every other accelerator recomputes hflags after a load; TCG uses the stream's. IOPL is in EFLAGS only.
    """

    def number(path: str) -> int:
        return device.number(path) or 0

    flags, cr4, xcr0 = number(HFLAGS.path), number(CR4.path), number(XCR0.path)
    user = HFLAGS.part(flags, "CPL") == USER
    bounds = number("cpu/mpx/env.bndcs_regs.cfgu" if user else "cpu/mpx/env.msr_bndcfgs")
    follow = {
        HFLAGS["AVX_EN"]: cr4 & CR4["OSXSAVE"] and xcr0 & 6 == 6,
        HFLAGS["UMIP"]: cr4 & CR4["UMIP"],
        HFLAGS["SMAP"]: cr4 & CR4["SMAP"],
        HFLAGS["MPX_EN"]: cr4 & CR4["OSXSAVE"] and xcr0 & MPX_MASK == MPX_MASK and bounds & 1,
        HFLAGS["IOPL"]: 0,
    }
    for bit, on in follow.items():
        flags = flags | bit if on else flags & ~bit
    return flags


def is_x86(device: Device) -> bool:
    """Return whether a ``cpu`` section is an x86 one, by the fields in its description."""
    description = device.description
    return description is not None and any(field.name == "env.fpuc" for field in description.fields)


class VCpu:
    """One x86 vCPU: its XSAVE state in the stream, as masks, as contents by component, and as an area.

    ``tcg`` is whether TCG saved the stream, None if that is not known (see the docstring of this module for the
    effect). Operations that need the order of the x87 registers where it is not known raise
    :class:`~qmigtool.errors.UndecidedError`: :meth:`contents` of x87, :meth:`xsave_area` and its like, and
    :meth:`encode`; :attr:`x87_undecided` tells before.
    """

    def __init__(self, device: Device, *, tcg: bool | None = None) -> None:
        self.device = device
        self.tcg = tcg
        self.index = device.instance_id

    def __repr__(self) -> str:
        return f"<VCpu {self.index}, XCR0 {self.xcr0:#x}, XSTATE_BV {self.xstate_bv:#x}, live {self.live:#x}>"

    def _repr_html_(self) -> str:
        from qmigtool.util.html import html_table

        masks = (self.enabled, self.xstate_bv, self.carried, self.live)
        shown = masks[0] | masks[1] | masks[2] | masks[3]
        lines = [(bit, bit_name(bit), *(bool(mask >> bit & 1) for mask in masks)) for bit in bits(shown)]
        head = ("bit", "component", "enabled", "declared", "carried", "live")
        return html_table(repr(self).strip("<>"), head, lines)

    @property
    def xcr0(self) -> int:
        """XCR0: the user components that the guest has enabled (``env.xcr0``; 1 if too old to be sent)."""
        return self._number("env.xcr0", default=1)

    @property
    def xss(self) -> int:
        """IA32_XSS: the supervisor components that the guest has enabled (``cpu/xss``)."""
        return self._number("cpu/xss/env.xss")

    @property
    def xstate_bv(self) -> int:
        """XSTATE_BV as the stream declares it (``env.xstate_bv``): always 0 from TCG, whatever is live."""
        return self._number("env.xstate_bv")

    @property
    def enabled(self) -> int:
        """The components enabled in XCR0 and IA32_XSS."""
        return self.xcr0 | self.xss

    @property
    def carried(self) -> int:
        """The components whose fields the stream holds."""
        mask = _ALWAYS
        for spec, _ in self.sent:
            mask |= 1 << spec.component
        return mask

    @property
    def live(self) -> int:
        """The components whose contents differ from the initial configuration; MXCSR counts for SSE.

        XSTATE_BV must have at least these, so this is also the recomputed XSTATE_BV.
        """
        self._check_open()
        return self._live

    @cached_property
    def _live(self) -> int:
        mask = 0
        for bit in bits(self.carried):
            if not is_initial(bit, self._contents(bit)):  # in whatever order x87 registers are
                mask |= 1 << bit
        return mask | 1 << SSE if self.mxcsr != MXCSR_INIT else mask

    @property
    def undeclared(self) -> int:
        """The live user components that XSTATE_BV does not declare."""
        return self.live & ~self.xstate_bv & ~SUPERVISOR_MASK

    @property
    def lost_undeclared(self) -> int:
        """Those of :attr:`undeclared` that the guest uses, so that their initialisation is a loss to it.

        XCR0 enables them, or they are x87 and SSE, which need no bit of it; MXCSR belongs to SSE.
        """
        return self.undeclared & (self.xcr0 | LEGACY_MASK)

    @property
    def mxcsr(self) -> int:
        """MXCSR."""
        self._check_open()
        return int.from_bytes(self._legacy[MXCSR_OFFSET : MXCSR_OFFSET + 4], "little")

    def contents(self, bit: int) -> bytes:
        """Return a component's contents as in an area (SSE without MXCSR, as in :mod:`qmigtool.xsave`).

        A component that the stream does not have is in its initial configuration. Raises
        :class:`~qmigtool.errors.UndecidedError` for x87 whose order is not known.
        """
        self._check_open()
        if bit == X87:
            self._check_order()
        return self._contents(bit)

    def _contents(self, bit: int) -> bytes:
        if bit == X87:
            return self._legacy[0:24] + self._legacy[32:160]
        if bit == SSE:
            return self._legacy[160:416]
        return self._extended.get(bit, initial_configuration(bit, COMPONENTS[bit].size))

    @property
    def x87_control(self) -> bytes:
        """FCW, FSW, FTW, FOP, FIP and FDP as in an area (24 bytes): they do not depend on the order."""
        return self._legacy[0:24]

    @property
    def x87_order_matters(self) -> bool:
        """Whether TCG's order of the x87 registers and that of all others give different registers."""
        return rotate(self._legacy, top(self._legacy)) != self._legacy

    @property
    def x87_undecided(self) -> bool:
        """Whether the order of the x87 registers is unknown, because the accelerator that saved the stream is."""
        return self.tcg is None and self.x87_order_matters

    def ordered(self) -> VCpu:
        """Return the same vCPU with its x87 registers in the stream's order: for uses that ignore the registers."""
        return VCpu(self.device, tcg=False) if self.x87_undecided else self

    def check_saver(self, what: str) -> None:
        """Check that it is known whether TCG saved the stream, because ``what`` depends on it.

        Raises :class:`~qmigtool.errors.UndecidedError`.
        """
        if self.tcg is None:
            raise UndecidedError(
                SAVED_BY,
                f"vCPU {self.index}: {what} depends on the accelerator that saved it; saved by: unknown",
                advice=DECIDES,
                offset=self.device.section.offset,
                section=self.device.label,
            )

    def _check_order(self) -> None:
        if self.x87_undecided:
            self.check_saver("the order of the x87 registers (TCG keeps them in another order)")

    @property
    def supervisor(self) -> dict[int, bytes]:
        """Supervisor components that the stream has as MSRs: bit -> contents."""
        return {bit: self._extended[bit] for bit in bits(self.carried & SUPERVISOR_MASK)}

    def effective_xstate_bv(self, source: str = "auto") -> int:
        """Return the user components that are treated as in use.

        ``declared``: the stream's value; ``recomputed``: from the contents; ``auto``: recomputed for a TCG stream and
        for one that declares nothing, else declared. Raises :class:`~qmigtool.errors.UndecidedError` for ``auto`` where
        the two differ and it is not known whether TCG saved the stream.
        """
        recomputed = self.live & ~SUPERVISOR_MASK
        if source == "auto":
            if self.xstate_bv and self.undeclared:
                self.check_saver("whether live state that XSTATE_BV does not declare is in use (TCG declares nothing)")
            source = "recomputed" if self.tcg or not self.xstate_bv else "declared"
        return recomputed if source == "recomputed" else self.xstate_bv

    @property
    def xsave(self) -> XsaveArea:
        """The area in standard format, at the offsets that QEMU itself uses without a host's CPUID (``qemu``)."""
        return self.xsave_area()

    def xsave_area(self, target: Layout | None = None, *, xstate_bv: str = "auto") -> XsaveArea:
        """Build the standard area of this vCPU; supervisor components are kept outside it.

        ``target`` is its layout (default: ``qemu``); a component that it cannot place is an
        :class:`~qmigtool.errors.XsaveError` if it is declared or live, since nothing may be lost silently: build with
        the default, then convert. ``xstate_bv`` as for :meth:`effective_xstate_bv`. Raises
        :class:`~qmigtool.errors.UndecidedError` if the order of the x87 registers is not known.
        """
        self._check_order()
        place = target or layout("qemu")
        declared = self.effective_xstate_bv(xstate_bv)
        user = (self.live | declared | self.carried & place.user_mask) & ~SUPERVISOR_MASK
        if (self.live | declared) & APX_MASK:
            user &= ~MPX_MASK | self.live | declared  # they share bytes: leave out the idle one
        else:
            user &= ~APX_MASK
        size = max(place.standard_size(user & place.user_mask), EXTENDED_OFFSET)
        area = bytearray(size)
        area[:LEGACY_SIZE] = self._legacy
        for bit in bits(user & ~_ALWAYS):
            if bit not in place.rows and bit not in COMPONENTS:
                continue  # declared by an unknown bit: XSTATE_BV keeps it, and conversion refuses it
            if bit not in place.rows and not (self.live | self.carried) >> bit & 1:
                continue
            offset = place.standard_offset(bit)
            contents = self.contents(bit)
            area[offset : offset + len(contents)] = contents
        struct.pack_into("<Q", area, XSTATE_BV_OFFSET, declared)
        return XsaveArea(bytes(area), place, self.supervisor)

    def vmstate_bytes(self, area: XsaveArea) -> Mapping[Field, bytes]:
        """Return the bytes that each field of this vCPU would have with the state of ``area``: the reverse direction.

        The state is read as the architecture defines: what XSTATE_BV does not declare is in its initial configuration,
        whatever its bytes are. Returns only fields of the stream; live state without a field here is a
        :class:`~qmigtool.errors.LiveStateError`, because it would be lost.
        """
        # By the strict conversion: stale bytes become the initial configuration.
        clean = area.expand(layout("qemu"))
        words = []
        missing = clean.live & ~self.carried
        for bit in bits(clean.live & ~missing):
            if unheld(bit, clean.component(bit)) is not None:
                missing |= 1 << bit
                words.append(unheld_words(bit, clean.component(bit)))
        if missing:
            whole = list(mask_names(clean.live & ~self.carried))
            raise LiveStateError(
                f"vCPU {self.index} has no fields in the stream for live state: {' '.join(whole + words)}",
                components=mask_names(missing),
                section=self.device.label,
            )
        contents = {bit: clean.component(bit) for bit in bits(self.carried)}
        encoded = dict(self.encode(contents, clean.mxcsr))
        declared = self.device.get("env.xstate_bv")
        if declared is not None:
            self.check_saver("whether XSTATE_BV is filled")
        if declared is not None and not self.tcg:  # TCG never fills it
            encoded[declared] = clean.xstate_bv.to_bytes(declared.length, "big")
        return encoded

    def encode(self, contents: Mapping[int, bytes], mxcsr: int | None = None) -> Iterator[tuple[Field, bytes]]:
        """Yield the bytes of each field that the stream has of the components in ``contents`` (bit -> contents).

        ``mxcsr`` is None to keep MXCSR. State without a field is skipped: see :meth:`fieldless`.
        """
        legacy = legacy_image(contents.get(X87, b""), contents.get(SSE, b""), mxcsr or 0)
        for spec, field in self.sent:
            if spec.offset == MXCSR_OFFSET and spec.component == SSE:
                if mxcsr is not None:
                    yield field, encode(spec, legacy, field.length)
            elif spec.component in contents:
                image = legacy if spec.component in (X87, SSE) else contents[spec.component]
                if spec.path == (FPREGS,):
                    physical = rotate(image, -top(image))
                    if physical != image:
                        self.check_saver("the order of the x87 registers (TCG keeps them in another order)")
                    image = physical if self.tcg else image
                yield field, encode(spec, image, field.length)

    def fieldless(self, bit: int, contents: bytes) -> set[tuple[str, ...]]:
        """Return the paths of the subsections that ``contents`` of a component need and the stream does not have."""
        image = contents
        if bit in (X87, SSE):
            image = legacy_image(contents if bit == X87 else b"", contents if bit == SSE else b"", 0)
        there = {spec for spec, _ in self.sent}
        lacking = set()
        for spec in XSAVE_FIELDS:
            if spec.component == bit and len(spec.path) > 1 and spec not in there:
                end = spec.offset + max(piece.at + piece.area for piece in spec.pieces)
                if any(image[spec.offset : len(image) if spec.stride else end]):
                    lacking.add(spec.path[:-1])
        return lacking

    # -- reading -----------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        """Raise :class:`~qmigtool.errors.ClosedError` if the stream is closed, even if the result is cached."""
        _ = self.device.fields

    def _number(self, path: str, default: int = 0) -> int:
        value = self.device.number(path)
        return default if value is None else value & REGISTER_MASK

    @cached_property
    def sent(self) -> tuple[tuple[XsaveField, Field], ...]:
        """The fields of extended state in the stream, each with its place in an area."""
        return tuple((spec, field) for spec in XSAVE_FIELDS for field in matching(self.device.fields, spec))

    @cached_property
    def _images(self) -> dict[int, bytearray]:
        legacy = bytearray(LEGACY_SIZE)
        struct.pack_into("<H", legacy, 0, FCW_INIT)
        struct.pack_into("<I", legacy, MXCSR_OFFSET, MXCSR_INIT)
        images = {X87: legacy, SSE: legacy}
        for spec, field in self.sent:
            image = images.get(spec.component)
            if image is None:
                component = COMPONENTS[spec.component]
                image = images[spec.component] = bytearray(initial_configuration(spec.component, component.size))
            decode(spec, field, image)
        if self.tcg:
            legacy[:] = rotate(bytes(legacy), top(legacy))
        return images

    @cached_property
    def _legacy(self) -> bytes:
        return bytes(self._images[X87])

    @cached_property
    def _extended(self) -> dict[int, bytes]:
        return {bit: bytes(image) for bit, image in self._images.items() if bit not in (X87, SSE)}
