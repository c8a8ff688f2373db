"""The decoded leaf 0xD of a VirtualBox log, where the log does not have the raw tables.

::

    Processor Extended State Enumeration (leaf 0xd):
                       Valid XCR0 bits, guest: 0x00000000`00000007 ( x87 SSE YMM_Hi128 )
                        Valid XCR0 bits, host: 0x00000000`0000001f ( x87 SSE YMM_Hi128 BNDREGS BNDCSR )
      State #2, guest: off=0x0240, cb=0x0100 IA32_XSS-bit -- YMM_Hi128
      State #3, host:  off=0x03c0, cb=0x0040 IA32_XSS-bit -- BNDREGS

Two views, guest and host. VirtualBox inverts ECX[0] (it prints every user component as an "IA32_XSS-bit"),
so that word is not read: which components are supervisor components is architectural.
"""

from __future__ import annotations

import re

from qmigtool.xsave.cputext.model import (
    XSTATE_LEAF,
    CpuidBlock,
    CpuidLine,
    Leaves,
    component_row,
    features_row,
    mask_row,
    wanted,
)

_VIEWS = r", +(?P<view>[Gg]uest|[Hh]ost)\b:?"
_LINE = re.compile(
    rf"\bXSAVE area cur/max size by XCR0{_VIEWS} *0x(?P<size>[0-9a-f]{{1,8}})/0x(?P<largest>[0-9a-f]{{1,8}})"
    rf"|\bValid (?P<register>XCR0|IA32_XSS) bits{_VIEWS.replace('view', 'mask_view')} *"
    r"0x(?P<high>[0-9a-f]{8})`(?P<low>[0-9a-f]{8})"
    rf"|\bXSAVE features{_VIEWS.replace('view', 'features_view')}(?P<features>[^\n]*)"
    rf"|\bState #(?P<bit>\d{{1,2}}){_VIEWS.replace('view', 'state_view')} *"
    r"off=0x(?P<offset>[0-9a-f]{1,8}), cb=0x(?P<bytes>[0-9a-f]{1,8})"
)
_FEATURES = ("XSAVEOPT", "XSAVEC", "XGETBC1", "XSAVES")
"""VirtualBox's names of CPUID.(0DH,1).EAX, from bit 0 up (XGETBV1 is spelled so)."""


class _View:
    def __init__(self) -> None:
        self.masks = {"XCR0": 0, "IA32_XSS": 0}
        self.sizes = (0, 0)
        self.features = 0
        self.states: dict[int, tuple[int, int]] = {}
        self.at: dict[int, int] = {}


def read_virtualbox(text: str, leaves: Leaves) -> list[CpuidBlock]:
    """Return the guest's block and the host's, if the text has any line of this format with an XCR0 mask."""
    if not wanted(XSTATE_LEAF, leaves) or "Valid XCR0 bits" not in text:
        return []
    views = {"guest": _View(), "host": _View()}
    for match in _LINE.finditer(text):
        name = match["view"] or match["mask_view"] or match["features_view"] or match["state_view"]
        view = views[name.lower()]
        if match["size"] is not None:
            view.sizes = int(match["size"], 16), int(match["largest"], 16)
        elif match["register"] is not None:
            view.masks[match["register"]] = int(match["high"] + match["low"], 16)
            view.at.setdefault(0, match.start())
        elif match["features"] is not None:
            words = match["features"].replace("XGETBV1", "XGETBC1").split()
            view.features = sum(1 << bit for bit, one in enumerate(_FEATURES) if one in words)
        else:
            view.states[int(match["bit"])] = int(match["bytes"], 16), int(match["offset"], 16)
            view.at[int(match["bit"])] = match.start()
    return [_block(name, view, views["guest"]) for name, view in views.items() if view.masks["XCR0"]]


def _block(name: str, view: _View, guest: _View) -> CpuidBlock:
    block = CpuidBlock(None, view=name, form="VirtualBox log")
    rows = {0: mask_row(view.masks["XCR0"], *view.sizes), 1: features_row(view.features, 0, view.masks["IA32_XSS"])}
    # For the guest's components, its rows are those of the host.
    states = {**guest.states, **view.states}
    wanted_bits = view.masks["XCR0"] | view.masks["IA32_XSS"]
    rows |= {bit: component_row(bit, *state) for bit, state in states.items() if bit > 1 and wanted_bits >> bit & 1}
    block.lines += [
        CpuidLine(XSTATE_LEAF, subleaf, True, row, view.at.get(subleaf, view.at.get(0, 0)))
        for subleaf, row in sorted(rows.items())
    ]
    return block
