"""The recorded cases, made again: which stream, which edit, which target.

``CASES`` has what can be decided from the file and the target; ``NOT_DECIDED`` the others, with the reason. Together
they are all cases that are recorded (``test_predict`` counts them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from qmigtool.parsers.section import Type
from qmigtool.preflight.target.model import Target
from tests.preflight import recorded
from tests.preflight.edited import (
    Edit,
    Edited,
    be16,
    be32,
    be64,
    known_subsection,
    source,
    str8,
    subsection,
)

UUID = "12345678-1234-1234-1234-123456789abc"
HPET = "hpet"
MPX, PKRU = "cpu/mpx", "cpu/pkru"


class Case(NamedTuple):
    """``reference`` and ``change`` make the target; ``edit`` changes the stream ``source``."""

    source: str
    reference: str
    edit: Edit | bytes | None = None
    change: Mapping[str, Any] = {}

    def data(self) -> bytes:
        if isinstance(self.edit, bytes):
            return self.edit
        if self.edit is None:
            return source(self.source)
        edited = Edited(self.source)
        self.edit(edited)
        return edited.result()

    def target(self, qemu: str) -> Target:
        own = self.change.get("only", {}).get(qemu, {})
        made = recorded.target(own.get("reference", self.reference), qemu)
        more = {**self.change.get("parts", {}), **own.get("parts", {})}
        for part in ("capabilities", "properties"):
            if part in self.change:
                more[part] = {**getattr(made, part), **self.change[part]}
        return replace(made, **more)


def pc(edit: Edit | bytes | None = None, reference: str = "t00", **change: Any) -> Case:
    return Case("pc-7.2", reference, edit, change)


def q35(edit: Edit | None = None, reference: str = "t23") -> Case:
    return Case("q35-7.2", reference, edit)


def tcg(edit: Edit | None = None, reference: str = "t39", **change: Any) -> Case:
    """The twin saved under TCG, made ready for KVM (XSTATE_BV), and then edited."""

    def ready(e: Edited) -> None:
        edited = {field for field, _ in getattr(edit, "sets", ())}
        if "cpu/env.xstate_bv" not in edited:
            e.set("cpu/env.xstate_bv", 7)
        if edit is not None:
            edit(e)

    return Case("twin-tcg-10.0", reference, ready, {"parts": {"xcr0": 0xE7}, **change})


def kvm(edit: Edit | None = None, reference: str = "t39", **change: Any) -> Case:
    return Case("twin-kvm-10.0", reference, edit, {"parts": {"xcr0": 0xE7}, **change})


def mshv(case: Case) -> Case:
    return case._replace(reference="t40", change={"parts": {"accelerator": "mshv", "xcr0": 0xE7}})


# -- edits -----------------------------------------------------------------------------------------------------------


def set_fields(*sets: tuple[str, int]) -> Edit:
    def edit(e: Edited) -> None:
        for path, value in sets:
            e.set(path, value)

    edit.sets = sets  # type: ignore[attr-defined]
    return edit


def drop(name: str, instance: int = 0) -> Edit:
    return lambda e: e.drop(e.section(name, instance))


def version(name: str, number: int) -> Edit:
    return lambda e: e.version(e.section(name), number)


def append(name: str, data: bytes, instance: int = 0) -> Edit:
    return lambda e: e.append(e.section(name, instance), data)


def insert_known(name: str, start: bytes = b"", number: int = 1) -> Edit:
    return append("cpu", known_subsection(name, start, number))


def command(number: int, payload: bytes = b"", length: int | None = None) -> Edit:
    """A command, before the first device section."""
    head = b"\x08" + be16(number) + be16(len(payload) if length is None else length)
    return lambda e: e.insert(e.devices()[0].offset, head + payload)


def record(word: int, data: bytes = b"", name: str | None = None) -> Edit:
    return lambda e: e.record(be64(word) + (str8(name) if name is not None else b"") + data)


def both(*edits: Edit) -> Edit:
    def edit(e: Edited) -> None:
        for one in edits:
            one(e)

    edit.sets = [pair for one in edits for pair in getattr(one, "sets", ())]  # type: ignore[attr-defined]
    return edit


def rewriter(*edits: tuple[Any, ...]) -> Edit:
    """Plain edits, by qmigtool's own rewriter."""

    def edit(e: Edited) -> None:
        import io

        import qmigtool

        draft = qmigtool.Rewriter(e.stream, lossy=True)
        for name, *arguments in edits:
            getattr(draft, name)(*arguments)
        out = io.BytesIO()
        draft.write(out)
        e.replace(0, len(e.data), out.getvalue())

    return edit


