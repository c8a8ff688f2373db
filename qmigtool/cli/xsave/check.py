"""``xsave check``: who would take an area, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from qmigtool import xsave as core
from qmigtool.cli.shared.areas import quirk_option, read_area, the_area_layout_option
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json
from qmigtool.cli.shared.othernames import renamed_option
from qmigtool.cli.shared.output import json_option, say
from qmigtool.cli.shared.parameters import mask_option
from qmigtool.errors import UsageError
from qmigtool.xsave import Format, Layout
from qmigtool.xsave.check import CONSUMERS, TAKES
from qmigtool.xsave.components import EXTENDED_OFFSET, SUPERVISOR_MASK
from qmigtool.xsave.found import agreed, auto_note, contradictions, own_layout
from qmigtool.xsave.header import area_format, header
from qmigtool.xsave.hyperv import declare_hyperv

OTHER_FORMAT = "it takes the other format"


@command(
    "qmigtool xsave export samples/pc-7.2.mig --vcpu 0 --format standard --layout amd-zen4 -o vcpu0.xsave",
    "qmigtool xsave check vcpu0.xsave --layout amd-zen4",
)
@click.argument("area", metavar="AREA")
@the_area_layout_option
@mask_option("--xcr0", help="XCR0 of the CPU that restores the area; by default all user components of the layout.")
@mask_option("--xss", help="IA32_XSS of that CPU; by default all supervisor components of the layout.")
@mask_option("--mxcsr-mask", help="MXCSR_MASK of that CPU; by default that of the layout's vendor (AMD: 0x2ffff).")
@click.option(
    "--consumer",
    "consumers",
    multiple=True,
    metavar="NAME",
    help=f"Check only this consumer (repeatable): {', '.join(CONSUMERS)}.",
)
@renamed_option("--for", "--consumer")
@quirk_option
@json_option
def check(
    area: str,
    layout: Layout | str,
    xcr0: int | None,
    xss: int | None,
    mxcsr_mask: int | None,
    consumers: tuple[str, ...],
    quirk: bool | None,
    as_json: bool,
) -> int:
    """Check which consumers accept an XSAVE area.

    AREA is a file with the bytes of an area, or one that contains areas: an ELF core (AREA#TID, or AREA#@N for its Nth
    area), JSON of Cloud Hypervisor (AREA#N: the vCPU of key or id N, else area N of the document), or Xen's save
    record. By default the consumers of AREA's format are checked: KVM_SET_XSAVE accepts standard areas, XRSTORS, MSHV
    and WHPX compacted ones, XRSTOR both, but no supervisor components in XCOMP_BV.

    Exit status 1 if a consumer that is checked refuses the area, or if AREA cannot be of that layout; 63 if it is not
    an XSAVE area.
    """
    holder = read_area(area)
    data, layout = holder.data, own_layout(holder, layout)
    asked = [name.upper() for name in consumers]
    for name in asked:
        if name not in CONSUMERS:
            near = [known for known in CONSUMERS if known.startswith(name)]
            raise UsageError(f"no consumer {name!r}", expected="one of " + ", ".join(near or CONSUMERS))

    def act(one: Layout) -> tuple[tuple[str, ...], list[core.ConsumerVerdict], list[str]]:
        declared = declare_hyperv(data, one) if quirk and len(data) >= EXTENDED_OFFSET else data
        return (
            (*contradictions(holder, one), *core.misfits(data, one)),
            [
                verdict
                for verdict in core.check_area(declared, one, xcr0, xss, mxcsr_mask=mxcsr_mask)
                if not asked or verdict.consumer in asked
            ],
            core.area_notes(data, one, hyperv_quirk=bool(quirk)),
        )

    unasked = {name: "" for name in CONSUMERS if name not in asked} if asked else _unasked(data)
    takers = [name for name in CONSUMERS if name not in unasked]
    found = agreed(data, layout, act, lambda done: tuple(v.ok for v in done[1] if v.consumer in takers))
    misfits, verdicts, notes = found.result
    notes = [*filter(None, [holder.note]), *auto_note(layout, found.layouts), *notes]
    if as_json:
        fields = ("consumer", "ok", "reasons", "notes")
        print_json(
            {
                "layout": found.layouts[0].name,
                "layouts": [one.name for one in found.layouts],
                "fits": not misfits,
                "misfits": list(misfits),
                "verdicts": [
                    {"asked": verdict.consumer in takers} | {field: getattr(verdict, field) for field in fields}
                    for verdict in verdicts
                ],
                "notes": notes,
            }
        )
    else:
        _print_check(found.layouts[0], misfits, verdicts, notes, unasked)
    return 0 if not misfits and all(verdict.ok for verdict in verdicts if verdict.consumer in takers) else 1


def _print_check(
    layout: Layout,
    misfits: Sequence[str],
    verdicts: Sequence[core.ConsumerVerdict],
    notes: Sequence[str],
    unasked: Mapping[str, str],
) -> None:
    if misfits:
        say(f"the area does not fit {layout.name}:")
        for text in misfits:
            say(f"  - {text}")
    for verdict in verdicts:
        if verdict.consumer in unasked:
            say(f"{verdict.consumer}: not asked, {unasked[verdict.consumer]}")
            continue
        say(f"{verdict.consumer}: {'accepts' if verdict.ok else 'refuses'}")
        for text in (*verdict.reasons, *verdict.notes):
            say(f"  - {text}")
    for note in notes:
        say(f"note: {note}")


def _unasked(data: bytes) -> dict[str, str]:
    """Return the consumers that an area is not for, by its format and its XCOMP_BV, and why."""
    form = Format.STANDARD if len(data) < EXTENDED_OFFSET else area_format(data)
    unasked = {name: OTHER_FORMAT for name, forms in TAKES.items() if form not in forms}
    if form is Format.STANDARD:
        return unasked
    _, xcomp_bv = header(data)
    if supervisor := xcomp_bv & SUPERVISOR_MASK:
        names = " ".join(core.mask_names(supervisor))
        unasked["XRSTOR"] = f"XCOMP_BV has supervisor components ({names}), which only XRSTORS takes"
    return unasked
