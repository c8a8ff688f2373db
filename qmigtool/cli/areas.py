"""``xsave export``, ``convert`` and ``check``: areas taken out of a stream, converted, judged."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from qmigtool import xsave as core
from qmigtool.cli.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_json,
    schema_option,
    write_output,
)
from qmigtool.cli.parameters import (
    MAX_AREA,
    SIZE,
    format_choice,
    layout_option,
    mask_option,
    read_small,
    target_mask_option,
    the_layout_option,
)
from qmigtool.cli.xsave import ranges, some_vcpus
from qmigtool.errors import UsageError
from qmigtool.plaintext import hexadecimal, printable
from qmigtool.xsave import Format, Layout, XsaveArea
from qmigtool.xsave.check import MSHV_MASK


def read_area(path: str) -> bytes:
    """Read an XSAVE area, and tell a stream from one."""
    data = read_small(path, MAX_AREA)
    if data.startswith(b"QEVM"):
        raise UsageError(f"{path} is a migration stream, not an XSAVE area", expected="`xsave export` first")
    return data


@click.command()
@file_argument
@click.option("--vcpu", type=int, required=True, metavar="N", help="The vCPU (instance of the cpu section).")
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
    # Forward: a file that was written over a longer one has the end of another VM, and these bytes go into a VM.
    with opened(file, accelerator, schema=schema, forward=True) as stream:
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
        if stream.accelerator.name == "unknown" and one.live & 1:
            raise UsageError(
                "nothing in the stream tells who saved it, and live x87 registers are in another order from TCG",
                expected="--accelerator tcg, kvm, mshv, whpx or hvf",
            )
        if form == Format.COMPACTED:
            notes += _mshv_notes(result.data, layout, one.xcr0)
        write_output(output, result.data)
        _report(result.data, layout, result.supervisor, result.dropped, notes, output, as_json)
        return finish(stream)


def _mshv_notes(data: bytes, layout: Layout, xcr0: int) -> list[str]:
    """Say if MSHV would refuse the mask, and which one it would take."""
    mask = XsaveArea(data, layout).xcomp_bv & ~(1 << 63)
    if not mask & ~MSHV_MASK:
        return []
    names = " ".join(core.mask_names(mask & ~MSHV_MASK))
    return [
        f"MSHV's XFEM register has no bit for {names}: for MSHV give --mask {mask & MSHV_MASK:#x} "
        f"(the guest's XCR0 is {xcr0:#x})"
    ]


def _report(
    data: bytes,
    layout: Layout,
    beside: Any,
    dropped: int,
    notes: Sequence[str],
    output: str,
    as_json: bool,
    **more: Any,
) -> None:
    """Say what was written: JSON on stdout if asked for, and words on stderr."""
    area = XsaveArea(data, layout)
    document = {
        "size": len(data),
        "format": area.format.value,
        "layout": layout.name,
        "xstate_bv": hexadecimal(area.xstate_bv),
        "xcomp_bv": hexadecimal(area.xcomp_bv),
        "dropped": list(core.mask_names(dropped)),
        "msrs": {core.mask_names(1 << bit)[0]: contents.hex() for bit, contents in beside.items()},
        "notes": list(notes),
        **more,
    }
    if as_json and output != "-":
        print_json(document)
        return
    words = printable(f"{output}: {len(data)} bytes, {area.format} format of {layout.name}")
    print(f"{words}, XSTATE_BV {area.xstate_bv:#x}, XCOMP_BV {area.xcomp_bv:#x}", file=sys.stderr)
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if beside:
        names = " ".join(core.mask_names(sum(1 << bit for bit in beside)))
        print(f"note: not in the area, to be written as MSRs: {names}", file=sys.stderr)


@click.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("--to", "form", type=format_choice, required=True)
@the_layout_option
@layout_option("--source-layout", help="Where IN's components lie, if not as in --layout.")
@click.option(
    "--policy",
    type=click.Choice(["strict", "qemu-v1", "qemu-11.1"]),
    default="strict",
    help="strict: as the architecture says, refusing to lose live state. qemu-*: as QEMU's two functions do.",
)
@target_mask_option
@mask_option("--drop", default=0, help="Components that may be lost (strict).")
@layout_option("--guest-layout", help="The guest's CPUID (qemu-*), by default --layout.")
@mask_option(
    "--guest-xcr0",
    help="The guest's XCR0 features (qemu-*), by default those of --guest-layout.",
)
@mask_option("--xcr0", help="env->xcr0 (qemu-*, to compacted), by default --guest-xcr0.")
@click.option("--size", type=SIZE, help="Bytes of the target buffer: a limit (strict), or what QEMU fills (4096).")
@json_option
def convert(
    source: str,
    output: str,
    form: str,
    layout: Layout,
    source_layout: Layout | None,
    policy: str,
    mask: int | None,
    drop: int,
    guest_layout: Layout | None,
    guest_xcr0: int | None,
    xcr0: int | None,
    size: int | None,
    as_json: bool,
) -> int:
    """Convert the XSAVE area in the file IN, and write it to OUT.

    For the qemu-* policies --layout is the host's CPUID. Their result is what the C function leaves in the buffer,
    also where it fails; its return value is "rc" in --json.
    """
    data = read_area(source)
    if policy == "strict":
        if guest_layout is not None or guest_xcr0 is not None or xcr0 is not None:
            raise UsageError("--guest-layout, --guest-xcr0 and --xcr0 go with a qemu-* policy")
        result = core.convert(
            data, source_layout or layout, Format(form), target=layout, mask=mask, drop=drop, max_size=size
        )
        write_output(output, result.data)
        _report(result.data, layout, result.supervisor, result.dropped, result.notes, output, as_json)
        return 0
    if mask is not None or drop or source_layout is not None:
        raise UsageError("--mask, --drop and --source-layout go with the strict policy")
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
    _report(done.data, layout, {}, 0, [f"the C function returns {done.rc}"], output, as_json, rc=done.rc)
    return 0 if done.rc >= 0 else 1


@click.command()
@click.argument("area", metavar="AREA")
@the_layout_option
@mask_option("--xcr0", help="XCR0 where the area would be restored, by default all of the layout.")
@mask_option("--xss", default=0, help="IA32_XSS there.")
@mask_option("--mxcsr-mask", default=0xFFFF, help="MXCSR bits of that CPU (AMD: 0x2ffff).")
@click.option(
    "--for",
    "consumers",
    multiple=True,
    metavar="NAME",
    help="Judge for this consumer only (repeatable): XRSTOR, XRSTORS, KVM_SET_XSAVE, MSHV, WHPX.",
)
@json_option
def check(
    area: str,
    layout: Layout,
    xcr0: int | None,
    xss: int,
    mxcsr_mask: int,
    consumers: tuple[str, ...],
    as_json: bool,
) -> int:
    """Say who would take the XSAVE area in the file AREA, and why not.

    Exits 1 if one that is asked refuses; by default those are asked that take AREA's format: KVM takes standard
    areas, XRSTORS, MSHV and WHPX compacted ones, XRSTOR both.
    """
    data = read_area(area)
    verdicts = core.check_area(data, layout, xcr0, xss, mxcsr_mask=mxcsr_mask)
    names = [verdict.consumer for verdict in verdicts]
    asked = [name.upper() for name in consumers]
    for name in asked:
        if name not in names:
            near = [known for known in names if known.startswith(name)]
            raise UsageError(f"no consumer {name!r}", expected="one of " + ", ".join(near or names))
    verdicts = [verdict for verdict in verdicts if not asked or verdict.consumer in asked]
    asked = asked or _takers(data)
    if as_json:
        fields = ("consumer", "ok", "reasons", "notes")
        found = [{field: getattr(verdict, field) for field in fields} for verdict in verdicts]
        print_json({"verdicts": found})
    else:
        for verdict in verdicts:
            if verdict.consumer not in asked:
                print(f"{verdict.consumer}: not asked, it takes the other format")
                continue
            print(f"{verdict.consumer}: {'accepts' if verdict.ok else 'refuses'}")
            for text in (*verdict.reasons, *verdict.notes):
                print(f"  - {text}")
    return 0 if all(verdict.ok for verdict in verdicts if verdict.consumer in asked) else 1


def _takers(data: bytes) -> list[str]:
    compacted = len(data) >= 528 and data[527] & 0x80
    return ["XRSTOR", "XRSTORS", "MSHV", "WHPX"] if compacted else ["XRSTOR", "KVM_SET_XSAVE"]