def _c5_all(e: Edited) -> None:
    e.drop(*e.devices())


def _c7(e: Edited) -> None:
    hpet = e.section(HPET)
    e.drop(hpet)
    e.insert(e.one(Type.EOF).end, e.raw(hpet))


def _c10(e: Edited) -> None:
    moved = [one for one in e.devices() if one.name in ("cpu", "apic", "cpu_common")]
    e.drop(*moved)
    e.insert(e.devices()[-1].end, b"".join(map(e.raw, moved)))


def _c10b(e: Edited) -> None:
    devices = e.devices()
    raw = b"".join(map(e.raw, reversed(devices)))
    e.replace(devices[0].offset, devices[-1].end, raw)


def _number(number: int) -> Edit:
    def edit(e: Edited) -> None:
        hpet = e.section(HPET)
        e.put(hpet.offset + 1, be32(number))
        e.put(hpet.end - 4, be32(number))

    return edit


def _short(name: str, instance: int, count: int) -> Edit:
    def edit(e: Edited) -> None:
        one = e.section(name, instance)
        end = one.body_offset + one.body_length
        e.cut(end - count, end)

    return edit


def _no_footer(e: Edited) -> None:
    end = e.section(HPET).end
    e.cut(end - 5, end)


def _no_name(e: Edited) -> None:
    e.put(e.section(HPET).offset + 5, b"\0")


def _d5(e: Edited) -> None:
    sub = e.field("cpu/cpu/poll_control_msr")
    e.insert(sub.offset, e.data[sub.offset : sub.offset + sub.length])


def _d6(e: Edited) -> None:
    subs = [one for one in e.stream.device("cpu").fields if one.kind == "subsection"]
    raw = b"".join(e.data[one.offset : one.offset + one.length] for one in reversed(subs))
    e.replace(subs[0].offset, subs[-1].offset + subs[-1].length, raw)


def _drop_field(path: str) -> Edit:
    def edit(e: Edited) -> None:
        field = e.field(path)
        e.cut(field.offset, field.offset + field.length)

    return edit


def _sub_version(path: str, number: int) -> Edit:
    def edit(e: Edited) -> None:
        field = e.field(path)
        e.put(field.offset + 2 + len(field.name), be32(number))

    return edit


def _d8(e: Edited) -> None:
    drive = e.field("fdc/state/drives").children[0]
    e.insert(drive.offset + drive.length, subsection("fdrive/foo"))


def _d12(e: Edited) -> None:
    newer = Edited("pc-11.1")
    sub = newer.field("0000:00:01.3/piix4_pm/piix4_pm/cpuhp")
    e.append(e.section("0000:00:01.3/piix4_pm"), newer.data[sub.offset : sub.offset + sub.length])


def _e1(e: Edited) -> None:
    e.version(e.section("cpu"), 11)
    for name in ("env.xcr0", "env.xstate_bv", "env.xmm_regs[1]"):
        field = e.stream.device("cpu").get(name)
        assert field is not None
        e.cut(field.offset, field.offset + field.length)


def _runstate(text: str) -> Edit:
    def edit(e: Edited) -> None:
        field = e.field("globalstate/runstate")
        e.put(field.offset, text.encode().ljust(field.length, b"\0"))

    return edit


def _vendor(e: Edited) -> None:
    e.put(e.field("0000:00:00.0/I440FX/parent_obj/config[0]").offset, b"\x87")


def _guest_mode(e: Edited) -> None:
    e.set("cpu/env.hflags", e.stream.device("cpu").number("env.hflags") | 1 << 21)  # type: ignore[operator]


def _rename_block(name: str, to: str) -> Edit:
    return rewriter(("rename_block", name, to))


def _extra_block(e: Edited) -> None:
    e.insert(e.block("pc.ram")[0], str8("foo.rom") + be64(0x10000))
    e.total(0x10000)


