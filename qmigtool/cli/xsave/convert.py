"""``xsave convert``: an area converted, without a stream."""

from __future__ import annotations

import click

from qmigtool import xsave as core
from qmigtool.cli.shared.areas import (
    area_layout_option,
    document_of,
    force_option,
    quirk_option,
    read_area,
    report,
    say_written,
    the_area_layout_option,
)
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.output import json_option, write_output
from qmigtool.cli.shared.parameters import (
    format_choice,
    layout_option,
    mask_option,
    register_option,
    size_value,
    target_mask_option,
)
from qmigtool.errors import UsageError
from qmigtool.xsave import Format, Layout
from qmigtool.xsave.components import PAGE_SIZE
from qmigtool.xsave.found import convert_found
from qmigtool.xsave.qemu_policy import QemuPolicy


@command(
    "qmigtool xsave export samples/pc-7.2.mig --vcpu 0 --format standard --layout amd-zen4 -o vcpu0.xsave",
    "qmigtool xsave convert vcpu0.xsave compacted.xsave --to compacted --layout amd-zen4",
    headings={
        "Conversion": ("--to", "--layout", "--source-layout", "--policy", "--mask", "--size"),
        "Policy strict": ("--drop", "--hyperv-quirk", "--force"),
        "Policies qemu-*": ("--guest-layout", "--guest-xcr0", "--xcr0"),
    },
)
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("--to", "form", type=format_choice, required=True, help="The format of OUT.")
@the_area_layout_option
@area_layout_option("--source-layout", help="The layout of IN, if it is not --layout; auto finds it.")
@click.option(
    "--policy",
    type=click.Choice(["strict", *(policy.value for policy in QemuPolicy)]),
    default="strict",
    show_default=True,
    help="strict follows the architecture and refuses to lose live state. qemu-* do what QEMU's two functions do: as "
    "posted (qemu-v1), in 11.1 (the same), and in a later source that skips supervisor state (qemu-next).",
)
@target_mask_option
@mask_option("--drop", default=0, help="Components that may be lost.")
@quirk_option
@force_option
@layout_option("--guest-layout", help="The guest's CPUID; by default --layout.")
@register_option("--guest-xcr0", help="The guest's XCR0 features; by default those of --guest-layout.")
@register_option("--xcr0", help="env->xcr0, for --to compacted; by default --guest-xcr0.")
@click.option(
    "--size",
    type=size_value,
    metavar="BYTES",
    help="Size of the target buffer: the maximum (strict), or what QEMU fills (4096).",
)
@json_option
def convert(
    source: str,
    output: str,
    form: str,
    layout: Layout | str,
    source_layout: Layout | str | None,
    policy: str,
    mask: int | None,
    drop: int,
    quirk: bool | None,
    force: bool,
    guest_layout: Layout | None,
    guest_xcr0: int | None,
    xcr0: int | None,
    size: int | None,
    as_json: bool,
) -> int:
    """Convert an XSAVE area, standard or compacted.

    IN is a file with the bytes of an area, or one that contains areas: an ELF core (IN#TID, or IN#@N for its Nth area),
    JSON of Cloud Hypervisor (IN#N: the vCPU of key or id N, else area N of the document), or Xen's save record.

    Exit status 1 where live state would be lost; 63 where --layout auto finds no layout that fits IN, or several that
    read it, or lay out OUT, differently (stderr lists them).

    For the qemu-* policies --layout is the host's CPUID, and OUT is what the C function leaves in the buffer, even
    where it fails or where that is not a valid area; --json has its return value as "rc". Exit status 0 if that is not
    negative, else 1; 3, without output, where the C function would access memory outside its buffers.
    """
    found = read_area(source)
    data = found.data
    if policy == "strict":
        if guest_layout is not None or guest_xcr0 is not None or xcr0 is not None:
            raise UsageError("--guest-layout, --guest-xcr0 and --xcr0 are for a qemu-* policy")
        result, target = convert_found(
            found,
            Format(form),
            layout,
            source_layout,
            mask,
            drop,
            size,
            quirk=bool(quirk),
            force=force,
        )
        write_output(output, result.data)
        report(result, target, result.notes, output, as_json=as_json)
        return 0
    if mask is not None or drop or source_layout is not None or quirk is not None or force:
        raise UsageError("--mask, --drop, --source-layout, --hyperv-quirk and --force are for the strict policy")
    if not isinstance(layout, Layout):
        raise UsageError("--layout auto is for the strict policy")
    features = guest_xcr0 if guest_xcr0 is not None else (guest_layout or layout).xcr0_mask
    buffer = PAGE_SIZE if size is None else size
    if form == Format.COMPACTED:
        done = core.compact_xsave_area(
            data,
            host=layout,
            guest_xcr0=features,
            xcr0=features if xcr0 is None else xcr0,
            buflen=buffer,
            policy=policy,
        )
    else:
        done = core.decompact_xsave_area(
            data, host=layout, guest=guest_layout, guest_xcr0=features, xsave_buf_len=buffer, policy=policy
        )
    write_output(output, done.data)
    notes = [f"the C function returns {done.rc}", *filter(None, [found.note])]
    say_written(document_of(done.data, layout, notes) | {"rc": done.rc}, output, as_json=as_json)
    return 0 if done.rc >= 0 else 1
