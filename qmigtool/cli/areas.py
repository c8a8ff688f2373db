"""``xsave export`` and ``convert``: areas taken out of a stream, and converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from qmigtool import xsave as core
from qmigtool.cli.fitting import (
    AUTO,
    agreed,
    area_layout_option,
    auto_note,
    contradictions,
    force_option,
    own_layout,
    quirk_option,
    the_area_layout_option,
)
from qmigtool.cli.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_json,
    say_error,
    schema_option,
    write_output,
)
from qmigtool.cli.parameters import (
    MAX_AREA,
    MAX_HOLDER,
    format_choice,
    layout_option,
    mask_option,
    number_value,
    read_small,
    register_option,
    size_value,
    split_path,
    target_mask_option,
    the_layout_option,
)
from qmigtool.cli.xsave import ranges, some_vcpus
from qmigtool.errors import LiveStateError, UsageError, XsaveError
from qmigtool.util.text import hexadecimal, printable
from qmigtool.xsave import Format, Layout, XsaveArea
from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import AMX_MASK, AVX512_MASK, AVX_MASK, MPX_MASK, SUPERVISOR_MASK, XCOMP_BV_COMPACTED
from qmigtool.xsave.header import area_format, header
from qmigtool.xsave.holders import FoundArea, find_area
from qmigtool.xsave.holders.elfcore import is_core
from qmigtool.xsave.notes import kvm_amx_note
from qmigtool.xsave.qemu_policy import Policy
from qmigtool.xsave.vendor import check_mxcsr


def read_area(path: str) -> FoundArea:
    """Read an XSAVE area, alone in its file or out of what holds one; ``FILE#N`` chooses of several."""
    file, choice = split_path(path)
    data = read_small(file, MAX_HOLDER, prefix_of=is_core)
    if data.startswith(b"QEVM"):
        raise UsageError(f"{path} is a migration stream, not an XSAVE area", expected="`xsave export` first")
    found = find_area(data, Path(file).name, choice)
    if len(found.data) > MAX_AREA:
        raise UsageError(f"{path} has more than {MAX_AREA} bytes", expected="an XSAVE area")
    return found


