"""Writes migration streams in memory, and says what it wrote.

Independent of the parsers on purpose: nothing of qmigtool is imported here. The facts are those of QEMU's
``migration/savevm.c``, ``ram.c`` and ``vmstate.c``, written down a second time.

A device is a :class:`Vmsd` of fields that hold their values, so that one description gives the bytes and the JSON::

    stream = StreamWriter("pc")
    stream.start(2, "ram", 0, 4, mem_size([("pc.ram", 0x2000)]) + eos())
    stream.part(2, zero(0, "pc.ram") + zero(0x1000) + eos())
    stream.device(3, "timer", 0, Vmsd("timer", 2, [num("ticks", "int64", 5)]))
    data = stream.finish()
    stream.spans  # what was written, item by item
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

PAGE = 4096


def be16(value: int) -> bytes:
    return struct.pack(">H", value)


def be32(value: int) -> bytes:
    return struct.pack(">I", value)


def be64(value: int) -> bytes:
    return struct.pack(">Q", value)


def raw_name(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def str8(text: str | bytes) -> bytes:
    raw = raw_name(text)
    return bytes([len(raw)]) + raw


# -- RAM records -----------------------------------------------------------------------------------------------------


def word(addr: int, flags: int) -> bytes:
    return be64(addr | flags)


def _page_head(addr: int, flag: int, block: str | bytes | None) -> bytes:
    return word(addr, flag | 0x20) if block is None else word(addr, flag) + str8(block)


def zero(addr: int, block: str | bytes | None = None, fill: int = 0) -> bytes:
    """A page of one byte value; without a block, CONTINUE."""
    return _page_head(addr, 0x02, block) + bytes([fill])


def page(addr: int, data: bytes, block: str | bytes | None = None) -> bytes:
    return _page_head(addr, 0x08, block) + data


def xbzrle(addr: int, data: bytes, block: str | bytes | None = None, *, encoding: int = 1) -> bytes:
    return _page_head(addr, 0x40, block) + bytes([encoding]) + be16(len(data)) + data


def compressed(addr: int, data: bytes, block: str | bytes | None = None) -> bytes:
    return _page_head(addr, 0x100, block) + be32(len(data)) + data


def eos() -> bytes:
    return word(0, 0x10)


def flush() -> bytes:
    return word(0, 0x200)


def mem_size(blocks: Sequence[tuple[str | bytes, int] | tuple[str | bytes, int, bytes]]) -> bytes:
    """The block list; a third part of an entry is what follows its length (page size, mr_addr, mapped-ram header)."""
    out = word(sum(entry[1] for entry in blocks), 0x04)
    for name, length, *more in blocks:
        out += str8(name) + be64(length) + b"".join(more)
    return out


# -- vmstate: values with their description --------------------------------------------------------------------------


class Pairs(list[tuple[str, Any]]):
    """A JSON object in order, duplicate keys allowed."""


def dump(value: Any, *, spaced: bool = False) -> str:
    """Write JSON as QEMU does: since 6.0 compact, before with blanks inside the brackets."""
    if isinstance(value, Pairs):
        colon = " : " if spaced else ": "
        inner = ", ".join(json.dumps(key) + colon + dump(part, spaced=spaced) for key, part in value)
        return f"{{ {inner} }}" if spaced else f"{{{inner}}}"
    if isinstance(value, list):
        inner = ", ".join(dump(part, spaced=spaced) for part in value)
        return f"[ {inner} ]" if spaced else f"[{inner}]"
    return json.dumps(value)


_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
_WIDTH_OF = {"bool": 1, "timer": 8, "CPU_Double_U": 8, "nullptr": 1, "ptr-marker": 1, "int32 le": 4}


def width(type_: str) -> int:
    if type_ in _WIDTH_OF:
        return _WIDTH_OF[type_]
    return _SIZES[type_.removesuffix(" equal").lstrip("uint")]


def encode(type_: str, value: int) -> bytes:
    return (value & (1 << 8 * width(type_)) - 1).to_bytes(width(type_), "big")


@dataclass
class Item:
    """Some entries of ``fields``: their JSON, and the bytes in the stream."""

    entries: list[Pairs]
    data: bytes


@dataclass
class Vmsd:
    """A description with its values; ``fields`` are :class:`Item`, ``subsections`` are :class:`Vmsd`."""

    name: str
    version: int
    fields: Sequence[Item]
    subsections: Sequence[Vmsd] = ()

    def body(self) -> bytes:
        out = b"".join(item.data for item in self.fields)
        for sub in self.subsections:
            out += b"\x05" + str8(sub.name) + be32(sub.version) + sub.body()
        return out

    def pairs(self) -> Pairs:
        found = Pairs(
            [
                ("vmsd_name", self.name),
                ("version", self.version),
                ("fields", [entry for item in self.fields for entry in item.entries]),
            ]
        )
        if self.subsections:
            found.append(("subsections", [sub.pairs() for sub in self.subsections]))
        return found


def _entry(
    name: str, type_: str, size: int, *, count: int | None = None, more: Iterable[tuple[str, Any]] = ()
) -> Pairs:
    return Pairs(
        [
            ("name", name),
            *([("array_len", count)] if count is not None else []),
            ("type", type_),
            *more,
            ("size", size),
        ]
    )


def num(name: str, type_: str, value: int) -> Item:
    """A number, a bool, a timer."""
    return Item([_entry(name, type_, width(type_))], encode(type_, value))


def nums(name: str, type_: str, values: Sequence[int]) -> Item:
    """An array of numbers. QEMU writes no ``array_len`` for one element and no entry for none."""
    data = b"".join(encode(type_, value) for value in values)
    if not values:
        return Item([], b"")
    return Item([_entry(name, type_, width(type_), count=len(values) if len(values) > 1 else None)], data)


def raw(name: str, data: bytes, type_: str = "buffer") -> Item:
    """Bytes under any type: ``buffer``, ``unused_buffer``, ``bitmap``, a custom hook."""
    return Item([_entry(name, type_, len(data))], data)


def null_pointers(name: str, count: int) -> Item:
    """An array of NULL pointers as QEMU before 10 describes it: by its first element, a struct of nothing."""
    return Item([_entry(name, "struct", 1, count=count, more=[("struct", Pairs())])], b"0" * count)


def struct_(name: str, vmsd: Vmsd) -> Item:
    body = vmsd.body()
    return Item([_entry(name, "struct", len(body), more=[("struct", vmsd.pairs())])], body)


def structs(name: str, vmsds: Sequence[Vmsd]) -> Item:
    """A collapsed array: only the first element is described."""
    first = vmsds[0].body()
    entry = _entry(name, "struct", len(first), count=len(vmsds), more=[("struct", vmsds[0].pairs())])
    return Item([entry], b"".join(vmsd.body() for vmsd in vmsds))


def uncollapsed(name: str, vmsds: Sequence[Vmsd], *, index: str = "all") -> Item:
    """An array with one entry per element; ``index`` as QEMU writes it: all (5.2), but-last (10.0) or none (11.1)."""
    entries = []
    for i, vmsd in enumerate(vmsds):
        entry = _entry(name, "struct", len(vmsd.body()), more=[("struct", vmsd.pairs())])
        if index == "all" or (index == "but-last" and i < len(vmsds) - 1):
            entry.insert(1, ("index", i))
        entries.append(entry)
    return Item(entries, b"".join(vmsd.body() for vmsd in vmsds))


def inline(name: str, type_: str, vmsds: Sequence[Vmsd], data: bytes) -> Item:
    """A field that contains its descriptions: one set of keys per element, so keys occur more than once."""
    more = [pair for vmsd in vmsds for pair in vmsd.pairs()]
    return Item([_entry(name, type_, len(data), more=more)], data)


def tmp(name: str, vmsd: Vmsd) -> Item:
    return inline(name, "tmp", [vmsd], vmsd.body())


def qtailq(name: str, vmsds: Sequence[Vmsd], type_: str = "qtailq") -> Item:
    return inline(name, type_, vmsds, b"".join(b"\x01" + vmsd.body() for vmsd in vmsds) + b"\x00")


def gtree(name: str, elements: Sequence[tuple[int | Vmsd, Vmsd]]) -> Item:
    """A tree; a key is a number ("direct") or described."""
    data = be32(len(elements))
    vmsds = []
    for key, value in elements:
        if isinstance(key, Vmsd):
            vmsds.append(key)
        vmsds.append(value)
        data += b"\x01" + (key.body() if isinstance(key, Vmsd) else be64(key)) + value.body()
    return inline(name, "gtree", vmsds, data + b"\x00")


def pointers(name: str, elements: Sequence[Vmsd | None]) -> Item:
    """An array of pointers as QEMU 11 writes it: a ptr-marker for each, 31 and the object or 30."""
    entries, data = [], b""
    for element in elements:
        entries.append(_entry(name, "ptr-marker", 1))
        data += b"0" if element is None else b"1"
        if element is not None:
            body = element.body()
            entries.append(_entry(name, "struct", len(body), more=[("struct", element.pairs())]))
            data += body
    return Item(entries, data)


def null_run(name: str, count: int) -> Item:
    """A run of NULLs as QEMU 10 writes it."""
    return Item([_entry(name, "nullptr", 1, count=count)], b"0" * count)


# -- framing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """One item as it was written, in the words that `qmigtool sections` uses."""

    type: str
    offset: int
    length: int
    body_offset: int
    body_length: int
    section_id: int | None = None
    name: str | None = None
    instance_id: int | None = None
    version_id: int | None = None


def target_page_bits(bits: int) -> bytes:
    return b"\x05" + str8("configuration/target-page-bits") + be32(1) + be32(bits)


def capabilities(*names: str) -> bytes:
    body = be32(len(names)) + b"".join(map(str8, names))
    return b"\x05" + str8("configuration/capabilities") + be32(1) + body


def uuid_subsection(uuid: bytes) -> bytes:
    return b"\x05" + str8("configuration/uuid") + be32(1) + uuid


@dataclass
class StreamWriter:
    """Appends items; ``spans`` records them, ``described`` the vmdesc's devices."""

    machine: str | bytes | None = "pc-i440fx-7.2"
    footers: bool = True
    config: bytes = b""
    data: bytearray = field(default_factory=bytearray)
    spans: list[Span] = field(default_factory=list)
    described: list[Pairs] = field(default_factory=list)
    started: dict[int, tuple[str, int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._add("header", b"QEVM" + be32(3), 0)
        if self.machine is not None:
            machine = raw_name(self.machine)
            self._add("configuration", b"\x07" + be32(len(machine)) + machine + self.config, 1)

    def _add(self, type_: str, data: bytes, head: int, **more: Any) -> None:
        at = len(self.data)
        self.data += data
        self.spans.append(Span(type_, at, len(data), at + head, len(data) - head, **more))

    def _section(self, type_: str, head: bytes, body: bytes, section_id: int, named: tuple[str, int, int]) -> None:
        at = len(self.data)
        self.data += head + body + (b"\x7e" + be32(section_id) if self.footers else b"")
        self.spans.append(Span(type_, at, len(self.data) - at, at + len(head), len(body), section_id, *named))

    def _headed(self, kind: int, section_id: int, named: tuple[str, int, int]) -> bytes:
        name, instance_id, version_id = named
        return bytes([kind]) + be32(section_id) + str8(name) + be32(instance_id) + be32(version_id)

    def start(self, section_id: int, name: str, instance_id: int, version_id: int, body: bytes) -> None:
        named = (name, instance_id, version_id)
        self.started[section_id] = named
        self._section("start", self._headed(1, section_id, named), body, section_id, named)

    def part(self, section_id: int, body: bytes) -> None:
        self._section("part", b"\x02" + be32(section_id), body, section_id, self.started[section_id])

    def end(self, section_id: int, body: bytes) -> None:
        self._section("end", b"\x03" + be32(section_id), body, section_id, self.started[section_id])

    def full(self, section_id: int, name: str, instance_id: int, version_id: int, body: bytes) -> None:
        named = (name, instance_id, version_id)
        self._section("full", self._headed(4, section_id, named), body, section_id, named)

    def device(self, section_id: int, name: str, instance_id: int, vmsd: Vmsd) -> None:
        """A FULL section that the vmdesc describes."""
        self.full(section_id, name, instance_id, vmsd.version, vmsd.body())
        self.described.append(Pairs([("name", name), ("instance_id", instance_id), *vmsd.pairs()]))

    def old_style(self, section_id: int, name: str, instance_id: int, version_id: int, body: bytes) -> None:
        """A FULL section of a device without a vmstate description: the vmdesc has it as one buffer."""
        self.full(section_id, name, instance_id, version_id, body)
        data = Pairs([("name", "data"), ("size", len(body)), ("type", "buffer")])
        entry = [("name", name), ("instance_id", instance_id), ("size", len(body)), ("fields", [data])]
        self.described.append(Pairs(entry))

    def command(self, number: int, name: str, payload: bytes = b"") -> None:
        self._add("command", b"\x08" + be16(number) + be16(len(payload)) + payload, 5, name=name)

    def packaged(self, length: int) -> None:
        """The head of a package; its items follow by the other methods, ``length`` bytes of them."""
        self.command(7, "PACKAGED", be32(length))

    def eof(self) -> None:
        self._add("eof", b"\x00", 1)

    def vmdesc_text(self, page_size: int = PAGE, *, spaced: bool = False) -> bytes:
        return dump(Pairs([("page_size", page_size), ("devices", list(self.described))]), spaced=spaced).encode()

    def vmdesc(self, text: bytes | None = None, **style: Any) -> None:
        text = self.vmdesc_text(**style) if text is None else text
        self._add("vmdesc", b"\x06" + be32(len(text)) + text, 5)

    def tail(self, data: bytes) -> None:
        self._add("tail", data, 0)

    def finish(self, *, vmdesc: bool = True, tail: bytes = b"", **style: Any) -> bytes:
        self.eof()
        if vmdesc:
            self.vmdesc(**style)
        if tail:
            self.tail(tail)
        return bytes(self.data)


def x86_cpu(
    instance_id: int = 0,
    *,
    registers: int = 16,
    xcr0: int = 7,
    xstate_bv: int = 7,
    fpregs: Sequence[tuple[int, int]] = ((0, 0),) * 8,
    fpus: int = 0,
    fptag: int = 0,
    fpuc: int = 0x37F,
    mxcsr: int = 0x1F80,
    xmm: Sequence[tuple[int, int]] = (),
    ymmh: Sequence[tuple[int, int]] = (),
    subsections: Sequence[Vmsd] = (),
    extra: Sequence[Item] = (),
) -> Vmsd:
    """A ``cpu`` section as target/i386/machine.c describes it, cut to what matters to XSAVE."""

    def quads(struct_name: str, first: int, values: Sequence[tuple[int, int]]) -> list[Vmsd]:
        whole = [*values, *[(0, 0)] * (registers - len(values))]
        return [
            Vmsd(struct_name, 1, [num(f"_q_ZMMReg[{first + i}]", "uint64", q) for i, q in enumerate(pair)])
            for pair in whole
        ]

    def fpreg(mantissa: int, exponent: int) -> Vmsd:
        inner = Vmsd("fpreg_tmp", 0, [num("tmp_mant", "uint64", mantissa), num("tmp_exp", "uint16", exponent)])
        return Vmsd("fpreg", 0, [tmp("tmp", inner)])

    return Vmsd(
        "cpu",
        12,
        [
            nums("env.regs", "uint64", range(registers)),
            num("env.fpuc", "uint16", fpuc),
            num("env.fpus_vmstate", "uint16", fpus),
            num("env.fptag_vmstate", "uint16", fptag),
            num("env.fpregs_format_vmstate", "uint16", 0),
            structs("env.fpregs", [fpreg(*value) for value in fpregs]),
            *extra,
            num("env.mxcsr", "uint32", mxcsr),
            structs("env.xmm_regs[0]", quads("xmm_reg", 0, xmm)),
            num("env.xcr0", "uint64", xcr0),
            num("env.xstate_bv", "uint64", xstate_bv),
            structs("env.xmm_regs[1]", quads("ymmh_reg", 2, ymmh)),
        ],
        subsections,
    )
