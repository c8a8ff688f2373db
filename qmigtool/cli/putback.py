"""``xsave import`` and ``mshv``: state that was taken out of a stream, put back into it."""

from __future__ import annotations

from pathlib import Path

import click

from qmigtool.cli.areas import read_area
from qmigtool.cli.fitting import (
    agreed,
    auto_note,
    contradictions,
    force_option,
    meaning,
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
    problems_json,
    remember_inputs,
    say_error,
    schema_option,
)
from qmigtool.cli.parameters import mask_option, number_value, size_value, the_layout_option
from qmigtool.cli.rewriting import need_output, write_edited
from qmigtool.errors import LiveStateError, UsageError, XsaveError
from qmigtool.rewrite import Rewriter, bundle
from qmigtool.util.text import printable
from qmigtool.xsave import Layout, XsaveArea, impossible_xcr0

output_option = click.option("-o", "--output", metavar="OUT", help="Where to write; never FILE itself.")
lossy_option = click.option(
    "--lossy", is_flag=True, help="Drop live state that no field of a stream takes or XCR0 does not enable, and say it."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")


@click.command("import")
@file_argument
@click.argument("area", metavar="AREA")
@click.option("--vcpu", type=number_value, required=True, metavar="N", help="The vCPU (instance of the cpu section).")
@the_area_layout_option
@mask_option("--xcr0", help="Set the vCPU's XCR0, too.")
@quirk_option
@lossy_option
@force_option
@output_option
@dry_run_option
@accelerator_option
@schema_option
@json_option
def import_area(
    file: str,
    area: str,
    vcpu: int,
    layout: Layout | str,
    xcr0: int | None,
    quirk: bool | None,
    lossy: bool,
    force: bool,
    output: str | None,
    dry_run: bool,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Put the XSAVE area in the file AREA back into FILE: fields, subsections, XSTATE_BV.

    AREA is in standard or compacted format, alone or in what `xsave check` reads; padding behind it does no harm. Only
    what means something else than before changes, so that an exported area that comes back unchanged gives the
    identical stream. Refused with exit status 1: live state that no field of a stream takes (PT, PASID, HDC, UINTR,
    HWP, LWP) or that XCR0 (--xcr0, else the vCPU's) does not enable, unless --lossy; an area that cannot be of that
    layout, unless --force. Exit status 63 where --layout auto finds none that fits, or several that read it
    differently, and where who saved FILE would decide and is not known. --hyperv-quirk is on where MSHV or WHPX saved
    FILE.
    """
    need_output(output, dry_run=dry_run)
    holder = read_area(area)
    data, layout = holder.data, own_layout(holder, layout)
    with opened(file, accelerator, schema=schema) as stream:
        try:
            wrong = contradictions(holder, layout) if isinstance(layout, Layout) else ()
            if wrong and not force:
                raise LiveStateError(f"the area is of another layout: {'; '.join(wrong)} (--force imports it)")
            found = agreed(data, layout, lambda one: XsaveArea(data, one), meaning)
            one = found.layouts[0]
            rewriter = Rewriter(stream, lossy=lossy)
            for note in (*filter(None, [holder.note]), *wrong, *auto_note(layout, found.layouts)):
                rewriter.draft.note(note)
            if xcr0 is not None:
                impossible = impossible_xcr0(xcr0, one)
                if impossible and not force:
                    raise UsageError(impossible[0], expected="an XCR0 of that CPU, or --force")
                rewriter.set_xcr0(vcpu, xcr0)
            rewriter.import_area(vcpu, found.result, force=force, hyperv_quirk=quirk)
        except XsaveError as error:
            if not isinstance(error, LiveStateError):
                error.file = area  # it is at fault, not the stream
            raise
        return write_edited(rewriter, output or "", as_json=as_json, dry_run=dry_run)


@click.group(no_args_is_help=False)
def mshv() -> None:
    """What MSHV takes of the vCPUs' extended state, as a folder: XSAVE areas in whole pages, XCR0 and MSRs."""


@mshv.command("export")
@file_argument
@click.option("-o", "--output", required=True, metavar="DIR", help="A folder that is not there yet.")
@the_layout_option
@mask_option("--mask", help="The partition's XSAVE_STATES, by default what XCR0 has and MSHV can hold.")
@click.option(
    "--buffer-size",
    type=size_value,
    metavar="BYTES",
    help="The partition's buffer (MAX_XSAVE_DATA_SIZE in whole pages), by default the pages that an area needs.",
)
@accelerator_option
@schema_option
@json_option
def export_bundle(
    file: str,
    output: str,
    layout: Layout,
    mask: int | None,
    buffer_size: int | None,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Write what MSHV takes of every vCPU of FILE to the folder DIR: XCR0, MSRs, XSAVE areas, and QEMU's order of them.

    The rest of a vCPU (general, segment and control registers, local APIC, timers, pending events) is not in it.
    """
    with opened(file, accelerator, schema=schema) as stream:
        document = bundle.export_bundle(stream, output, layout, mask, buffer_size=buffer_size)
        if as_json:
            print_json({**document, **problems_json(stream)})
        else:
            for entry in document["vcpus"]:
                print(
                    f"vCPU {entry['vcpu']}: {entry['file']}, {entry['size']} bytes in a buffer of {entry['buffer']}, "
                    f"XSTATE_BV {entry['xstate_bv']}, XCOMP_BV {entry['xcomp_bv']}, XCR0 {entry['xcr0']}, "
                    f"{len(entry['msrs'])} MSRs"
                )
            for note in document["notes"]:
                say_error(f"note: {printable(note)}")
            say_error(f"{printable(output)}: {bundle.MANIFEST} names every file, layout and mask")
        return finish(stream)


@mshv.command("import")
@file_argument
@click.argument("folder", metavar="DIR")
@quirk_option
@lossy_option
@output_option
@dry_run_option
@accelerator_option
@schema_option
@json_option
def import_bundle(
    file: str,
    folder: str,
    quirk: bool | None,
    lossy: bool,
    output: str | None,
    dry_run: bool,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Put the folder DIR, as `mshv export` wrote it or a hypervisor filled it, back into FILE.

    --hyperv-quirk is on unless --no-hyperv-quirk is given.
    """
    need_output(output, dry_run=dry_run)
    with opened(file, accelerator, schema=schema) as stream:
        rewriter = Rewriter(stream, lossy=lossy)
        bundle.import_bundle(rewriter, folder, hyperv_quirk=quirk is not False)
        remember_inputs(*(str(one) for one in Path(folder).iterdir() if one.is_file()))
        return write_edited(rewriter, output or "", as_json=as_json, dry_run=dry_run)
