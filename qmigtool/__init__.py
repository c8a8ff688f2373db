"""qmigtool: read, check, convert and compare QEMU migration streams.

::

    import qmigtool

    with qmigtool.open("vm.mig") as stream:
        print(stream.machine, stream.accelerator.name)
        for vcpu in stream.vcpus:
            area = vcpu.xsave                                   # standard format
            blob = area.compact(qmigtool.layout("amd-zen4")).data

    with qmigtool.open("before.mig") as a, qmigtool.open("after.mig") as b:
        print(qmigtool.diff.differences(qmigtool.compare(a, b)))    # a DataFrame

Names are imported on first use, so that ``import qmigtool`` is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qmigtool.errors import (
    ClosedError,
    LimitError,
    LiveStateError,
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
    from qmigtool.diff.compare import compare
    from qmigtool.documents.presence import presence_table
    from qmigtool.rewrite import Rewriter
    from qmigtool.stream.model import Stream
    from qmigtool.stream.opening import open_stream as open  # noqa: A004 - its public name is qmigtool.open
    from qmigtool.xsave import XsaveArea, layout

__version__ = "0.1.0"

__all__ = [
    "ClosedError",
    "LimitError",
    "LiveStateError",
    "OutputError",
    "PathError",
    "QmigError",
    "Rewriter",
    "SnapshotsError",
    "Stream",
    "StreamError",
    "TruncatedError",
    "UnsupportedError",
    "UsageError",
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


def __dir__() -> list[str]:
    return sorted(__all__)
