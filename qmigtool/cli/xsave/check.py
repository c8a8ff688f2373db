"""``xsave check``: who would take an area, and why not."""

from __future__ import annotations

import click

from qmigtool.cli.shared.areas import quirk_option, read_area, the_area_layout_option
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json
from qmigtool.cli.shared.othernames import renamed_option
from qmigtool.cli.shared.output import json_option, say
from qmigtool.cli.shared.parameters import mask_option
from qmigtool.xsave import Layout
from qmigtool.xsave.areacheck import AreaCheck, check_found
from qmigtool.xsave.check import CONSUMERS


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
    found = check_found(
        read_area(area), layout, xcr0, xss, mxcsr_mask=mxcsr_mask, consumers=consumers, quirk=bool(quirk)
    )
    if as_json:
        print_json(found.as_dict())
    else:
        _print_check(found)
    return found.status


def _print_check(found: AreaCheck) -> None:
    if found.misfits:
        say(f"the area does not fit {found.layouts[0].name}:")
        for text in found.misfits:
            say(f"  - {text}")
    for verdict in found.verdicts:
        if verdict.consumer in found.unasked:
            say(f"{verdict.consumer}: not asked, {found.unasked[verdict.consumer]}")
            continue
        say(f"{verdict.consumer}: {'accepts' if verdict.ok else 'refuses'}")
        for text in (*verdict.reasons, *verdict.notes):
            say(f"  - {text}")
    for note in found.notes:
        say(f"note: {note}")