def _list_only_rename(e: Edited) -> None:
    start, end = e.block("pc.ram")
    e.replace(start, end - 8, str8("mem0"))


def _unlist(name: str) -> Edit:
    def edit(e: Edited) -> None:
        start, end = e.block(name)
        e.cut(start, end)
        e.total(-int.from_bytes(e.data[end - 8 : end], "big"))

    return edit


def _no_pages(e: Edited) -> None:
    for one in (e.one(Type.PART), e.one(Type.END)):
        e.cut(one.body_offset, one.body_offset + one.body_length - 8)


def _continue_first(e: Edited) -> None:
    """The first record is a CONTINUE page without a block: it comes before one that names it."""
    e.insert(e.first_record(), be64(0x28) + bytes(4096))


def _no_eos(e: Edited) -> None:
    part = e.section("ram", type_=Type.PART)
    end = part.body_offset + part.body_length
    e.cut(end - 8, end)


def _cut_at(place: str, more: int = 0) -> Edit:
    def edit(e: Edited) -> None:
        at = {
            "ram": e.first_record() + 8 + 7 + 2000,
            "cpu2": e.field("cpu@2/env.cr[4]").offset + 4 if place == "cpu2" else 0,
            "hpet": e.section(HPET).end,
            "eof": e.one(Type.EOF).offset,
            "vmdesc": e.one(Type.EOF).end,
            "half": e.one(Type.VMDESC).offset + e.one(Type.VMDESC).length // 2,
        }[place]
        e.cut(at + more, len(e.data))

    return edit


def _tail(e: Edited) -> None:
    e.insert(len(e.data), bytes(65536))


def _empty_vmdesc(e: Edited) -> None:
    one = e.one(Type.VMDESC)
    e.replace(one.offset, one.end, b"\x06" + be32(2) + b"{}")


def _garbage_eof(e: Edited) -> None:
    e.put(e.one(Type.EOF).offset, b"\xff")


def _ram_dropped(*types: Type) -> Edit:
    return lambda e: e.drop(*(one for one in e.sections() if one.name == "ram" and one.type in types))


def _block_length(name: str, length: int) -> Edit:
    return lambda e: e.length(name, length)


def _without_footers(e: Edited) -> None:
    """noconfig-7.2 with a configuration section and without footers."""
    e.insert(8, b"\x07" + be32(13) + b"pc-i440fx-7.2")
    for one in e.sections():
        if one.type in (Type.START, Type.PART, Type.END, Type.FULL):
            e.cut(one.end - 5, one.end)


CAPS = "configuration/capabilities"
NET = "0000:00:03.0/virtio-net-pci.rom"
NET_9 = "0000:00:09.0/virtio-net-pci.rom"