@click.command()
@file_argument
@click.option("--vcpu", type=number_value, required=True, metavar="N", help="The vCPU (instance of the cpu section).")
@click.option("--format", "form", type=format_choice, required=True)
@the_layout_option
@click.option("-o", "--output", required=True, metavar="OUT", help='Where to write the area; "-" is stdout.')
@target_mask_option
@mask_option("--drop", default=0, help="Components that may be lost.")
@click.option(
    "--xstate-bv",
    "declared",
    type=click.Choice(["auto", "declared", "recomputed"]),
    default="auto",
    help="Which components count as in use: as the stream declares, or by contents. auto: by contents for TCG.",
)
@accelerator_option
@schema_option
@json_option
def export(
    file: str,
    vcpu: int,
    form: str,
    layout: Layout,
    output: str,
    mask: int | None,
    drop: int,
    declared: str,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Write one vCPU's XSAVE area."""
    with opened(file, accelerator, schema=schema) as stream:
        found = {v.index: v for v in some_vcpus(stream)}
        if vcpu not in found:
            raise UsageError(f"no vCPU {vcpu}", expected=f"one of {ranges(sorted(found))}")
        one = found[vcpu]
        area = one.xsave_area(xstate_bv=declared)
        result = core.convert(
            area.data, area.layout, Format(form), target=layout, mask=mask, supervisor=area.supervisor, drop=drop
        )
        notes = list(result.notes)
        if area.xstate_bv != one.xstate_bv:
            notes.insert(0, f"XSTATE_BV recomputed from the contents: {area.xstate_bv:#x}, declared {one.xstate_bv:#x}")
        elif one.undeclared:
            names = " ".join(core.mask_names(one.undeclared))
            notes.insert(0, f"not declared, so taken as initial although not zero: {names} (see --xstate-bv)")
        if one.device.borrowed is not None:
            notes.append(f"decoded by a schema learned from other streams: {one.device.borrowed}")
        notes += [note for note in core.area_notes(result.data, layout) if note not in notes]
        if form == Format.COMPACTED:
            notes += _mshv_notes(result.data, layout, one.xcr0)
        write_output(output, result.data)
        _report(result, layout, notes, output, as_json=as_json)
        return finish(stream)


def _mshv_notes(data: bytes, layout: Layout, xcr0: int) -> list[str]:
    """Say if MSHV would refuse the mask, and which one it would take."""
    mask = XsaveArea(data, layout).xcomp_bv & ~XCOMP_BV_COMPACTED
    if not mask & ~MSHV_MASK:
        return []
    names = " ".join(core.mask_names(mask & ~MSHV_MASK))
    return [
        f"MSHV's XFEM register has no bit for {names}: for MSHV give --mask {mask & MSHV_MASK:#x} "
        f"(the guest's XCR0 is {xcr0:#x})"
    ]


def _report(result: core.Result, layout: Layout, notes: Sequence[str], output: str, *, as_json: bool) -> None:
    """Say what a conversion by ``strict`` has written."""
    beside = {core.mask_names(1 << bit)[0]: contents.hex() for bit, contents in result.supervisor.items()}
    document = _document(result.data, layout, notes)
    _say(document | {"dropped": list(core.mask_names(result.dropped)), "msrs": beside}, output, as_json=as_json)


def _document(data: bytes, layout: Layout, notes: Sequence[str]) -> dict[str, Any]:
    """Return the facts about bytes that were written: from their header alone, for QEMU's may be no legal area."""
    xstate_bv, xcomp_bv = header(data)
    return {
        "size": len(data),
        "format": area_format(data).value,
        "layout": layout.name,
        "xstate_bv": hexadecimal(xstate_bv),
        "xcomp_bv": hexadecimal(xcomp_bv),
        "dropped": [],
        "msrs": {},
        "notes": list(notes),
    }


def _say(document: dict[str, Any], output: str, *, as_json: bool) -> None:
    """Print what was written: JSON on stdout if asked for, else words on stderr."""
    if as_json and output != "-":
        print_json(document)
        return
    words = printable(f"{output}: {document['size']} bytes, {document['format']} format of {document['layout']}")
    say_error(f"{words}, XSTATE_BV {document['xstate_bv']}, XCOMP_BV {document['xcomp_bv']}")
    for note in document["notes"]:
        say_error(f"note: {printable(note)}")
    if document["msrs"]:
        say_error(f"note: not in the area, to be written as MSRs: {' '.join(document['msrs'])}")


@click.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("--to", "form", type=format_choice, required=True)
@the_area_layout_option
@area_layout_option("--source-layout", help="Where IN's components lie, if not as in --layout; auto finds it.")
@click.option(
    "--policy",
    type=click.Choice(["strict", *(policy.value for policy in Policy)]),
    default="strict",
    help="strict: as the architecture says, refusing to lose live state. qemu-*: as QEMU's two functions do: as "
    "posted (qemu-v1), in the 11.1 binaries (the same), in a later source that skips supervisor state (qemu-next).",
)
@target_mask_option
@mask_option("--drop", default=0, help="Components that may be lost (strict).")
@quirk_option
@force_option
@layout_option("--guest-layout", help="The guest's CPUID (qemu-*), by default --layout.")
@register_option("--guest-xcr0", help="The guest's XCR0 features (qemu-*), by default those of --guest-layout.")
@register_option("--xcr0", help="env->xcr0 (qemu-*, to compacted), by default --guest-xcr0.")
@click.option(
    "--size",
    type=size_value,
    metavar="BYTES",
    help="Bytes of the target buffer: a limit (strict), or what QEMU fills (4096).",
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
    """Convert the XSAVE area in the file IN, and write it to OUT.

    IN is an area's bytes, or what holds some: an ELF core (IN#TID, or IN#@N for its Nth area, where it has several),
    JSON of Cloud Hypervisor (IN#N: the vCPU of key or id N, else area N of the document), Xen's save record.

    Exit status 1 where live state would be lost, 63 where --layout auto finds no layout that fits IN, or several that
    read it, or lay out OUT, differently: stderr lists them.

    For the qemu-* policies --layout is the host's CPUID. Their result is what the C function leaves in the buffer,
    also where it fails or where that is no legal area; its return value is "rc" in --json. Exit status 0 if that is
    not negative, else 1; 3, and nothing is written, where C would leave its buffers.
    """
    found = read_area(source)
    data = found.data
    if policy == "strict":
        if guest_layout is not None or guest_xcr0 is not None or xcr0 is not None:
            raise UsageError("--guest-layout, --guest-xcr0 and --xcr0 go with a qemu-* policy")
        return _convert_strictly(
            found,
            output,
            Format(form),
            layout,
            source_layout,
            mask,
            drop,
            size,
            quirk=bool(quirk),
            force=force,
            as_json=as_json,
        )
    if mask is not None or drop or source_layout is not None or quirk is not None or force:
        raise UsageError("--mask, --drop, --source-layout, --hyperv-quirk and --force go with the strict policy")
    if not isinstance(layout, Layout):
        raise UsageError("--layout auto goes with the strict policy")
    features = guest_xcr0 if guest_xcr0 is not None else (guest_layout or layout).xcr0_mask
    buffer = 4096 if size is None else size
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
    _say(_document(done.data, layout, notes) | {"rc": done.rc}, output, as_json=as_json)
    return 0 if done.rc >= 0 else 1


def _convert_strictly(
    area: FoundArea,
    output: str,
    form: Format,
    layout: Layout | str,
    source_layout: Layout | str | None,
    mask: int | None,
    drop: int,
    size: int | None,
    *,
    quirk: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Convert an area as the architecture says; refuse one that is not of its layout, or that XRSTOR faults on."""
    data = area.data
    if area.layout is not None and source_layout is None and isinstance(layout, Layout):
        source_layout = AUTO  # its own; --layout is the target's
    source = own_layout(area, source_layout if source_layout is not None else layout)
    if source_layout is not None and not isinstance(layout, Layout):
        raise UsageError("--layout auto finds the layout of IN", expected="--source-layout auto, and --layout by name")
    if mask is None and layout == AUTO:
        # The masks of the layouts that fit differ; what the area itself has is one answer.
        xstate_bv, xcomp_bv = header(data)
        mask = (xstate_bv | xcomp_bv) & ~XCOMP_BV_COMPACTED
        for group in (AVX512_MASK | AVX_MASK, AMX_MASK, MPX_MASK):
            mask |= group if mask & group & ~AVX_MASK else 0
        if form is Format.STANDARD:
            mask &= ~SUPERVISOR_MASK  # it travels beside a standard area

    def act(one: Layout) -> tuple[core.Result, Layout]:
        target = layout if isinstance(layout, Layout) else one
        misfits = (*contradictions(area, one), *core.misfits(data, one))
        try:
            result = core.convert(
                data, one, form, target=target, mask=mask, drop=drop, max_size=size, hyperv_quirk=quirk
            )
        except LiveStateError:
            raise
        except XsaveError:
            if misfits:  # that is why
                raise LiveStateError(_misfit(one, misfits, None)) from None
            raise
        if misfits and not force:
            raise LiveStateError(_misfit(one, misfits, "--force converts it"))
        check_mxcsr(data, XsaveArea(data, one).mxcsr, one)
        notes = [*misfits, *core.area_notes(data, one, hyperv_quirk=quirk)]
        if form is Format.STANDARD and (amx := kvm_amx_note(header(result.data)[0], len(result.data))):
            notes.append(amx)
        return replace(result, notes=tuple(dict.fromkeys((*notes, *result.notes)))), target

    option = "--layout" if source_layout is None else "--source-layout"
    found = agreed(data, source, act, lambda done: (done[0].data, tuple(sorted(done[0].supervisor.items()))), option)
    result, target = found.result
    write_output(output, result.data)
    notes = [*filter(None, [area.note]), *auto_note(source, found.layouts), *result.notes]
    _report(result, target, notes, output, as_json=as_json)
    return 0


def _misfit(layout: Layout, misfits: Sequence[str], way: str | None) -> str:
    return f"the area is not one of {layout.name}: {'; '.join(misfits)}{f' ({way})' if way else ''}"
