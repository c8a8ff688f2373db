"""The machine code says what its comments say (objdump decides), and the image is what multiboot wants."""

import re
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.oracle import guest, xsave_cpu

ARCHITECTURES = {16: "i8086", 32: "i386", 64: "i386:x86-64"}


def disassemble(code: bytes, address: int, bits: int, scratch: Path) -> list[tuple[int, bytes, str]]:
    """Return objdump's (address, bytes, text) of each instruction."""
    if "i386" not in subprocess.run(["objdump", "-i"], capture_output=True, text=True, check=True).stdout.split():
        pytest.skip("this objdump knows no x86 (Debian: binutils-x86-64-linux-gnu, not on an x86 host)")
    scratch.write_bytes(code)
    command = ["objdump", "-D", "-b", "binary", "-m", ARCHITECTURES[bits], "-M", "intel", "--insn-width=16"]
    run = subprocess.run(
        [*command, f"--adjust-vma={address:#x}", str(scratch)], capture_output=True, text=True, check=True, timeout=30
    )
    rows = re.findall(r"^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t([^#\n]*)", run.stdout, flags=re.MULTILINE)
    return [(int(at, 16), bytes.fromhex(raw), " ".join(text.split())) for at, raw, text in rows]


@pytest.mark.needs("objdump")
@pytest.mark.parametrize("self_save", [False, True])
@pytest.mark.parametrize("bits", ARCHITECTURES)
def test_guest_disassembles_as_commented(bits: int, self_save: bool, tmp_path: Path) -> None:
    _, listing = guest.assemble([guest.distinct_pattern(i) for i in range(4)], self_save=self_save)
    lines = [line for line in listing if line.bits == bits]
    shown = disassemble(b"".join(line.code for line in lines), lines[0].address, bits, tmp_path / "code")
    assert shown == [(line.address, line.code, line.text) for line in lines]


@pytest.mark.needs("objdump")
@pytest.mark.parametrize("name", xsave_cpu.CODE)
def test_cpu_routines_disassemble_as_commented(name: str, tmp_path: Path) -> None:
    lines = [(bytes.fromhex(code), text) for code, text in xsave_cpu.CODE[name]]
    shown = disassemble(b"".join(code for code, _ in lines), 0, 64, tmp_path / "code")
    assert [(code, text) for _, code, text in shown] == lines


def test_multiboot_header() -> None:
    image = guest.build_guest([guest.distinct_pattern(0)])
    magic, flags, checksum, at, load, load_end, bss_end, entry = struct.unpack_from("<8I", image)
    assert magic == 0x1BADB002
    assert flags == 1 << 16
    assert (magic + flags + checksum) % 2**32 == 0
    assert at == load == guest.LOAD_ADDRESS
    assert load_end - load == len(image)
    assert load_end <= guest.STATUS < bss_end <= guest.SAVE_AREA
    assert load < entry < load_end


def all_values(patterns: Iterable[guest.VcpuPattern]) -> list[bytes]:
    values: list[bytes] = []
    for pattern in patterns:
        values += [register[i : i + 8] for register in pattern.zmm for i in range(0, 64, 8)]
        values += [k.to_bytes(8, "little") for k in pattern.opmask]
        values += [tile[i : i + 8] for tile in pattern.tiles for i in range(0, 1024, 8)]
    return values


def test_no_two_values_of_the_patterns_are_equal() -> None:
    values = all_values(guest.distinct_pattern(vcpu) for vcpu in range(guest.MAX_VCPUS))
    assert len(values) == len(set(values))
    assert bytes(8) not in values


def test_too_many_vcpus() -> None:
    with pytest.raises(ValueError, match="16"):
        guest.build_guest([guest.distinct_pattern(0)] * 17)
