"""The wire format as a book, `parsers/README.md`: each record with a figure, a hexdump of a sample and its fields.

All of it is made from the declarations and the samples: `python -m tests.support.book` writes it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import IntFlag
from types import ModuleType
from typing import Any

from scapy.packet import rfc
from scapy.utils import hexdump

from qmigtool.layers import known
from qmigtool.layers.packets import RawBytes, layer, stacked
from qmigtool.layers.reading import QmigReader
from qmigtool.parsers import configuration, livebodies, multifd, qcow2, records, returnpath, saveimage
from qmigtool.parsers.record import Fixed, PageFlags, Record, When
from qmigtool.parsers.records import RamSaveFlag
from tests.support.paths import ROOT, SAMPLES

PATH = ROOT / "parsers" / "README.md"
BYTES = 64  # of a record that are shown
BLANK = 6  # lines of a figure without a field

INTRODUCTION = """\
# The wire format of a QEMU migration stream

Every record that qmigtool reads, as `parsers/` declares it: a figure of its fields, the bytes of one in a file of
`samples/`, and what scapy shows of them. This file is made by `python -m tests.support.book` and compared with the
declarations and the samples by a test. [`qmigtool/README.md`](../qmigtool/README.md) tells how to take a stream apart
with `qmigtool dissect` or in scapy.

Numbers are big-endian. In a figure, a field of variable length has 32 bits, and a field that is only sometimes there
is drawn, too. A name (`idstr`) has a byte with its length before it, and no NUL.

```
stream         FileHeader [configuration] item ... EOF [vmdesc]
configuration  ItemType(CONFIGURATION) ConfigurationHeader [Subsection TargetPageBits | Capabilities | VmUuid] ...
item           ItemType(START or FULL) SectionHeader body [SectionFooter]
               ItemType(PART or END) SectionReference body [SectionFooter]
               ItemType(COMMAND) CommandHeader payload
EOF            ItemType(EOF)
vmdesc         VmDescriptionHeader JSON
ram body       RamRecord ... RamRecord(EOS)
               after RamRecord(MEM_SIZE): RamBlockHeader [RamBlockPageSize] [RamBlockAddress] [MappedRamHeader ...] ...
multifd        MultiFDInit MultiFDPagePacket ...
return path    MessageHeader payload ...
```

