"""Devices with which QEMU may end by an assertion or a signal while it loads a stream that it saved itself.

No edit of a stream fixes that, and whether it happens depends on more than the target's reference shows: these devices
are undecided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.preflight.loader.state import Load
    from qmigtool.preflight.target.model import TargetSection

__all__ = ["may_abort", "may_abort_on_block"]

Version = tuple[int, int]


class _Card(NamedTuple):
    """The subsection that a loadable card sends; ``since`` is the first version known to abort without it."""

    subsection: str
    since: Version


ELSEWHERE: Mapping[str, Version] = {"cirrus_vga": (10, 0), "vga": (11, 1)}
"""idstr of a display of isapc -> the first version known to read it into the device's state.

Earlier versions read it over the device object itself: the overwritten memory decides whether QEMU continues (its vmsd
is that of the state inside; hw/display/cirrus_vga_isa.c, hw/display/vga-isa.c). The same display on PCI has a device
path before its name.
"""
POWERED: Mapping[str, _Card] = {"sd-card": _Card("sd-card/ocr-state", (6, 0))}
"""vmsd of an SD card -> the subsection that it sends until it is powered up.

A card on SPI is powered up from reset on. Before QEMU reads such a section it powers the card up, and asserts that it
is not powered up yet (``sd_ocr_powerup`` in hw/sd/sd.c). 5.2 loads such a card, 7.2 to 11.1 abort.
"""
BLOCKS: Mapping[str, Version] = {"sram-as-io": (11, 0)}
"""RAM block -> the first version that is killed by a signal when it loads the block: machines of AVR (11.1)."""


def may_abort(load: Load, section: TargetSection | None, idstr: str, label: str) -> None:
    """Doubt a device whose loading may abort the target."""
    fixed = ELSEWHERE.get(idstr)
    if fixed is not None and not load.since(fixed):
        what = "reads it over the device object, and may abort: the target itself decides it"
        load.doubt(f"QEMU before {'.'.join(map(str, fixed))} {what}", label)
    own = section.description if section is not None else None
    card = POWERED.get(own.name) if own is not None else None
    if own is None or card is None or any(sub.name == card.subsection for sub in own.subsections):
        return
    if load.since(card.since):
        what = "QEMU aborts if the card is powered up before loading; the target itself decides it"
        load.doubt(f"the target's card does not send {card.subsection}: {what}", label)


def may_abort_on_block(load: Load, name: str) -> None:
    """Doubt a RAM block whose loading may end the target."""
    since = BLOCKS.get(name)
    if since is not None and load.since(since):
        load.doubt("QEMU may be killed by a signal while loading it: the target itself decides it", f"RAM block {name}")
