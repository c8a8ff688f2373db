"""``xsave``: the extended state of the vCPUs, as a table, as bytes, converted, judged; and the layouts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qmigtool import tables
from qmigtool import xsave as core
from qmigtool.cli.layoutdraw import draw
from qmigtool.cli.output import (
    accelerator_option,
    csv_option,
    file_argument,
    finish,
    hexadecimal,
    json_option,
    on_terminal,
    opened,
    print_cells,
    print_csv,
    print_json,
    printable,
    problems_json,
    say,
    schema_option,
    terminal_width,
    write_output,
)
from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.xsave import Format, Layout, XsaveArea
from qmigtool.xsave.check import MSHV_MASK

if TYPE_CHECKING:
    from qmigtool.cpu_x86 import VCpu
    from qmigtool.stream import Stream

F = TypeVar("F", bound=Callable[..., Any])

MAX_AREA = 1 << 20  # an area with everything known has 12 KiB
MAX_DUMP = 16 << 20  # an InstLatx64 dump of 192 CPUs has 2.6 MB


def _layout(value: str | Layout) -> Layout:
    """Return a built-in layout, or that of a file with a CPUID dump (``cpuid -r`` or InstLatx64)."""
    if isinstance(value, Layout):
        return value
    if value.lower() in core.layout_names() or not Path(value).exists():
        return core.layout(value)
    return core.parse_cpuid_dump(_read(value, MAX_DUMP).decode("utf-8", "replace"), Path(value).name)


def _mask(value: str | int) -> int:
    """Return a mask of components: a number, or names as in ``x87,sse,avx``."""
    return value if isinstance(value, int) else core.parse_mask(value)


SIZE = click.IntRange(0, MAX_AREA)


def layout_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes a layout."""
    return click.option(*names, type=_layout, metavar="LAYOUT", **more)


