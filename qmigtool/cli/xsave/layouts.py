"""``xsave layouts``: the layouts known, or one drawn."""

from __future__ import annotations

import click

from qmigtool import tables
from qmigtool import xsave as core
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.layoutdraw import draw
from qmigtool.cli.shared.messages import print_json
from qmigtool.cli.shared.output import csv_option, json_option, print_cells, print_csv, say
from qmigtool.cli.shared.parameters import layout_value, mask_option
from qmigtool.cli.shared.terminal import columns
from qmigtool.xsave import Format, Layout
from qmigtool.xsave.document import layout_document


@command("qmigtool xsave layouts", "qmigtool xsave layouts intel-spr --mask 0x602e7")
@click.argument("name", required=False, type=layout_value, metavar="[NAME]")
@mask_option(
    "--mask",
    help="Components of the areas to draw; by default all user components of the layout.",
)
@csv_option
@json_option
def layouts(name: Layout | None, mask: int | None, as_csv: bool, as_json: bool) -> int:
    """List the XSAVE layouts, or draw one.

    NAME is a built-in layout or a file with CPUID in it: the output of cpuid, kcpuid -r or xen-cpuid, InstLatx64, a
    VirtualBox log, dmesg, libvirt's <cpudata>, JSON of Firecracker or Cloud Hypervisor. FILE#N is CPU N of it, where
    there are several kinds (FILE#guest and FILE#host in a VirtualBox log).
    """
    which = [core.layout(one) for one in core.layout_names()] if name is None else [name]
    if as_csv:
        print_csv(tables.layouts.columns, tables.layouts.rows(*which))
    elif as_json:
        print_json({"layouts": [layout_document(one, mask) for one in which]})
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
        say("QEMU's CPU models are layouts, too, on a host of their vendor: SapphireRapids, EPYC-Genoa-v2 ...")
    else:
        shown = core.default_mask(name, Format.COMPACTED) if mask is None else mask
        print(draw(name, shown, columns()))
    return 0
