"""One XSAVE area: its bytes, its layout, and the register state in it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qmigtool.errors import UsageError, XsaveError
from qmigtool.xsave.components import (
    COMPONENTS,
    MXCSR_INIT,
    MXCSR_MASK_OFFSET,
    SSE_PIECES,
    X87_PIECES,
    XCOMP_BV_COMPACTED,
    XSTATE_BV_OFFSET,
    Format,
    bit_name,
    bits,
    component,
    initial_configuration,
    is_initial,
)
from qmigtool.xsave.convert import convert
from qmigtool.xsave.header import area_format, effective_mxcsr, header
from qmigtool.xsave.hyperv import declare_hyperv
from qmigtool.xsave.layout import Layout
from qmigtool.xsave.plan import check_supervisor

__all__ = ["Format", "XsaveArea"]


@dataclass(frozen=True, slots=True, repr=False)
class XsaveArea:
    """The XSAVE area of one vCPU.

    ``data`` is the area in standard or compacted format (see XCOMP_BV[63]), ``layout`` gives the components' offsets.
    ``supervisor`` holds components (bit -> contents) that ``data`` does not: a standard area cannot hold supervisor
    state, and QEMU sends it as MSRs.

    State is read as the architecture defines: a component whose XSTATE_BV bit is 0 is in its initial configuration,
    whatever its bytes are. A QEMU TCG stream declares nothing but has live state: call :meth:`redeclared` first.

    Raises XsaveError if the bytes end before the header or a declared component does, or if the layout has no place for
    a component in XCOMP_BV. :func:`qmigtool.xsave.check.check_area` checks the other rules.
    """

    data: bytes
    layout: Layout
    supervisor: Mapping[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", bytes(self.data))
        object.__setattr__(self, "supervisor", dict(self.supervisor))
        offsets = self.offsets
        for bit in bits(self.xcomp_bv & ~XCOMP_BV_COMPACTED if self.format is Format.COMPACTED else self.xstate_bv):
            if bit in offsets and offsets[bit] + self.layout.rows[bit].size > len(self.data):
                raise XsaveError(
                    f"{bit_name(bit)} ends at byte {offsets[bit] + self.layout.rows[bit].size}, but the area has "
                    f"{len(self.data)}",
                    offset=len(self.data),
                )
        for bit, contents in self.supervisor.items():
            check_supervisor(bit, contents, self.layout)

    def __repr__(self) -> str:
        size, beside = len(self.data), ", ".join(map(bit_name, self.supervisor))
        words = f"{self.format}, {self.layout.name}, XSTATE_BV {self.xstate_bv:#x}, {size} bytes"
        return f"<XsaveArea {words}{f', supervisor {beside}' if beside else ''}>"

    def _repr_html_(self) -> str:
        from qmigtool.util.html import html_table

        offsets, live, declared = self.offsets, self.live, self.declared
        shown = declared | live | sum(1 << bit for bit in self.supervisor)
        lines = []
        for bit in bits(shown):
            place = 0 if bit < 2 else None if bit in self.supervisor else offsets.get(bit)
            row = self.layout.rows.get(bit)
            size = None if row is None else row.size
            lines.append((bit, bit_name(bit), place, size, bool(declared >> bit & 1), bool(live >> bit & 1)))
        head = ("bit", "component", "offset", "bytes", "declared", "live")
        return html_table(repr(self).strip("<>"), head, lines)

    @property
    def format(self) -> Format:
        """Standard or compacted, according to XCOMP_BV[63]."""
        return area_format(self.data)

    @property
    def xstate_bv(self) -> int:
        """XSTATE_BV: the components that the area declares."""
        return header(self.data)[0]

    @property
    def declared(self) -> int:
        """XSTATE_BV, under the name that the tables use (as opposed to ``live``)."""
        return self.xstate_bv

    @property
    def xcomp_bv(self) -> int:
        """XCOMP_BV with its bit 63; 0 in a legal standard area."""
        return header(self.data)[1]

    @property
    def offsets(self) -> dict[int, int]:
        """Bit -> offset of each component above bit 1 that this area has a place for."""
        form = self.format
        return self.layout.offsets(form, self.xcomp_bv if form is Format.COMPACTED else self.layout.user_mask)

    def memory(self, key: int | str) -> bytes | None:
        """Return the bytes at the component's place, whatever XSTATE_BV is, or None if it has no place.

        For reading state, use :meth:`component`: these bytes are stale where XSTATE_BV has a 0.
        """
        bit = _bit(key)
        if bit < 2:
            pieces = (X87_PIECES, SSE_PIECES)[bit]
            return b"".join(self.data[offset : offset + size] for offset, size in pieces)
        offset = self.offsets.get(bit)
        if offset is None or offset + self.layout.rows[bit].size > len(self.data):
            return None
        return self.data[offset : offset + self.layout.rows[bit].size]

    def component(self, key: int | str) -> bytes:
        """Return the component's contents (see :class:`Component` for sizes; SSE is XMM0-15, without MXCSR).

        That is the initial configuration if XSTATE_BV does not have the component. Raises XsaveError if XSTATE_BV has
        it and the layout has no place for it, or if its size is unknown.
        """
        bit = _bit(key)
        if bit in self.supervisor:
            return self.supervisor[bit]
        if self.xstate_bv >> bit & 1:
            contents = self.memory(bit)
            if contents is not None:
                return contents
            reason = self.layout.absent.get(bit, "CPUID leaf 0xD does not have it there")
            raise XsaveError(
                f"XSTATE_BV declares {bit_name(bit)}, but the layout has no place for it: {reason}",
                offset=XSTATE_BV_OFFSET,
                section=self.layout.name,
            )
        known, row = COMPONENTS.get(bit), self.layout.rows.get(bit)
        if known is None and row is None:
            raise XsaveError(f"the size of {bit_name(bit)} is unknown", section=self.layout.name)
        return initial_configuration(bit, known.size if known else row.size if row else 0)

    @property
    def live(self) -> int:
        """The components whose contents differ from the initial configuration; MXCSR counts for SSE.

        A declared component that cannot be read counts as live.
        """
        mask = sum(1 << bit for bit, contents in self.supervisor.items() if not is_initial(bit, contents))
        for bit in bits(self.xstate_bv & ~XCOMP_BV_COMPACTED):
            contents = self.memory(bit)
            if contents is None or not is_initial(bit, contents):
                mask |= 1 << bit
        return mask | 2 if self.mxcsr != MXCSR_INIT else mask

    def architectural_state(self) -> dict[int | str, bytes | int]:
        """Return the area's state: bit -> contents of each component that is not initial, and ``"mxcsr"``.

        Two areas with equal state restore the same registers, whatever their formats and layouts.
        """
        state: dict[int | str, bytes | int] = {"mxcsr": self.mxcsr}
        for bit in bits(self.live):
            contents = self.component(bit)
            if not is_initial(bit, contents):
                state[bit] = contents
        return state

    def redeclared(self, allowed: int | None = None) -> XsaveArea:
        """Return a standard area whose XSTATE_BV is recomputed: bit i is 1 if the bytes in memory are not initial.

        For areas whose XSTATE_BV is known to be meaningless, as from a TCG stream. ``allowed`` (default: all components
        of the layout) limits it, as to the guest's XCR0. Raises XsaveError for a compacted area, where bytes of
        undeclared components are stale, and if components that share a place (MPX and APX_F) remain.
        """
        if self.format is Format.COMPACTED:
            raise XsaveError("the bytes of undeclared components are stale in a compacted area", section="redeclared")
        mask = self.layout.user_mask if allowed is None else allowed & self.layout.user_mask
        found = 0
        for bit in bits(mask):
            contents = self.memory(bit)
            if contents is not None and not is_initial(bit, contents):
                found |= 1 << bit
        mxcsr, _ = effective_mxcsr(self.data, found, Format.STANDARD)
        if mxcsr != MXCSR_INIT:
            found |= 2
        for one, other in self.layout.overlapping(found):
            raise XsaveError(
                f"{bit_name(one)} and {bit_name(other)} share these bytes; ``allowed`` must name one of them",
                offset=self.layout.rows[one].offset,
                section=self.layout.name,
            )
        data = bytearray(self.data)
        struct.pack_into("<Q", data, XSTATE_BV_OFFSET, found)
        return replace(self, data=bytes(data))

    def with_hyperv_quirk(self) -> XsaveArea:
        """Return the area with the XSTATE_BV bits of PASID, CET_U and CET_S that Hyper-V does not set.

        See :mod:`qmigtool.xsave.hyperv`. A standard area, and one that declares all its state, is returned unchanged.
        """
        return replace(self, data=declare_hyperv(self.data, self.layout))

    def compact(
        self,
        layout: Layout | None = None,
        *,
        mask: int | None = None,
        max_size: int | None = None,
        drop: int = 0,
        hyperv_quirk: bool = False,
    ) -> XsaveArea:
        """Return this state as a compacted area of ``layout`` (default: the same layout).

        ``mask`` is XCOMP_BV (default: the user components of ``layout`` and the supervisor components held here),
        ``max_size`` the bytes of the buffer, ``drop`` the components whose loss is allowed. Raises LiveStateError and
        XsaveError as :func:`qmigtool.xsave.convert.convert` does, which also returns the notes.
        """
        result = convert(
            self.data,
            self.layout,
            Format.COMPACTED,
            target=layout,
            mask=mask,
            supervisor=self.supervisor,
            drop=drop,
            max_size=max_size,
            hyperv_quirk=hyperv_quirk,
        )
        return XsaveArea(result.data, layout or self.layout, result.supervisor)

    def expand(
        self,
        layout: Layout | None = None,
        *,
        mask: int | None = None,
        drop: int = 0,
        hyperv_quirk: bool = False,
    ) -> XsaveArea:
        """Return this state as a standard area of ``layout``; supervisor components move to ``supervisor``.

        ``mask`` has the user components that may be in it, like XCR0 (default: those of ``layout``). The other
        arguments are those of :meth:`compact`.
        """
        result = convert(
            self.data,
            self.layout,
            Format.STANDARD,
            target=layout,
            mask=mask,
            supervisor=self.supervisor,
            drop=drop,
            hyperv_quirk=hyperv_quirk,
        )
        return XsaveArea(result.data, layout or self.layout, result.supervisor)

    @property
    def mxcsr(self) -> int:
        """MXCSR after this area is restored (see :func:`qmigtool.xsave.header.effective_mxcsr`)."""
        return effective_mxcsr(self.data, self.xstate_bv, self.format)[0]

    @property
    def mxcsr_mask(self) -> int:
        """MXCSR_MASK at byte 28: information from the CPU that saved the area, not state."""
        return int(struct.unpack_from("<I", self.data, MXCSR_MASK_OFFSET)[0])

    @property
    def fcw(self) -> int:
        """The x87 control word."""
        return self._x87("<H", 0)

    @property
    def fsw(self) -> int:
        """The x87 status word; TOP is bits 13:11."""
        return self._x87("<H", 2)

    @property
    def ftw(self) -> int:
        """The abridged x87 tag byte: bit j is 1 if physical register j is not empty."""
        return self._x87("<B", 4)

    @property
    def fop(self) -> int:
        """The last x87 opcode."""
        return self._x87("<H", 6)

    @property
    def fip(self) -> int:
        """The last x87 instruction pointer (64 bits)."""
        return self._x87("<Q", 8)

    @property
    def fdp(self) -> int:
        """The last x87 data pointer (64 bits)."""
        return self._x87("<Q", 16)

    def st(self, index: int) -> bytes:
        """Return ST(``index``), 10 bytes: 8 of mantissa, then 2 of sign and exponent. Raises UsageError above 7."""
        if not 0 <= index < 8:
            raise UsageError(f"there is no ST({index})", expected="0 to 7")
        start = X87_PIECES[0][1] + 16 * index
        return self.component(0)[start : start + 10]

    def xmm(self, index: int) -> bytes:
        """Return XMM``index``, 16 bytes. Raises UsageError above 15."""
        if not 0 <= index < 16:
            raise UsageError(f"there is no XMM{index} in the SSE component", expected="0 to 15")
        return self.component(1)[16 * index : 16 * index + 16]

    def _x87(self, form: str, offset: int) -> int:
        return int(struct.unpack_from(form, self.component(0), offset)[0])


def _bit(key: int | str) -> int:
    if isinstance(key, int):
        if not 0 <= key < 63:
            raise UsageError(f"there is no state component {key}", expected="0 to 62")
        return key
    return component(key).bit
