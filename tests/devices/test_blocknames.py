"""What a RAM block's name says, and how a stream begins, are said once."""

import ast
from pathlib import Path

import pytest

import qmigtool
import qmigtool.parsers
from qmigtool.devices.blocknames import device_block, is_board_memory, is_rom, main_blocks

PACKAGE = Path(qmigtool.__file__).parent
PARSERS = Path(qmigtool.parsers.__file__).parent
NAMES = frozenset({".rom", ".ram", "pc.bios", "pc.rom", "isa-bios", "mach-virt.ram", "microvm.ram"})
TABLES = {NAMES: "devices/blocknames.py", frozenset({0x5145564D}): "parsers/records.py"}
# xsave/holders names what is no XSAVE area, among it a stream: it may know nothing of parsers.
BEGINS = {frozenset({b"QEVM"}): "xsave/holders/__init__.py"}


@pytest.mark.parametrize(
    ("values", "place"), (TABLES | BEGINS).items(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_in_one_place(values: frozenset[object], place: str) -> None:
    found = set()
    for root, prefix in ((PACKAGE, ""), (PARSERS, "parsers/")):
        for path in root.rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if values & {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}:
                found.add(prefix + path.relative_to(root).as_posix())
    assert found == {place}


def test_kinds() -> None:
    assert all(map(is_rom, ("/rom@etc/acpi/tables", "0000:00:03.0/e1000.rom", "pc.bios", "isa-bios")))
    assert not any(map(is_rom, ("pc.ram", "vga.vram", "tpm-ppi", "/objects/ram0")))
    assert device_block("0000:00:02.0/vga.vram", 16 << 20)
    assert not device_block("pc.rom", 1 << 30)  # too large for one
    assert is_board_memory("pc.ram")
    assert not is_board_memory("dimm/x.ram")


def test_main_blocks() -> None:
    assert main_blocks(["pc.ram", "vga.vram", "pc.bios"]) == ["pc.ram"]
    assert main_blocks(["/objects/ram0", "ram1", "pc.bios", "0000:00:02.0/vga.vram", "system.fd", "tpm-ppi"]) == [
        "/objects/ram0",
        "ram1",
    ]
