"""QEMU's two XSAVE functions as C: the added lines of the posted patch, compiled, and called with any input.

    with XsaveHelper(folder) as helper:
        answer = helper.call(Case(...))

The patch (tests/data/qemu/xsave-compaction.patch, GPL-2.0-or-later) is compiled unchanged; QEMU's types are stubbed
by `xsave_helper_harness.c`, which also says when a function leaves its buffers. `supervisor_skip` adds to the text what
a later source has: a supervisor component is not copied.
"""

import re
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.paths import DATA

HARNESS = Path(__file__).with_name("xsave_helper_harness.c")
PATCH = DATA / "qemu" / "xsave-compaction.patch"
COPY_IF = "if (((compacted_xstate_bv >> i) & 1) != 0) {"
"""What decides in decompact_xsave_area() whether a component is copied."""

Row = tuple[int, int, int, int]


class Status(IntEnum):
    """How a call ended, with the names of the harness."""

    DONE = 0
    READ_OUTSIDE = 1
    WRITE_OUTSIDE = 2
    ASSERTED = 3


@dataclass(frozen=True, slots=True)
class Case:
    """One call: what the function reads, the CPUID rows that it is told, and the lengths."""

    compact: bool
    source: bytes
    host: Mapping[int, Row]
    guest: Mapping[int, Row]
    guest_xcr0: int
    xcr0: int
    target_size: int
    told_size: int
    """The parameter buflen: of the source when decompacting, of the target when compacting."""


class Answer(NamedTuple):
    """What C said: `data` is the whole target; `offset` and `size` tell the access that ended the call."""

    status: Status
    rc: int
    offset: int
    size: int
    data: bytes


def functions(*, supervisor_skip: bool = False) -> str:
    """Return the C of the two functions: what the patch adds to target/i386/xsave_helper.c behind its includes."""
    text = PATCH.read_text()
    added = text[text.index("+++ b/target/i386/xsave_helper.c") :]
    lines = [line[1:] for line in added.splitlines()[1:] if line.startswith("+") and "#include" not in line]
    source = "\n".join(lines) + "\n"
    if supervisor_skip:
        assert source.count(COPY_IF) == 1
        source = source.replace(COPY_IF, COPY_IF.replace("!= 0)", "!= 0 && !(ecx & 1))"))
    assert len(re.findall(r"^int (?:de)?compact_xsave_area\(", source, re.MULTILINE)) == 2
    return source


class XsaveHelper:
    """The compiled functions, running in a process of their own."""

    def __init__(self, folder: Path, *, supervisor_skip: bool = False) -> None:
        self._folder = folder
        self._skip = supervisor_skip

    def __enter__(self) -> Self:
        program, included = self._folder / "xsave_helper", self._folder / "functions.h"
        included.write_text(functions(supervisor_skip=self._skip))
        # -O0: the accesses come in the order in which the text has them.
        flags = ["-O0", "-fno-strict-aliasing", f'-DFUNCTIONS="{included}"']
        subprocess.run(["gcc", *flags, "-o", program, HARNESS], check=True, timeout=60)
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, case: Case) -> Answer:
        """Run one case."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = struct.pack(
            "<6I3Q", case.compact, len(case.source), case.target_size, len(case.host), len(case.guest), 0,
            case.told_size, case.guest_xcr0, case.xcr0,
        )  # fmt: skip
        rows = [struct.pack("<5I", subleaf, *row) for leaf in (case.host, case.guest) for subleaf, row in leaf.items()]
        self._process.stdin.write(b"".join((request, *rows, case.source)))
        self._process.stdin.flush()
        status, rc, offset, size = struct.unpack("<iiQQ", self._process.stdout.read(24))
        return Answer(Status(status), rc, offset, size, self._process.stdout.read(case.target_size))
