"""The streams in samples/packed/, unpacked on demand, and what is known about them from elsewhere than qmigtool."""

import atexit
import functools
import json
import lzma
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.paths import DATA, SAMPLES

FOLDER = SAMPLES / "packed"
NAMES = tuple(sorted(path.name.removesuffix(".mig.xz") for path in FOLDER.glob("*.mig.xz")))

RAM: dict[str, dict[str, Any]] = json.loads((DATA / "packed_ram.json").read_text())["streams"]
"""What QEMU's pmemsave wrote for the same guest: sha256 of the 16 MiB and of each MiB, 0xa0000-0xfffff as zero."""

SHARED = ("ignoreshared-10.0", "mapped-ignoreshared-11.1")
"""Their guest's memory is not in the stream (x-ignore-shared)."""

OTHER_TARGETS = (
    "aarch64-virt-gic2-7.2",
    "arm-vexpress-a9-7.2",
    "avr-mega-7.2",
    "m68k-virt-7.2",
    "mips-malta-7.2",
    "riscv64-virt-7.2",
    "s390x-min-7.2",
    "sparc64-sun4u-10.0",
    "tricore-10.0",
)

NO_VMDESC = ("i440fx-2.1-7.2", "novmdesc-nofooter-7.2", "postcopy-preempt-7.2", "postcopy-preempt-11.1")


class Packed(NamedTuple):
    """A stream and the extra channels of its migration."""

    path: Path
    channels: tuple[Path, ...]


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="qmigtool-packed-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _unpack(source: Path) -> Path:
    target = _folder() / source.name.removesuffix(".xz")
    data = lzma.decompress(source.read_bytes())
    with target.open("wb") as file:
        for at in range(0, len(data), 1 << 16):
            part = data[at : at + (1 << 16)]
            if part.count(0) != len(part):
                file.seek(at)
                file.write(part)
        file.truncate(len(data))  # a mapped-ram file is 23 MB of holes
    return target


@functools.cache
def packed(name: str) -> Packed:
    """Unpack a stream, once a session."""
    channels = sorted(FOLDER.glob(f"{name}.*.bin.xz"))
    return Packed(_unpack(FOLDER / f"{name}.mig.xz"), tuple(map(_unpack, channels)))


def read(name: str) -> bytes:
    return packed(name).path.read_bytes()
