"""``mshv export``: a bundle out of a stream."""

from __future__ import annotations

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    say,
    schema_option,
)
from qmigtool.cli.shared.parameters import mask_option, size_value, the_layout_option
from qmigtool.rewrite import bundle
from qmigtool.stream.info import problems_document
from qmigtool.util.text import printable
from qmigtool.xsave import Layout


@command("qmigtool mshv export samples/kvm-avx512-7.2.mig --layout amd-zen4 --mask 0xe7 -o bundle", name="export")
@file_argument
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write: a new or an empty one.")
@click.option("--replace", is_flag=True, help="Replace DIR if it has a bundle of `mshv export` and nothing else.")
@the_layout_option
@mask_option("--mask", help="The partition's XSAVE_STATES; by default what XCR0 enables and MSHV can hold.")
@click.option(
    "--buffer-size",
    type=size_value,
    metavar="BYTES",
    help="The partition's buffer (MAX_XSAVE_DATA_SIZE in whole pages); by default the pages that an area needs.",
)
@accelerator_option
@schema_option
@json_option
def export_bundle(
    file: str,
    output: str,
    replace: bool,
    layout: Layout,
    mask: int | None,
    buffer_size: int | None,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Write the vCPUs' extended state as MSHV accepts it.

    DIR gets XCR0, the MSRs and the XSAVE area of every vCPU of FILE, in the order in which QEMU sets them. The other
    state of a vCPU (general, segment and control registers, local APIC, timers, pending events) is not in it.
    """
    with opened(file, accelerator, schema=schema) as stream:
        document = bundle.export_bundle(stream, output, layout, mask, buffer_size=buffer_size, replace=replace)
        if as_json:
            print_json({**document, **problems_document(stream)})
        else:
            for entry in document["vcpus"]:
                say(
                    f"vCPU {entry['vcpu']}: {entry['file']}, {entry['size']} bytes in a buffer of {entry['buffer']}, "
                    f"XSTATE_BV {entry['xstate_bv']}, XCOMP_BV {entry['xcomp_bv']}, XCR0 {entry['xcr0']}, "
                    f"{len(entry['msrs'])} MSRs"
                )
            for note in document["notes"]:
                say_error(f"note: {printable(note)}")
            say_error(f"{printable(output)}: {bundle.MANIFEST} names every file, layout and mask")
        return finish(stream)
