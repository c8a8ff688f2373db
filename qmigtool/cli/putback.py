"""``xsave import`` and ``mshv``: state that was taken out of a stream, put back into it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from qmigtool import mshv as bundles
from qmigtool.cli.areas import read_area
from qmigtool.cli.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_json,
    problems_json,
    remember_inputs,
    schema_option,
)
from qmigtool.cli.parameters import mask_option, the_layout_option
from qmigtool.cli.rewriting import need_output, write_edited
from qmigtool.errors import LiveStateError, XsaveError
from qmigtool.plaintext import printable
from qmigtool.rewrite import Rewriter
from qmigtool.xsave import Layout, XsaveArea

output_option = click.option("-o", "--output", metavar="OUT", help="Where to write; never FILE itself.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")


@click.command("import")
@file_argument
@click.argument("area", metavar="AREA")
@click.option("--vcpu", type=int, required=True, metavar="N", help="The vCPU (instance of the cpu section).")
@the_layout_option
@click.option("--xcr0", metavar="MASK", help="Set the vCPU's XCR0, too.")
@output_option
@dry_run_option
@accelerator_option
@schema_option
@json_option
def import_area(
    file: str,
    area: str,
    vcpu: int,
    layout: Layout,
    xcr0: str | None,
    output: str | None,
    dry_run: bool,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Put the XSAVE area in the file AREA back into FILE: fields, subsections, XSTATE_BV.

    AREA is in standard or compacted format; padding behind it does no harm. Only what means something else than before
    changes, so that an exported area that comes back unchanged gives the identical stream.
    """
    need_output(output, dry_run=dry_run)
    data = read_area(area)
    with opened(file, accelerator, schema=schema) as stream:
        rewriter = Rewriter(stream)
        if xcr0 is not None:
            rewriter.set_xcr0(vcpu, xcr0)
        try:
            rewriter.import_area(vcpu, XsaveArea(data, layout))
        except XsaveError as error:
            if not isinstance(error, LiveStateError):
                error.file = area  # it is at fault, not the stream
            raise
        return write_edited(rewriter, output or "", as_json=as_json, dry_run=dry_run)


@click.group(no_args_is_help=False)
def mshv() -> None:
    """What MSHV takes of the vCPUs, as a folder: XSAVE areas in whole pages, XCR0 and MSRs."""


@mshv.command("export")
@file_argument
@click.option("-o", "--output", required=True, metavar="DIR", help="A folder that is not there yet.")
@the_layout_option
@mask_option("--mask", help="The partition's XSAVE_STATES, by default what XCR0 has and MSHV can hold.")
@accelerator_option
@schema_option
@json_option
def export_bundle(
    file: str,
    output: str,
    layout: Layout,
    mask: int | None,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Write what MSHV takes of every vCPU of FILE to the folder DIR."""
    with opened(file, accelerator, schema=schema) as stream:
        document = bundles.export_bundle(stream, output, layout, mask)
        if as_json:
            print_json({**document, **problems_json(stream)})
        else:
            for entry in document["vcpus"]:
                print(
                    f"vCPU {entry['vcpu']}: {entry['file']}, {entry['size']} bytes in a buffer of {entry['buffer']}, "
                    f"XSTATE_BV {entry['xstate_bv']}, XCOMP_BV {entry['xcomp_bv']}, XCR0 {entry['xcr0']}, "
                    f"{len(entry['msrs'])} MSRs"
                )
            print(f"{printable(output)}: {bundles.MANIFEST} names every file, layout and mask", file=sys.stderr)
        return finish(stream)


@mshv.command("import")
@file_argument
@click.argument("folder", metavar="DIR")
@output_option
@dry_run_option
@accelerator_option
@schema_option
@json_option
def import_bundle(
    file: str,
    folder: str,
    output: str | None,
    dry_run: bool,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Put the folder DIR, as `mshv export` wrote it or a hypervisor filled it, back into FILE."""
    need_output(output, dry_run=dry_run)
    with opened(file, accelerator, schema=schema) as stream:
        rewriter = Rewriter(stream)
        bundles.import_bundle(rewriter, folder)
        remember_inputs(*(str(one) for one in Path(folder).iterdir() if one.is_file()))
        return write_edited(rewriter, output or "", as_json=as_json, dry_run=dry_run)
