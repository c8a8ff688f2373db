"""Reduce some pairs of a fleet, which the tests replay (``tests/data/fleet/streams.tar.xz``).

    python -m tests.fleet pack FOLDER OUT.tar.xz

The rows of :data:`CASES` with their streams. A stream keeps only the pages of main memory and the ACPI tables, a
reference only the tables: the contents of the firmware's ROM images decide nothing, and are most of the bytes.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

from qmigtool.errors import UnsupportedError
from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.section import Type
from qmigtool.parsers.window import Window
from tests.fleet.cases import read_rows, write_rows

CASES = (
    *("pc-bare", "isapc", "isapc-old", "microvm", "pc-2.3", "x-hpet", "smp-max", "smp-hotplug", "dimm", "virtio-mem"),
    *("tulip", "esp", "dc390", "virtio-multi", "virtio-net-old", "ac97", "tpm-tis", "ipmi", "arm-virt", "sparc-ss5"),
    *(
        "x-maxcpus",
        "x-less-devices",
        "x-nic-kind",
        "x-timers",
        "x-memory",
        "x-cpu",
        "riscv-virt",
        "s390",
        "kvm-pc",
        "loongarch",
    ),
)
MAIN = ("pc.ram", "microvm.ram", "mach-virt.ram", "riscv_virt_board.ram", "s390.ram", "sun4m.ram", "loongarch.ram")
ACPI = "/rom@etc/acpi/tables"  # they give the maximum number of vCPUs
PAGE_SIZE = 4096
ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20  # RAM_SAVE_FLAG_*


def shrink(data: bytes, kept: tuple[str, ...]) -> bytes:
    """Drop the pages of all RAM blocks except those kept."""
    out = bytearray()
    reader = Reader(Window(data, final=True))
    block, done = b"", 0
    sections = reader.sections()
    while True:
        try:
            one = next(sections)
        except (StopIteration, UnsupportedError):  # the reader does not support device state without footers
            break
        body = data[one.body_offset : one.body_offset + one.body_length]
        if one.name == "ram" and one.type in (Type.PART, Type.END):
            body, block = _records(body, block, kept)
        out += data[one.offset : one.body_offset] + body + data[one.body_offset + one.body_length : one.end]
        done = one.end
    return bytes(out + data[done:])


def _records(body: bytes, block: bytes, kept: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Copy the records of the blocks kept; return them and the block of the last record."""
    out, at = bytearray(), 0
    while at < len(body):
        word = int.from_bytes(body[at : at + 8], "big")
        flags, start = word & (PAGE_SIZE - 1), at
        at += 8
        if flags & (ZERO | PAGE) and not flags & CONTINUE:
            block = body[at + 1 : at + 1 + body[at]]
            at += 1 + body[at]
        at += 1 if flags & ZERO else PAGE_SIZE if flags & PAGE else 0
        if flags & ~(ZERO | PAGE | EOS | CONTINUE):
            raise ValueError(f"a record with flags {flags:#x}")
        if flags & EOS or block.decode() in kept:
            out += body[start:at]
    return bytes(out), block


def main(folder: str, target: str) -> None:
    """Pack the pairs."""
    rows = [row for row in read_rows(Path(folder, "table.tsv")) if row.case in CASES]
    names = {row.stream: (*MAIN, ACPI) for row in rows} | {row.reference: (ACPI,) for row in rows}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        table = Path(folder, "packed.tsv")
        write_rows(table, rows)
        files = {"table.tsv": table.read_bytes()}
        files |= {name: shrink(Path(folder, name).read_bytes(), kept) for name, kept in sorted(names.items())}
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            print(name, len(data))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    Path(target).write_bytes(lzma.compress(packed.getvalue(), filters=filters))
