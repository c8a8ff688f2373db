"""``mshv import``: a bundle put back into a stream."""

from __future__ import annotations

from pathlib import Path

import click

from qmigtool.cli.shared.areas import quirk_option
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.edited import dry_run_option, lossy_option, need_output, output_option, write_edited
from qmigtool.cli.shared.output import (
    accelerator_option,
    file_argument,
    json_option,
    opened,
    remember_inputs,
    schema_option,
)
from qmigtool.rewrite import Rewriter, bundle


@command(
    "qmigtool mshv export samples/kvm-avx512-7.2.mig --layout amd-zen4 --mask 0xe7 -o bundle",
    "qmigtool mshv import samples/kvm-avx512-7.2.mig bundle -o new.mig",
    name="import",
)
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
    """Put a folder of `mshv export` into a stream.

    DIR is a folder that `mshv export` wrote or a hypervisor filled. --hyperv-quirk is on unless --no-hyperv-quirk is
    given.
    """
    need_output(output, dry_run=dry_run)
    with opened(file, accelerator, schema=schema, spool=True) as stream:
        rewriter = Rewriter(stream, lossy=lossy)
        bundle.import_bundle(rewriter, folder, hyperv_quirk=quirk is not False)
        remember_inputs(*(str(one) for one in Path(folder).iterdir() if one.is_file()))
        return write_edited(rewriter, output or "", as_json=as_json, dry_run=dry_run)
