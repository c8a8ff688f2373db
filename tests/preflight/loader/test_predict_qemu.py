"""Predictions against the real QEMU that is there, on the cases made again, and on streams damaged at random."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from qmigtool.parsers.section import Type
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader.predict import predict_source
from qmigtool.preflight.target.model import Target
from tests.preflight import recorded
from tests.preflight.cases import CASES, command, record, set_fields
from tests.preflight.edited import Edit, Edited, be16, be32, source, subsection
from tests.support.qemu import incoming

PC = ["-M", "pc-i440fx-7.2", "-accel", "tcg", "-cpu", "max", "-m", "16", "-nodefaults", "-serial", "null"]
KNOWN = ("7.2", "10.0", "11.1")


def arguments(reference: str) -> list[str]:
    smp = {"t00": 4, "t01": 2, "t03": 4, "t12": 4}[reference]
    more = {"t03": ["-m", "32"], "t12": ["-machine", "hpet=off"]}.get(reference, [])
    return [*PC, "-smp", str(smp), *more]


@pytest.fixture(scope="module")
def qemu() -> str:
    found = incoming.version()
    if found not in KNOWN:
        pytest.skip(f"QEMU {found}: there are references of {', '.join(KNOWN)}")
    return found


def compare(
    data: bytes,
    reference: str,
    qemu: str,
    folder: Path,
    target: Target | None = None,
    command: list[str] | None = None,
) -> None:
    """Let both judge a stream."""
    path = folder / "stream.mig"
    path.write_bytes(data)
    real = incoming.load(path, command or arguments(reference))
    found = predict_source(BufferSource(data), target or recorded.target(reference, qemu))
    printed = found.errors if found.loads is False else found.warnings
    assert (found.loads, printed) == (real.loaded, real.lines)


@pytest.mark.qemu
@pytest.mark.parametrize(
    "name",
    [
        *("A1", "A3", "A6", "B1", "B4", "B8", "B9", "B12", "B14", "C1", "C3", "C4", "C4c", "C8", "C9", "C11", "C14"),
        *("C17", "C19", "D1", "D2", "D3", "D8", "D12", "E1", "E3", "E4", "E5", "E6", "E7", "E9", "F1", "F2", "F3"),
        *("F5b", "F7", "F8", "F9", "F10", "F12b", "F13", "F16", "F18", "G1", "G2", "G4", "G7b", "G8"),
        *("H1", "H2", "H3", "H4", "I1", "I7", "P7", "P13"),
    ],
)
def test_real_qemu_says_it(name: str, qemu: str, tmp_path: Path) -> None:
    """Not G11: a QEMU that enters COLO may or may not say what becomes of it before it is asked to go."""
    case = CASES[name]
    compare(case.data(), case.reference, qemu, tmp_path, case.target(qemu))


def cut(name: str, more: int, *, end: bool = False) -> Edit:
    """Let the file end inside a section: so far behind its start, or behind its body's end."""

    def edit(e: Edited) -> None:
        one = e.section(name)
        e.cut((one.body_offset + one.body_length if end else one.offset) + more, len(e.data))

    return edit


def cut_end(e: Edited) -> None:
    e.cut(e.one(Type.END).offset + 3, len(e.data))


def irq_state(e: Edited) -> None:
    e.put(e.field("0000:00:00.0/I440FX/parent_obj/irq_state").offset, be32(0xFFFFFFFE))


def used_drive(e: Edited) -> None:
    ide = e.stream.device("0000:00:01.1/ide")
    drive = next(one for one in ide.fields if one.name == "bus[1].ifs").children[0]
    identify = next(one for one in drive.children if one.name == "identify_set")
    e.put(identify.offset, be32(1))
    e.insert(identify.offset + 4, bytes(512))


def cut_command(e: Edited) -> None:
    at = e.devices()[0].offset
    e.replace(at, len(e.data), b"\x08\x00\x02\x00")