CASES: dict[str, Case] = {
    # -- the header and the configuration --
    "A0": pc(),
    "A1": pc(lambda e: e.put(0, b"X")),
    "A2": pc(lambda e: e.put(4, be32(2))),
    "A3": pc(lambda e: e.put(4, be32(4))),
    "A4": pc(b""),
    "A5": pc(lambda e: e.cut(6, len(e.data))),
    "A6": Case("noconfig-7.2", "t01"),
    "A6b": Case("noconfig-7.2", "t01", None, {"properties": {"send-configuration": False}}),
    "A7": pc(properties={"send-configuration": False}),
    "B1": pc(lambda e: e.machine("pc-i440fx-7.1")),
    "B2": pc(lambda e: e.machine("pc-q35-7.2")),
    "B3": pc(lambda e: e.machine("")),
    "B4": pc(lambda e: e.machine("pc-i440fx")),
    "B5": pc(lambda e: e.machine("pc-i440fx-7.2-foo")),
    "B6": pc(lambda e: e.machine(""), "t02"),
    "B7": pc(lambda e: e.configure(subsection(CAPS, be32(1) + str8("x-ignore-shared")))),
    "B7b": pc(capabilities={"x-ignore-shared": True}),
    "B8": pc(lambda e: e.configure(subsection(CAPS, be32(1) + str8("foo")))),
    "B9": pc(lambda e: e.configure(subsection("configuration/uuid", bytes.fromhex(UUID.replace("-", ""))))),
    "B10": pc(
        lambda e: e.configure(subsection("configuration/uuid", bytes.fromhex(UUID.replace("-", "")))),
        parts={"uuid": "00000000-0000-0000-0000-000000000001"},
    ),
    "B10b": pc(
        lambda e: e.configure(subsection("configuration/uuid", bytes.fromhex(UUID.replace("-", "")))),
        parts={"uuid": UUID},
    ),
    "B11": pc(lambda e: e.configure(subsection("configuration/target-page-bits", be32(13)))),
    "B12": pc(lambda e: e.configure(subsection("configuration/foo", bytes(4)))),
    "B13": pc(lambda e: e.configure(subsection("configuration/uuid", bytes(16), 2))),
    "B14": pc(lambda e: e.put(e.one(Type.CONFIGURATION).body_offset, be32(0x7FFFFFFF))),
    # -- sections --
    "C1": pc(lambda e: e.rename(e.section(HPET), "hpex")),
    "C2": pc(lambda e: e.put(e.section(HPET).body_offset - 8, be32(1))),
    "C3": pc(version("cpu", 13)),
    "C3b": pc(version(HPET, 3)),
    "C4": pc(version("cpu", 10)),
    "C4b": pc(version(HPET, 0)),
    "C4c": pc(version("i8254", 2)),
    "C5 hpet/0": pc(drop(HPET)),
    "C5 cpu/1": pc(drop("cpu", 1)),
    "C5 apic/1": pc(drop("apic", 1)),
    "C5 timer/0": pc(drop("timer")),
    "C5 globalstate/0": pc(drop("globalstate")),
    "C5 fw_cfg/0": pc(drop("fw_cfg")),
    "C5 0000:00:01.1/ide/0": pc(drop("0000:00:01.1/ide")),
    "C5 kvm-tpr-opt/0": pc(drop("kvm-tpr-opt")),
    "C5 serial/0": pc(drop("serial")),
    "C5 mc146818rtc/0": pc(drop("mc146818rtc")),
    "C5 i8259/1": pc(drop("i8259", 1)),
    "C5 all": pc(_c5_all),
    "C6": pc(lambda e: e.before(HPET, e.raw(e.section(HPET)))),
    "C7": pc(_c7),
    "C8": pc(lambda e: e.before(HPET, b"\x42")),
    "C8b": pc(lambda e: e.before(HPET, b"\x09")),
    "C9": pc(lambda e: e.before(HPET, b"\x02" + be32(77))),
    "C10": pc(_c10),
    "C10b": pc(_c10b),
    "C10c": pc(_number(999)),
    "C10d": pc(_number(29)),
    "C11": pc(_short(HPET, 0, 1)),
    "C12": pc(append(HPET, b"\0")),
    "C12b": pc(_short("cpu", 3, 4)),
    "C13": pc(_no_footer),
    "C14": pc(lambda e: e.put(e.section(HPET).end - 4, be32(26))),
    "C15": Case("noconfig-7.2", "t01", _without_footers),
    "C15b": Case("noconfig-7.2", "t01", _without_footers, {"properties": {"send-section-footer": False}}),
    "C16": pc(properties={"send-section-footer": False}),
    "C17": pc(lambda e: e.rename(e.section("0000:00:01.1/ide"), "ide")),
    "C17b": pc(lambda e: e.rename(e.section("0000:00:01.3/piix4_pm"), "piix4_pm")),
    "C18": pc(_no_name),
    "C19": pc(lambda e: e.put(e.section(HPET).body_offset - 8, be32(0xFFFFFFFF))),
    "C20": pc(lambda e: e.put(e.section(HPET).offset, b"\x01")),
    # -- subsections --
    "D1": pc(append("cpu", subsection("cpu/foo", bytes(4)))),
    "D2": pc(append("cpu", subsection("xyz/foo", bytes(4)))),
    "D3": pc(_sub_version("cpu/cpu/poll_control_msr", 2)),
    "D4": pc(_sub_version("cpu/cpu/poll_control_msr", 0)),
    "D5": pc(_d5),
    "D6": pc(_d6),
    "D7": pc(_drop_field("cpu/cpu/poll_control_msr")),
    "D8": pc(_d8),
    "D9": pc(_drop_field("fdc/state/drives[0]/fdrive/media_rate")),
    "D10": pc(append(HPET, subsection("hpet/foo", bytes(4)))),
    "D11": pc(insert_known("cpu/tsc_khz", be64(2_000_000))),
    "D12": pc(_d12, parts={"maxcpus": 4}),
    # -- fields --
    "E1": pc(_e1),
    "E2": pc(version("cpu", 11)),
    "E3": pc(set_fields(("cpu/env.fpregs_format_vmstate", 1))),
    "E4": pc(set_fields(("PCIBUS/nirq", 5))),
    "E5": pc(_runstate("foo")),
    "E5b": pc(_runstate("running")),
    "E5c": pc(set_fields(("globalstate/size", 200))),
    "E6": pc(_vendor),
    "E7": pc(set_fields(("hpet/num_timers", 4))),
    "E8": pc(set_fields(("ps2kbd/parent_obj/queue.count", 4096))),
    "E9": pc(set_fields(("fdc/state/num_floppies", 1))),
    "E10": pc(_guest_mode),
    "E11": pc(set_fields(("timer/cpu_ticks_offset", 0x123456789))),
    # -- RAM --
    "F1": pc(_rename_block("pc.rom", "pc.rox")),
    "F1b": pc(_extra_block),
    "F2": pc(None, "t03"),
    "F3": pc(_block_length("pc.rom", 0x10000)),
    "F4": pc(rewriter(("resize_block", "/rom@etc/acpi/tables", 0x10000))),
    "F5": pc(_block_length("/rom@etc/acpi/tables", 0x40000)),
    "F5b": pc(_block_length("/rom@etc/acpi/tables", 0x400000)),
    "F5c": pc(_block_length("/rom@etc/table-loader", 0x3000)),
    "F6": pc(rewriter(("drop_block", "/rom@etc/acpi/rsdp"))),
    "F6b": pc(_unlist("/rom@etc/acpi/rsdp")),
    "F6c": pc(rewriter(("drop_block", "pc.bios"))),
    "F6d": pc(_no_pages),
    "F7": pc(record(0x08, bytes(4096), "nope")),
    "F8": pc(record(0x20008, bytes(4096), "pc.rom")),
    "F8b": pc(record(0x20002, b"\0", "pc.rom")),
    "F9": pc(_continue_first),
    "F10": pc(record(0x808, bytes(4096), "pc.ram")),
    "F10b": pc(record(0x0A, bytes(4096), "pc.ram")),
    "F11": pc(record(0x100, be32(8) + bytes(8), "pc.ram"), capabilities={"compress": False}),
    "F12": pc(record(0x40, b"\x01" + be16(5000) + bytes(5000), "pc.ram")),
    "F12b": pc(record(0x40, b"\x07" + be16(4) + bytes(4), "pc.ram")),
    "F13": pc(record(0x02, b"\x41", "pc.ram")),
    "F14": pc(lambda e: e.version(e.section("ram", type_=Type.START), 5)),
    "F14b": pc(lambda e: e.version(e.section("ram", type_=Type.START), 3)),
    "F15": pc(_ram_dropped(Type.END)),
    "F15b": pc(_ram_dropped(Type.PART, Type.END)),
    "F15c": pc(_ram_dropped(Type.START, Type.PART, Type.END)),
    "F16": pc(lambda e: e.total(0x1000)),
    "F17": pc(record(0x200)),
    "F18": pc(record(0x80)),
    "F19": pc(_no_eos),
    # -- commands --
    "G1": pc(command(0x20)),
    "G2": pc(command(11)),
    "G2n": Case("t04-10.0", "t04"),
    "G2m": Case("t04-10.0", "t00", lambda e: e.machine("")),
    "G3": pc(command(11, bytes(4))),
    "G4": pc(command(2, be32(1))),
    "G4b": pc(command(1)),
    "G5": pc(command(0)),
    "G6": pc(command(7, be32(0xFFFFFFFF))),
    "G7": pc(command(3)),
    "G7b": pc(command(3, be64(4096) * 2), capabilities={"postcopy-ram": False}),
    "G8": pc(command(4)),
    "G9": pc(command(5)),
    "G10": pc(command(10, str8("nope"))),
    "G11": pc(command(8)),
    "G12": pc(command(9)),
    "G13": pc(command(6)),
    "G14": pc(command(3, be64(8192) * 2), capabilities={"postcopy-ram": True}),
    "G15": pc(capabilities={"postcopy-ram": True}),
    "G17": pc(capabilities={"xbzrle": True}),
    "G18": pc(capabilities={"return-path": True}),
    "G19": pc(capabilities={"mapped-ram": True}),
    "G20": Case(
        "mapped-10.0", "t05", lambda e: e.machine("pc-i440fx-10.0", subsection(CAPS, be32(1) + str8("mapped-ram")))
    ),
    "G20c": Case(
        "mapped-10.0",
        "t05",
        None,
        {"capabilities": {"mapped-ram": True}, "parts": {"machine": "pc-i440fx-10.0"}},
    ),
    "G21": Case("ignoreshared-10.0", "t05"),
    "G22": Case("compress-7.2", "t01", None, {"capabilities": {"compress": False}}),
    "G22b": Case("compress-7.2", "t01", None, {"capabilities": {"compress": True}}),
    "G23": pc(b"LibvirtQemudSave" + bytes(1000)),
    # -- where the file ends --
    "H1": pc(_cut_at("ram")),
    "H2": pc(_cut_at("cpu2")),
    "H2b": pc(_cut_at("hpet")),
    "H3": pc(_cut_at("eof")),
    "H4": pc(_cut_at("vmdesc")),
    "H4b": pc(_cut_at("half")),
    "H5": pc(_tail),
    "H6": pc(_empty_vmdesc),
    "H7": Case("novmdesc-7.2", "t01"),
    "H7b": Case("novmdesc-7.2", "t01", None, {"properties": {"suppress-vmdesc": True}}),
    "H8": pc(_garbage_eof),
    # -- other targets --
    "I1": pc(None, "t01"),
    "I2": pc(None, "t06"),
    "I3": pc(None, "t07"),
    "I4": pc(None, "t08"),
    "I4b": pc(None, "t09"),
    "I5": pc(None, "t10"),
    "I6": pc(None, "t11"),
    "I7": pc(None, "t12"),
    "I8": pc(None, "t13"),
    "I9": pc(None, "t02"),
    "I10": pc(None, "t14"),
    "I11": pc(None, "t15"),
    "I12": pc(None, "t16"),
    "I13": pc(None, "t17"),
    "I14": pc(None, "t18"),
    "I15": pc(None, "t19"),
    "I16": pc(None, "t20"),
    # -- subsections of cpu under TCG --
    "P1": pc(insert_known("cpu/avx512")),
    "P1q": pc(insert_known("cpu/avx512"), "t08"),
    "P2": pc(insert_known("cpu/intel_amx_xtile")),
    "P2b": pc(insert_known("cpu/intel_amx_xtile"), "t21"),
    "P2c": pc(insert_known("cpu/intel_amx_xtile"), "t22"),
    "P3": pc(insert_known(PKRU)),
    "P3q": pc(insert_known(PKRU), "t08"),
    "P4": pc(insert_known(MPX)),
    "P5": pc(insert_known("cpu/xss")),
    "P6": pc(insert_known("cpu/msr_xfd")),
    "P7": pc(insert_known("cpu/apx")),
    "P8": pc(insert_known("cpu/cet")),
    "P9": pc(insert_known("cpu/fred")),
    "P10": pc(insert_known("cpu/arch_lbr")),
    "P11": pc(),
    "P12": pc(insert_known("cpu/avx512", number=2)),
    "P13": pc(append("cpu", known_subsection("cpu/avx512")[:-64])),
    "P14": pc(insert_known("cpu/tsc_khz", be64(2_000_000))),
    "P15": pc(insert_known("cpu/steal_time_msr")),
    "P16": pc(append("cpu", subsection("cpu/kvm_nested_state", bytes(8)))),
    "P17": pc(_drop_field("cpu/cpu/poll_control_msr")),
    # -- RAM blocks and devices --
    "R0": q35(),
    "R1": q35(None, "t24"),
    "R2": q35(_block_length(NET, 0x80000), "t24"),
    "R3": q35(rewriter(("drop_block", NET)), "t24"),
    "R4": q35(None, "t25"),
    "R5": q35(None, "t26"),
    "R6": q35(rewriter(("resize_block", NET, 0x10000)), "t26"),
    "R6b": q35(_block_length(NET, 0x10000), "t26"),
    "R7": q35(None, "t27"),
    "R7b": q35(rewriter(("drop_block", NET)), "t27"),
    "R8": q35(_rename_block("pc.ram", "mem0"), "t28"),
    "R8b": q35(_list_only_rename, "t28"),
    "R9": q35(None, "t29"),
    "R9b": q35(rewriter(("drop_block", NET)), "t29"),
    "R9c": q35(rewriter(("drop_block", NET), ("drop_section", "0000:00:03.0/virtio-net")), "t29"),
    "R10": q35(None, "t30"),
    "R10b": q35(_rename_block(NET, NET_9), "t30"),
    "R10c": q35(
        rewriter(
            ("rename_block", NET, NET_9),
            ("rename_section", "0000:00:03.0/virtio-net", "0000:00:09.0/virtio-net"),
        ),
        "t30",
    ),
    "R10d": q35(
        rewriter(("drop_block", NET), ("rename_section", "0000:00:03.0/virtio-net", "virtio-net")),
        "t30",
    ),
    "R11": q35(None, "t31"),
    "R11b": q35(None, "t32"),
    "R11c": q35(None, "t33"),
    "R11d": q35(None, "t34"),
    "R11e": q35(None, "t35"),
    "R13": q35(_block_length("pc.ram", 32 << 20), "t37"),
    "R14": q35(lambda e: e.drop(*(e.section(name, 2) for name in ("cpu", "cpu_common", "apic"))), "t38"),
    # -- KVM --
    "K0": tcg(),
    "K0r": Case("twin-tcg-10.0", "t39", None, {"parts": {"xcr0": 0xE7}}),
    "K0k": kvm(),
    "K0t": kvm(None, "t40"),
    "K1": tcg(set_fields(("cpu/env.xcr0", 0x207))),
    "K1b": tcg(set_fields(("cpu/env.xcr0", 0x6))),
    "K1c": tcg(set_fields(("cpu/env.xcr0", 0x43))),
    "K2": tcg(set_fields(("cpu/env.xstate_bv", 0x207))),
    "K2b": tcg(set_fields(("cpu/env.xstate_bv", 0xE7))),
    "K3": tcg(set_fields(("cpu/env.mxcsr", 0xFFFFFFFF))),
    "K4": tcg(set_fields(("cpu/env.cr[4]", 1 << 40))),
    "K4b": tcg(set_fields(("cpu/env.cr[4]", 0x40620 | 1 << 22))),
    "K5": tcg(set_fields(("cpu/env.cr[0]", 0x80000032))),
    "K6": tcg(set_fields(("cpu/env.efer", 0x501 | 1 << 20))),
    "K7": tcg(set_fields(("cpu/env.pat", (1 << 64) - 1))),
    "K8": tcg(set_fields(("cpu/env.kernelgsbase", 0x1122334455667788))),
    "K9": tcg(set_fields(("cpu/env.mp_state", 77))),
    "K10": tcg(insert_known("cpu/tsc_khz", be64(1_000_000))),
    "K10b": tcg(insert_known("cpu/tsc_khz", be64(9_000_000))),
    "K10t": tcg(insert_known("cpu/tsc_khz", be64(1_000_000)), "t42", parts={"tsc_khz": 2_000_000}),
    "K11": kvm(drop("kvmclock")),
    "K11b": tcg(lambda e: e.before("dma", _kvmclock())),
    "K11c": kvm(None, "t43"),
    "K12": tcg(set_fields(("cpu/env.interrupt_injected", 0x1FF))),
    "K13": tcg(insert_known("cpu/msr_hyperv_hypercall")),
    "K13b": tcg(insert_known("cpu/msr_hyperv_hypercall"), "t40"),
    "K14": tcg(_guest_mode),
    "K15": tcg(set_fields(("apic/apicbase", 0xFEE00D00))),
    "K16": tcg(insert_known("cpu/xss", be64(0x800))),
    "K17": tcg(insert_known("cpu/intel_amx_xtile")),
    "K18": tcg(both(set_fields(("cpu/env.xstate_bv", 0xE7)), insert_known("cpu/avx512"))),
    "K19": tcg(set_fields(("cpu/env.system_time_msr", 0x123))),
    "K20": tcg(None, "t44"),
    "K22": tcg(set_fields(("cpu/env.smbase", 0xA0000))),
    "L1": tcg(),
    "L2": tcg(
        None,
        "t40",  # 7.2 and 10.0 cannot save such a machine either, so there is no reference of it
        only={
            "7.2": {"parts": {"unmigratable": ("0000:00:02.0/nvme",)}},
            "10.0": {"parts": {"unmigratable": ("0000:00:02.0/nvme",)}},
            "11.1": {"reference": "t47"},
        },
    ),
    # -- MSHV --
    "M0": mshv(kvm()),
    "M1": mshv(kvm(drop("kvmclock"))),
    "M2": mshv(Case("twin-tcg-10.0", "t40")),
    "M3": mshv(tcg()),
    "M4": mshv(kvm(lambda e: e.replace(*_clock(e), _full("mshv-clock", bytes(8))))),
    "M5": mshv(kvm(lambda e: e.replace(*_clock(e), _full("mshv-apic", bytes(20))))),
    "M6": mshv(
        kvm(
            both(
                drop("kvmclock"),
                set_fields(("cpu/env.xcr0", 0x207), ("cpu/env.xstate_bv", 0x207)),
                insert_known(PKRU),
            )
        )
    ),
    "M7": mshv(
        kvm(
            both(
                drop("kvmclock"),
                set_fields(("cpu/env.xcr0", 0x80007), ("cpu/env.xstate_bv", 0x80007)),
                insert_known("cpu/apx"),
            )
        )
    ),
    "M8": mshv(kvm(both(drop("kvmclock"), insert_known("cpu/steal_time_msr")))),
}


