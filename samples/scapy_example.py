"""What a scapy user does with a migration: load the extension, dissect a capture, change a field, build, fuzz.

Needs scapy 2.7 or later. The first four lines are the same in scapy's own shell.
"""

import sys
from pathlib import Path

from scapy.config import conf
from scapy.packet import fuzz
from scapy.utils import hexdump

conf.exts.load("qmigtool")
from scapy.contrib.qemu_migration import (  # noqa: E402 - it exists when the extension is loaded
    FileHeader,
    ItemType,
    MessageHeader,
    PageRequest,
    QmigReader,
    RamRecord,
    SectionFooter,
    SectionHeader,
    rdqmig,
    wrqmig,
)


def main(capture: str, folder: str) -> None:
    # Dissect: every record of the stream and of its channels, with its place.
    packets = rdqmig(capture)
    print(f"{len(packets)} records, channels: {', '.join(sorted({one.source for one in packets}))}")
    packets[1].show()
    hexdump(next(one for one in packets if MessageHeader in one))
    print(next(one for one in packets if SectionHeader in one).command())

    # Change a field, here a page of guest memory, and write the stream: the bytes of the packets, one after the other.
    page = next(one for one in packets if RamRecord in one and one.flags & 8)
    page.page = b"changed by scapy"
    wrqmig(Path(folder) / "changed.mig", packets)
    with QmigReader(Path(folder) / "changed.mig") as reader:
        again = next(one for one in reader if one.offset == page.offset)
    print(f"page {again.addr:#x} of {again.section} is now {again.page[:16]}")

    # Build: a section of its own, with the lengths and the type byte computed.
    section = ItemType() / SectionHeader(section_id=7, idstr="example", version_id=1)
    print(f"built: {bytes(FileHeader() / section / SectionFooter(section_id=7)).hex(' ')}")

    # Fuzz: random records that are built without an error, for a loader or for `qmigtool check`.
    for number in range(3):
        print(f"fuzzed {number}: {bytes(fuzz(MessageHeader() / PageRequest())).hex(' ')}")
        broken = [fuzz(SectionHeader()) if place == 2 else one for place, one in enumerate(packets)]
        wrqmig(Path(folder) / f"fuzzed-{number}.mig", broken)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: scapy_example.py CAPTURE FOLDER")
    main(*sys.argv[1:])
