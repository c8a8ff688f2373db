"""Make the references of tests/data/preflight again, from the table in its MANIFEST.md.

    python -m tests.preflight.make_references OUT.tar.xz 7.2=qemu-system-x86_64 10.0=... 11.1=...

Run it in an empty folder: the images and ROMs that the command lines name are made there. Rows whose version is not
among the binaries are left out.
"""

from __future__ import annotations

import io
import lzma
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.section import Type
from qmigtool.parsers.window import Window
from tests.support.paths import DATA
from tests.support.qemu.process import QemuProcess

MANIFEST = DATA / "preflight" / "MANIFEST.md"
TIMEOUT = 60.0


def rows() -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (name, versions, arguments) of each row of the table."""
    text = MANIFEST.read_text()
    virtio = next(line.strip() for line in text.splitlines() if line.startswith("    -device virtio-blk-pci"))
    for name, versions, arguments in re.findall(r"^\| (t\d\d) \| ([^|]+) \| `([^`]+)` \|$", text, re.MULTILINE):
        yield name, versions.split(", "), shlex.split(arguments.replace("VIRTIO", virtio))


def make_files() -> None:
    """Make the disks and option ROMs."""
    for name in ("disk.qcow2", "nv.qcow2"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", name, "64M"], check=True)
    for kib in (64, 512):
        rom = bytearray(kib << 10)
        rom[:3] = bytes([0x55, 0xAA, min(len(rom) // 512, 255)])
        rom[6] = -sum(rom) & 0xFF
        Path(f"rom{kib}.bin").write_bytes(rom)


def save(binary: str, arguments: list[str], out: Path) -> None:
    """Let a QEMU that never ran save itself."""
    with QemuProcess([binary, "-display", "none", "-S", *arguments], timeout=TIMEOUT) as qemu:
        qemu.save_to(out)
        qemu.wait_for("the stream", out.exists)


def without_pages(data: bytes) -> bytes:
    """Leave out the page records: the PARTs of RAM go, and its END keeps nothing but EOS."""
    reader = Reader(Window(data, final=True))
    out = bytearray()
    for one in reader.sections():
        if one.type is Type.END:
            end = one.body_offset + one.body_length
            out += data[one.offset : one.body_offset] + data[end - 8 : end] + data[end : one.end]
        elif one.type is not Type.PART:
            out += data[one.offset : one.end]
    return bytes(out)


def main(target: str, *binaries: str) -> None:
    """Make them all."""
    known = dict(binary.split("=", 1) for binary in binaries)
    make_files()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, versions, arguments in rows():
            for version in sorted(set(versions) & set(known)):
                out = Path(f"{name}-{version}.mig").absolute()
                save(known[version], arguments, out)
                data = without_pages(out.read_bytes())
                member = tarfile.TarInfo(out.name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    Path(target).write_bytes(lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(*sys.argv[1:])