A stream has footers in all its sections or in none. Device state (the body of a FULL section) has neither tags nor
lengths: the vmdesc at the end describes it. Its subsections each start with a `Subsection` header.
"""

CHAPTERS: tuple[tuple[str, str, ModuleType], ...] = (
    ("Framing, commands and RAM", "records", records),
    ("Configuration", "configuration", configuration),
    ("multifd", "multifd", multifd),
    ("Return path", "returnpath", returnpath),
    ("Live sections other than RAM", "livebodies", livebodies),
    ("libvirt save images", "saveimage", saveimage),
    ("qcow2 images", "qcow2", qcow2),
)

SOURCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pc-7.2.mig", ()),
    ("packed/uuid-11.1.mig.xz", ()),
    ("packed/mapped-11.1.mig.xz", ()),
    ("packed/ignoreshared-10.0.mig.xz", ()),
    ("packed/xbzrle-7.2.mig.xz", ()),
    ("packed/compress-7.2.mig.xz", ()),
    ("packed/advise-7.2.mig.xz", ()),
    ("containers/multifd-10.0.pcap.xz", ()),
    ("packed/postcopy-preempt-7.2.mig.xz", ("packed/postcopy-preempt-7.2.rp.bin.xz",)),
    ("containers/libvirt-raw.save.xz", ()),
    ("containers/savevm-7.2.qcow2.xz", ()),
)
"""The files of samples/ in which examples are looked for, with their channels, in this order."""


def kind(packet: Any) -> str:
    """Return what an example is of: a record, for RAM also its flags."""
    name = type(packet).__name__
    return f"{name} {RamSaveFlag(packet.flags).name}" if isinstance(packet, known.RamRecord) else name


def examples() -> dict[str, tuple[str, Any]]:
    """Return an example of each record: the sample, and the packet that starts with it."""
    found: dict[str, tuple[str, Any]] = {}
    for sample, channels in SOURCES:
        with QmigReader(SAMPLES / sample, channels=[SAMPLES / one for one in channels]) as reader:
            for packet in reader:
                for one in stacked(packet):
                    # A zero page of a multifd packet would say little.
                    if isinstance(one, known.MultiFDPagePacket) and not one.normal_pages:
                        continue
                    at = packet.offset + len(packet.original) - len(one.original)
                    found.setdefault(kind(one), (f"samples/{sample}, {packet.source}, offset {at:#x}", one))
    return found


def declared(module: ModuleType) -> Iterator[type[Record]]:
    """Yield the records of a module, in the order of its text."""
    here = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Record)]
    yield from sorted(
        (one for one in here if one.__module__ == module.__name__), key=lambda one: inspect.getsourcelines(one)[1]
    )


def words(text: str | None) -> str:
    """Return a docstring as Markdown."""
    lines = inspect.cleandoc(text or "")
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", lines).replace("``", "`")


def figure(cls: Any) -> str:
    """Return the figure of a layer, long fields shortened."""
    out: list[str] = []
    blank: list[str] = []
    for line in (rfc(cls, ret=True, legend=False) or "").rstrip().splitlines():
        if line.strip(" |+"):
            out += blank if len(blank) < BLANK else [blank[0], "|" + "...".center(63) + "|", blank[-1]]
            out.append(line)
            blank = []
        else:
            blank.append(line)
    return "\n".join(line.rstrip() for line in [*out, *blank])


def values(record: type[Record]) -> str:
    """Return the names of values of a record's fields."""
    lines = []
    for name, outer in record.wire:
        one = outer.kind if isinstance(outer, When) else outer
        names = one.names if isinstance(one, Fixed | PageFlags) else None
        if isinstance(one, Fixed) and one.constant is not None:
            lines.append(f"`{name}`: `{one.constant}` {one.default:#x}.\n")
        if names is not None:
            shown = [f"`{key}` {value:#x}" for key, value in names.__members__.items()]
            what = "bits" if issubclass(names, IntFlag) else "values"
            lines.append(f"{what} of `{name}`: {', '.join(shown)}.\n")
    return "\n".join(lines)


def dump(raw: bytes) -> str:
    """Return a hexdump of the first bytes."""
    shown = hexdump(raw[:BYTES], dump=True) or ""
    more = len(raw) - BYTES
    return "\n".join(line.rstrip() for line in shown.splitlines()) + (f"\n... {more} more bytes" if more > 0 else "")


def example(place: str, packet: Any) -> str:
    """Return the bytes of a record and its fields."""
    alone = packet.copy()
    alone.remove_payload()
    shown = "\n".join(line.rstrip() for line in (alone.show(dump=True) or "").rstrip().splitlines())
    return f"{place}:\n\n```\n{dump(bytes(packet.self_build()))}\n\n{shown}\n```\n"


def page(record: type[Record], found: dict[str, tuple[str, Any]]) -> str:
    """Return the section of a record."""
    cls = layer(record)
    name = record.__name__
    mine = [one for key, one in found.items() if key.split(" ")[0] == name]
    parts = [f"### {name}\n", words(record.__doc__) + "\n", f"```\n{figure(cls)}\n```\n", values(record)]
    if mine:
        parts += [example(*one) for one in mine]
    else:
        parts.append(example("In no sample; with its usual values", cls(bytes(cls()))))
    return "\n".join(part for part in parts if part)


def text() -> str:
    """Return the book."""
    found = examples()
    parts = [INTRODUCTION]
    for title, module, loaded in CHAPTERS:
        first = (loaded.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## {title}\n\n`parsers/{module}.py`: {words(first)}\n")
        parts += [page(record, found) for record in declared(loaded)]
    bodies = [one for one in vars(known).values() if isinstance(one, type) and issubclass(one, RawBytes)]
    lines = [f"| `{one.__name__}` | {words(one.__doc__)} |" for one in bodies if one is not RawBytes]
    parts.append("## Bytes that are no record\n\n| layer | |\n|---|---|\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
