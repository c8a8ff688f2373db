"""The fuzz targets: an exception of a target is a finding."""

from __future__ import annotations

import contextlib
import functools
import io
import zlib
from collections.abc import Callable

import qmigtool
from qmigtool.errors import QmigError
from qmigtool.preflight import preflight, read_targets
from qmigtool.preflight.target import Target
from qmigtool.rewrite import Rewriter
from qmigtool.stream.model import Stream
from tests.fuzz.records import dissect

Target_ = Callable[[bytes], None]


class Pipe(io.RawIOBase):
    """Bytes that can be read once."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read the next bytes."""
        return self._data.readinto(buffer)


def look(stream: Stream) -> None:
    """Read everything that a command shows."""
    _ = stream.sections, stream.devices, stream.vcpus, stream.accelerator, stream.problems, stream.ram_blocks
    for device in stream.devices:
        with contextlib.suppress(QmigError):
            _ = [field.value for field in device.fields]
    for vcpu in stream.vcpus:
        with contextlib.suppress(QmigError):
            _ = vcpu.live, vcpu.xsave.data


def forward(data: bytes) -> None:
    """Read from a pipe."""
    with contextlib.suppress(QmigError), qmigtool.open(Pipe(data)) as stream:
        look(stream)


def containers(data: bytes) -> None:
    """Recognise, unwrap and read seekable input; list its memory."""
    with contextlib.suppress(QmigError), qmigtool.open(data) as stream:
        look(stream)
        for block in stream.ram_blocks:
            with contextlib.suppress(QmigError):
                _ = stream.ram.page(block.idstr, 0)


EDITS: tuple[Callable[[Rewriter], object], ...] = (
    lambda r: r.machine_type("pc-i440fx-11.1"),
    lambda r: r.repair("xstate-bv"),
    lambda r: r.to_accelerator("kvm"),
    lambda r: r.scrub_ram(),
    lambda r: r.drop_component("avx"),
    lambda r: r.set(f"{r.draft.stream.devices[0].label}/{r.draft.stream.devices[0].fields[0].name}", 1),
    lambda r: r.drop_section(r.draft.stream.devices[-1].label),
    lambda r: r.drop_subsection(f"{r.draft.stream.devices[0].label}/d/s"),
)


def rewriting(data: bytes) -> None:
    """Rewrite it, unchanged (the output must be identical) and with the edits that its checksum selects."""
    which = zlib.crc32(data)
    with contextlib.suppress(QmigError), qmigtool.open(data) as stream:
        same = io.BytesIO()
        Rewriter(stream).write(same)
        if stream.container.in_place and same.getvalue() != data:
            raise AssertionError("an empty rewrite is not the same")
        rewriter = Rewriter(stream, lossy=True)
        for bit, edit in enumerate(EDITS):
            if which >> bit & 1:
                with contextlib.suppress(QmigError, IndexError):  # no device, or no field
                    edit(rewriter)
        out = io.BytesIO()
        rewriter.write(out)
        containers(out.getvalue())


@functools.cache
def _targets() -> tuple[Target, ...]:
    return tuple(read_targets([name]) for name in ("7.2", "11.1", "kvm"))


def judge(data: bytes) -> None:
    """Run preflight."""
    with contextlib.suppress(QmigError), qmigtool.open(data) as stream:
        for target in _targets():
            with contextlib.suppress(QmigError):
                preflight(stream, target)


TARGETS: dict[str, Target_] = {
    "forward": forward,
    "containers": containers,
    "rewriting": rewriting,
    "preflight": judge,
    "dissect": dissect,
}