def mask_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes a mask of components."""
    return click.option(*names, type=_mask, metavar="MASK", **more)


the_layout_option = layout_option(
    "--layout", required=True, help="A built-in layout (see `xsave layouts`) or a file with a CPUID dump."
)
target_mask_option = mask_option(
    "--mask", help="Components of the target (XCOMP_BV), by default all user ones of the layout."
)
format_choice = click.Choice([form.value for form in Format])


def _read(path: str, most: int) -> bytes:
    """Read a small file, or stdin, whole."""
    if path == "-":
        data = sys.stdin.buffer.read(most + 1)
    else:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    if len(data) > most:
        raise UsageError(f"{path} has more than {most} bytes", expected="an XSAVE area or a CPUID dump")
    return data


def _read_area(path: str) -> bytes:
    """Read an XSAVE area, and tell a stream from one."""
    data = _read(path, MAX_AREA)
    if data.startswith(b"QEVM"):
        raise UsageError(f"{path} is a migration stream, not an XSAVE area", expected="`xsave export` first")
    return data


@click.group()
def xsave() -> None:
    """The extended state of the vCPUs: shown, extracted, converted, judged."""


# -- table -----------------------------------------------------------------------------------------------------------


@xsave.command("table")
@file_argument
@layout_option("--layout", help="Give sizes and offsets in this layout (JSON and CSV).")
@accelerator_option
@schema_option
@csv_option
@json_option
def table(
    file: str, layout: Layout | None, accelerator: str | None, schema: str | None, as_csv: bool, as_json: bool
) -> int:
    """Show which components each vCPU of FILE has.

    e: enabled in XCR0 (or IA32_XSS); d: declared in XSTATE_BV; c: carried, the stream holds its fields; l: live, the
    contents differ from the initial configuration. The four can disagree: a TCG stream declares nothing.
    """
    with opened(file, accelerator, schema=schema) as stream:
        vcpus = _vcpus(stream)
        rows = tables.xsave_components.rows(stream, layout)
        if as_json:
            print_json({**_table_json(stream, vcpus, list(rows)), **problems_json(stream)})
        elif as_csv:
            print_csv(tables.xsave_components.columns, rows)
        else:
            _print_components(stream, vcpus)
        return finish(stream)


def _vcpus(stream: Stream) -> Sequence[VCpu]:
    vcpus = stream.vcpus
    if not vcpus and not stream.problems:
        raise UnsupportedError("XSAVE state of a machine that is not x86", "no x86 vCPU in this stream")
    return vcpus


def _table_json(stream: Stream, vcpus: Sequence[VCpu], rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    names = [column.name for column in tables.xsave_components.columns][1:]
    components: dict[int, list[dict[str, Any]]] = {}
    for index, *values in rows:
        components.setdefault(index, []).append(dict(zip(names, values, strict=True)))
    return {
        "accelerator": {"name": stream.accelerator.name, "evidence": list(stream.accelerator.evidence)},
        "borrowed_schema": stream.borrowed,
        "vcpus": [
            {
                "vcpu": vcpu.index,
                "xcr0": hexadecimal(vcpu.xcr0),
                "xss": hexadecimal(vcpu.xss),
                "xstate_bv": hexadecimal(vcpu.xstate_bv),
                "xstate_bv_recomputed": hexadecimal(vcpu.effective_xstate_bv("recomputed")),
                "mxcsr": hexadecimal(vcpu.mxcsr),
                "components": components.get(vcpu.index, []),
            }
            for vcpu in vcpus
        ],
    }


def _print_components(stream: Stream, vcpus: Sequence[VCpu]) -> None:
    shown = 0
    for vcpu in vcpus:
        shown |= vcpu.enabled | vcpu.xstate_bv | vcpu.carried | vcpu.live
    shown_bits = list(core.bits(shown))
    lines = []
    for masks, run in groupby(vcpus, key=lambda v: (v.enabled, v.xstate_bv, v.carried, v.live)):
        indexes = [vcpu.index for vcpu in run]
        cells = [_letters(masks, bit) for bit in shown_bits]
        lines.append([_ranges(indexes), f"{masks[0]:#x}", f"{masks[1]:#x}", f"{masks[3]:#x}", *cells])
    head = ["vCPU", "XCR0", "XSTATE_BV", "live", *core.mask_names(shown)]
    print_cells(head, lines, [False, True, True, True, *(False for _ in shown_bits)])
    print()
    say("e enabled in XCR0   d declared in XSTATE_BV   c carried by the stream   l live (not initial)")
    if stream.accelerator.given:
        say(f"saved by {stream.accelerator.name} (given)")
    else:
        say(f"saved by {stream.accelerator.name} (inferred: {printable(stream.accelerator.evidence[0])})")
    if stream.borrowed is not None:
        say(f"no vmdesc: decoded by a schema learned from other streams ({printable(stream.borrowed)})")
    for undeclared, run in groupby(vcpus, key=lambda v: v.undeclared):
        if undeclared:
            which = _ranges([vcpu.index for vcpu in run])
            names = " ".join(core.mask_names(undeclared))
            say(f"vCPU {which}: live but not declared: {names}")


def _letters(masks: tuple[int, int, int, int], bit: int) -> str:
    return "".join(letter if mask >> bit & 1 else "-" for letter, mask in zip("edcl", masks, strict=True))


def _ranges(indexes: Iterable[int]) -> str:
    """Write numbers as in ``0-3,7``."""
    parts = []
    for _, run in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(parts)


# -- export and convert ----------------------------------------------------------------------------------------------


@xsave.command()
@file_argument
@click.option("--vcpu", type=int, required=True, metavar="N", help="The vCPU (instance of the cpu section).")
@click.option("--format", "form", type=format_choice, required=True)
@the_layout_option
@click.option("-o", "--output", required=True, metavar="OUT", help='Where to write the area; "-" is stdout.')
@click.option(
    "--mask",
    type=_mask,
    metavar="MASK",
    help="Components of the target (XCOMP_BV), by default all user ones of the layout.",
)
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
        found = {v.index: v for v in _vcpus(stream)}
        if vcpu not in found:
            raise UsageError(f"no vCPU {vcpu}", expected=f"one of {_ranges(sorted(found))}")
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
        write_output(output, result.data, file)
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


@xsave.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("--to", "form", type=format_choice, required=True)
@the_layout_option
@click.option(
    "--source-layout", type=_layout, metavar="LAYOUT", help="Where IN's components lie, if not as in --layout."
)
@click.option(
    "--policy",
    type=click.Choice(["strict", "qemu-v1", "qemu-11.1"]),
    default="strict",
    help="strict: as the architecture says, refusing to lose live state. qemu-*: as QEMU's two functions do.",
)
@click.option(
    "--mask",
    type=_mask,
    metavar="MASK",
    help="Components of the target (XCOMP_BV), by default all user ones of the layout.",
)
@mask_option("--drop", default=0, help="Components that may be lost (strict).")
@layout_option("--guest-layout", help="The guest's CPUID (qemu-*), by default --layout.")
@click.option(
    "--guest-xcr0",
    type=_mask,
    metavar="MASK",
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
    data = _read_area(source)
    if policy == "strict":
        if guest_layout is not None or guest_xcr0 is not None or xcr0 is not None:
            raise UsageError("--guest-layout, --guest-xcr0 and --xcr0 go with a qemu-* policy")
        result = core.convert(
            data, source_layout or layout, Format(form), target=layout, mask=mask, drop=drop, max_size=size
        )
        write_output(output, result.data, source)
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
    write_output(output, done.data, source)
    _report(done.data, layout, {}, 0, [f"the C function returns {done.rc}"], output, as_json, rc=done.rc)
    return 0 if done.rc >= 0 else 1


# -- check -----------------------------------------------------------------------------------------------------------


@xsave.command()
@click.argument("area", metavar="AREA")
@the_layout_option
@click.option(
    "--xcr0", type=_mask, metavar="MASK", help="XCR0 where the area would be restored, by default all of the layout."
)
@mask_option("--xss", default=0, help="IA32_XSS there.")
@click.option("--mxcsr-mask", type=_mask, default=0xFFFF, metavar="MASK", help="MXCSR bits of that CPU (AMD: 0x2ffff).")
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
    data = _read_area(area)
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


# -- layouts ---------------------------------------------------------------------------------------------------------


@xsave.command()
@click.argument("name", required=False, type=_layout, metavar="[NAME]")
@click.option(
    "--mask",
    type=_mask,
    metavar="MASK",
    help="Components of the areas to draw, by default all user ones of the layout.",
)
@csv_option
@json_option
def layouts(name: Layout | None, mask: int | None, as_csv: bool, as_json: bool) -> int:
    """List the layouts, or draw one: standard beside compacted format.

    NAME is a built-in layout or a file with a CPUID dump.
    """
    which = [core.layout(one) for one in core.layout_names()] if name is None else [name]
    if as_csv:
        print_csv(tables.layouts.columns, tables.layouts.rows(*which))
    elif as_json:
        print_json({"layouts": [_layout_json(one, mask) for one in which]})
    elif name is None:
        head = ["name", "XCR0", "IA32_XSS", "standard", "compacted", "CPU or guest"]
        lines = [
            [
                one.name,
                f"{one.user_mask:#x}",
                f"{one.supervisor_mask:#x}",
                str(one.standard_size()),
                str(one.compacted_size(core.default_mask(one, Format.COMPACTED))),
                one.title,
            ]
            for one in which
        ]
        print_cells(head, lines, [False, True, True, True, True, False])
        print()
        say("standard, compacted: bytes of an area with all user components")
    else:
        shown = core.default_mask(name, Format.COMPACTED) if mask is None else mask
        print(draw(name, shown, terminal_width() if on_terminal() else None))
    return 0


def _layout_json(one: Layout, mask: int | None) -> dict[str, Any]:
    if mask is None:
        mask = core.default_mask(one, Format.COMPACTED)
    compacted = one.compacted_offsets(mask)
    return {
        "name": one.name,
        "title": one.title,
        "source": one.source,
        "xcr0_mask": hexadecimal(one.xcr0_mask),
        "xss_mask": hexadecimal(one.xss_mask),
        "mask": hexadecimal(mask),
        "standard_size": one.standard_size(mask & one.user_mask),
        "compacted_size": one.compacted_size(mask),
        "components": [
            {
                "bit": bit,
                "name": core.mask_names(1 << bit)[0],
                "supervisor": row.supervisor,
                "size": row.size,
                "standard_offset": None if row.supervisor else row.offset,
                "compacted_offset": compacted.get(bit),
                "align64": row.align64,
            }
            for bit, row in sorted(one.rows.items())
        ],
        "absent": {core.mask_names(1 << bit)[0]: reason for bit, reason in one.absent.items()},
    }