def _kvmclock() -> bytes:
    kvm_stream = Edited("twin-kvm-10.0")
    return kvm_stream.raw(kvm_stream.section("kvmclock"))


def _clock(e: Edited) -> tuple[int, int]:
    one = e.section("kvmclock")
    return one.offset, one.end


def _full(name: str, body: bytes, section_id: int = 7) -> bytes:
    head = b"\x04" + be32(section_id) + str8(name) + be32(0) + be32(1)
    return head + body + b"\x7e" + be32(section_id)


# The case MT: one row for each machine type and QEMU.
MACHINE_TYPES = {
    "pc-q35-7.2": "t23",
    **{f"pc-q35-{one}": f"t{50 + i}" for i, one in enumerate(("8.0", "8.1", "8.2", "9.0", "9.1", "9.2"))},
    **{f"pc-q35-{one}": f"t{56 + i}" for i, one in enumerate(("10.0", "10.1", "10.2", "11.0", "11.1"))},
    "pc-i440fx-7.2": "t00",
    "pc-i440fx-10.0": "t04",
    **{f"pc-i440fx-{one}": f"t{61 + i}" for i, one in enumerate(("8.0", "8.1", "8.2", "9.0", "9.1", "9.2"))},
    **{f"pc-i440fx-{one}": f"t{67 + i}" for i, one in enumerate(("10.1", "10.2", "11.0", "11.1"))},
}


def machine_type(name: str) -> Case:
    return Case("q35-7.2" if "q35" in name else "pc-7.2", MACHINE_TYPES[name], lambda e: e.machine(name))


TRANSPORT = "refused for the channel that it comes by, before a byte is read"
STARTUP = "the target does not start with these options, whatever comes in"
HOST = "loads, as predicted, with a warning that depends on the host's TSC"

CHANNELS = "pages that are not in the file may have come by other channels"

NOT_DECIDED = {
    "G16": TRANSPORT,
    "G20b": TRANSPORT,
    "K10c": STARTUP,
    "K21": STARTUP,
    "L3": STARTUP,
    "R12": STARTUP,
    "R12b": STARTUP,
}

PARTLY: dict[tuple[str, str], tuple[bool | None, str]] = {
    ("G19", "7.2"): (None, TRANSPORT),
    **{(name, qemu): (None, CHANNELS) for name in ("F6d", "F15b", "F15c") for qemu in ("7.2", "10.0", "11.1")},
    **{(name, qemu): (True, HOST) for name in ("K10", "K10b") for qemu in ("7.2", "10.0", "11.1")},
}
"""(case, QEMU) -> whether it loads, where that can be predicted, and why the words cannot."""
