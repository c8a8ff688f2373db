"""Read, check, compare and rewrite QEMU migration streams; convert x86 XSAVE state.

Open a stream, whatever contains it (a file, a libvirt save image, a qcow2 snapshot, a capture, a pipe)::

    import qmigtool

    with qmigtool.open("vm.mig") as stream:
        print(stream.machine, stream.accelerator.name, stream["cpu@0/env.xcr0"].value)
        for vcpu in stream.vcpus:
            area = vcpu.xsave                                   # an XsaveArea in standard format
            blob = area.compact(qmigtool.layout("amd-zen4")).data

Main entry points:

========================================  ==================================================================
``open(target)``                          a :class:`Stream`: ``devices``, ``vcpus``, ``ram_blocks``, ``problems``
``stream[path]``                          a device, subsection or field: ``"cpu@0/env.xcr0"``
``stream.info()``                         what the stream is, as ``qmigtool info --json`` prints it
``compare(a, b)``                         what differs between two streams: a :class:`Comparison`
``check.run(paths, policy)``              the findings in files, and what the exit status of ``check`` means
``preflight.preflight(stream, target)``   whether a target loads it, and what it would lose
``Rewriter(stream)``                      edits by name, then ``save(path)``
``layout(name)``, ``xsave``               XSAVE layouts of CPUs; areas, conversion, validity
``tables``                                DataFrames: ``tables.xsave_components(*streams)``, ``tables.fields(stream)``
``presence_table(*streams)``              which XSAVE components each vCPU has, for a notebook
``qmigtool.layers``                       every record as a scapy layer: ``conf.exts.load("qmigtool")``
========================================  ==================================================================

Errors are :class:`QmigError` and its subclasses (:mod:`qmigtool.errors`). Types for annotations can be imported from
here: ``from qmigtool import Stream, VCpu, Finding``. Names are imported on first use, so ``import qmigtool`` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qmigtool.errors import (
    ClosedError,
    LimitError,
    LiveStateError,
    MigrationsError,
    OutputError,
    PathError,
    QmigError,
    SnapshotsError,
    StreamError,
    TruncatedError,
    UnsupportedError,
    UsageError,
    XsaveError,
)

if TYPE_CHECKING:
    from qmigtool import check, diff, preflight, tables, xsave
    from qmigtool.check.files import CheckResult, CheckStatus
    from qmigtool.check.policy import Policy
    from qmigtool.devices.device import Device
    from qmigtool.diff.compare import compare
    from qmigtool.diff.model import Comparison, Difference
    from qmigtool.documents.presence import presence_table
    from qmigtool.findings.model import Finding, Severity
    from qmigtool.findings.report import Report
    from qmigtool.parsers.vmstate import Field
    from qmigtool.preflight.loader.verdict import Verdict
    from qmigtool.preflight.outcome import Preflight
    from qmigtool.preflight.target.model import Target
    from qmigtool.rewrite import Rewriter
    from qmigtool.stream.model import Stream
    from qmigtool.stream.opening import open_stream as open  # noqa: A004 - its public name is qmigtool.open
    from qmigtool.x86.accelerator import Accelerator
    from qmigtool.x86.vcpu import VCpu
    from qmigtool.xsave import XsaveArea, layout
    from qmigtool.xsave.layout import Layout

__version__ = "0.1.0"

__all__ = [
    "Accelerator",
    "CheckResult",
    "CheckStatus",
    "ClosedError",
    "Comparison",
    "Device",
    "Difference",
    "Field",
    "Finding",
    "Layout",
    "LimitError",
    "LiveStateError",
    "MigrationsError",
    "OutputError",
    "PathError",
    "Policy",
    "Preflight",
    "QmigError",
    "Report",
    "Rewriter",
    "Severity",
    "SnapshotsError",
    "Stream",
    "StreamError",
    "Target",
    "TruncatedError",
    "UnsupportedError",
    "UsageError",
    "VCpu",
    "Verdict",
    "XsaveArea",
    "XsaveError",
    "__version__",
    "check",
    "compare",
    "diff",
    "layout",
    "open",
    "preflight",
    "presence_table",
    "tables",
    "xsave",
]

_LAZY = {
    "Accelerator": ("qmigtool.x86.accelerator", "Accelerator"),
    "CheckResult": ("qmigtool.check.files", "CheckResult"),
    "CheckStatus": ("qmigtool.check.files", "CheckStatus"),
    "Comparison": ("qmigtool.diff.model", "Comparison"),
    "Device": ("qmigtool.devices.device", "Device"),
    "Difference": ("qmigtool.diff.model", "Difference"),
    "Field": ("qmigtool.parsers.vmstate", "Field"),
    "Finding": ("qmigtool.findings.model", "Finding"),
    "Layout": ("qmigtool.xsave.layout", "Layout"),
    "Policy": ("qmigtool.check.policy", "Policy"),
    "Preflight": ("qmigtool.preflight.outcome", "Preflight"),
    "Report": ("qmigtool.findings.report", "Report"),
    "Severity": ("qmigtool.findings.model", "Severity"),
    "Target": ("qmigtool.preflight.target.model", "Target"),
    "VCpu": ("qmigtool.x86.vcpu", "VCpu"),
    "Verdict": ("qmigtool.preflight.loader.verdict", "Verdict"),
    "Rewriter": ("qmigtool.rewrite", "Rewriter"),
    "Stream": ("qmigtool.stream.model", "Stream"),
    "XsaveArea": ("qmigtool.xsave", "XsaveArea"),
    "check": ("qmigtool.check", None),
    "compare": ("qmigtool.diff", "compare"),
    "diff": ("qmigtool.diff", None),
    "layout": ("qmigtool.xsave", "layout"),
    "open": ("qmigtool.stream.opening", "open_stream"),
    "preflight": ("qmigtool.preflight", None),
    "presence_table": ("qmigtool.documents.presence", "presence_table"),
    "tables": ("qmigtool.tables", None),
    "xsave": ("qmigtool.xsave", None),
}


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    loaded = importlib.import_module(module)
    return loaded if attribute is None else getattr(loaded, attribute)


def scapy_ext(ext: Any) -> None:
    """Register the layers with scapy: it calls this in ``conf.exts.load("qmigtool")``."""
    from pathlib import Path

    ext.config("qmigtool", __version__)
    ext.register("qemu_migration", ext.MODE.CONTRIB, Path(__file__).with_name("layers") / "contrib.py")


def __dir__() -> list[str]:
    return sorted(__all__)
