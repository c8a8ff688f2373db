"""Losses of a sample on a target, and what real QEMU lost (``resaved.json``)."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from typing import Any

import qmigtool
from qmigtool.findings import Finding, Severity
from qmigtool.preflight import Target
from qmigtool.preflight.losses.find import Losses, find_losses
from qmigtool.rewrite import Rewriter
from tests.support import paths
from tests.support.paths import SAMPLES

DATA = paths.DATA / "preflight" / "targets"


VERSIONS = ("7.2", "10.0", "11.1")


KVM_XCR0 = 0xE7  # of the host on which the runs were made


Edits = Callable[[Rewriter], object]


@functools.cache
def runs() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / "resaved.json").read_text())
    return dict(document["runs"])


def losses(file: str, target: Target, *edits: Edits, accelerator: str | None = None) -> Losses:
    with qmigtool.open(SAMPLES / f"{file}.mig") as stream:
        if not edits:
            return find_losses(stream, target)
        rewriter = Rewriter(stream, lossy=True)
        for make in edits:
            make(rewriter)
        out = io.BytesIO()
        rewriter.write(out)
    with qmigtool.open(out.getvalue(), accelerator=accelerator) as stream:
        return find_losses(stream, target)


def rules(found: Losses, *, notes: bool = False) -> set[str]:
    return {one.rule for one in found.findings if notes or one.severity is not Severity.NOTE}


def only(found: Losses, rule: str) -> list[Finding]:
    return [one for one in found.findings if one.rule == rule]


def kvm(version: str) -> Target:
    return Target(accelerator="kvm", xcr0=KVM_XCR0, xss=0, qemu=tuple(map(int, version.split("."))))