OWN: dict[str, Edit] = {
    "type byte": cut("hpet", 1),
    "idstr": cut("hpet", 8),
    "instance": cut("hpet", 5 + 1 + 4 + 2),
    "footer byte": cut("hpet", 0, end=True),
    "footer id": cut("hpet", 3, end=True),
    "section id": cut_end,
    "last byte of a body": cut("hpet", -1, end=True),
    "command": cut_command,
    "between records": lambda e: e.cut(e.last_record() + 4, len(e.data)),
    "in the RAM list": lambda e: e.cut(e.block("pc.rom")[0], len(e.data)),
    "in the total": lambda e: e.cut(e.block("pc.ram")[0] - 2, len(e.data)),
    "less or equal": set_fields(("0000:00:00.0/I440FX/parent_obj/version_id", 3)),
    "less or equal, negative": set_fields(("0000:00:00.0/I440FX/parent_obj/version_id", 0xFFFFFFFF)),
    "irq state": irq_state,
    "xbzrle": record(0x40, b"\x01" + be16(3) + b"\x00\xff\x7f", "pc.ram"),
    "advise of 5 bytes": command(3, bytes(5)),
    "used drive": used_drive,
    "version of a body": lambda e: e.version(e.section("timer"), 0xFD000001),
    "page bits": lambda e: e.configure(subsection("configuration/target-page-bits", be32(0xFFFFFFFF))),
    "more than the total": lambda e: e.total(-0x1000),
    "transmitter not empty": set_fields(("serial@0/state/lsr", 0x20)),
    "transmitter empty, holding empty or not": set_fields(("serial@0/state/lsr", 0x40)),
    "tables too large": set_fields(("fw_cfg@0/fw_cfg/acpi_mr/table_mr_size", 0x200001)),
    "tables as large as can be": set_fields(("fw_cfg@0/fw_cfg/acpi_mr/table_mr_size", 0x200000)),
    "linker too large": set_fields(("fw_cfg@0/fw_cfg/acpi_mr/linker_mr_size", 1 << 48)),
}


@pytest.mark.qemu
@pytest.mark.parametrize("name", OWN)
def test_real_qemu_says_it_of_what_was_not_recorded(name: str, qemu: str, tmp_path: Path) -> None:
    edited = Edited("pc-7.2")
    OWN[name](edited)
    compare(edited.result(), "t00", qemu, tmp_path)


DISK = "0000:00:1f.2/ich9_ahci@0/ahci/dev[1]/"
DISKS: dict[str, Edit] = {
    "as it is": lambda e: None,
    "halted, not in use": set_fields((DISK + "ncq_tfs[6]/halt", 1)),
    "in use, not halted": set_fields((DISK + "ncq_tfs[6]/used", 1)),
    "of another slot, not in use": set_fields((DISK + "ncq_tfs[6]/slot", 3)),
    "no command of a queue": set_fields(*((DISK + f"ncq_tfs[6]/{name}", 1) for name in ("halt", "used", "cmd"))),
    "no such slot": set_fields((DISK + "busy_slot", 40)),
    "DMA engine": set_fields((DISK + "port_regs.cmd", 0x8000)),
    "FIS engine, and no such slot": set_fields((DISK + "port_regs.cmd", 0x4000), (DISK + "busy_slot", 40)),
}


@pytest.mark.qemu
@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("name", DISKS)
def test_real_qemu_says_it_of_disks(name: str, qemu: str, tmp_path: Path) -> None:
    edited = Edited("q35-7.2")
    DISKS[name](edited)
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    machine = ["-M", "pc-q35-7.2", *PC[2:], "-smp", "3", "-drive", f"if=none,id=d,file={disk},format=qcow2"]
    for device in ("virtio-blk-pci,drive=d", "virtio-net-pci", "virtio-rng-pci", "qemu-xhci", "usb-tablet"):
        machine += ["-device", device]
    compare(edited.result(), "t23", qemu, tmp_path, command=[*machine, "-vga", "std"])


@pytest.mark.qemu
@pytest.mark.parametrize("seed", range(24))
def test_real_qemu_says_it_of_damage(seed: int, qemu: str, tmp_path: Path) -> None:
    """Bytes changed, removed and inserted in device state, at random places."""
    rng = random.Random(seed)  # noqa: S311 - the same damage each time
    edited = Edited("pc-7.2")
    devices = edited.devices()
    data = bytearray(source("pc-7.2"))
    at = rng.randrange(devices[0].offset, devices[-1].end)
    kind = seed % 4
    if kind == 0:
        data[at] = rng.randrange(256)
    elif kind == 1:
        del data[at : at + rng.choice((1, 2, 4))]
    elif kind == 2:
        data[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
    else:
        del data[at:]
    compare(bytes(data), "t00", qemu, tmp_path)
