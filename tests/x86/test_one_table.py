"""What a register's bits are is said once, in the table of registers."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import qmigtool
from qmigtool.x86.registers import CR0, CR3, CR4, EFER, EFLAGS, FSW, HFLAGS, MSRS, MTRRS, SEGMENT, Register
from qmigtool.x86.traits import NAMES

PACKAGE = Path(qmigtool.__file__).parent
TABLE = PACKAGE / "x86" / "registers.py"
OTHERS = sorted(path for path in PACKAGE.rglob("*.py") if path != TABLE)
REGISTERS = (CR0, CR3, CR4, EFER, EFLAGS, HFLAGS)
# Not those that other things are as well: offsets and sizes, an address of 1 GiB.
NUMBERS = {msr.number for msr in MSRS.values() if msr.number > 0x277 and msr.number.bit_count() > 1}
PREFIXES = ("CR0_", "CR4_", "EFER_", "HF_", "RFLAGS_", "EFLAGS_", "DESC_", "FSW_")


def literals(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def numbers(tree: ast.AST) -> set[int]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is int}


def shifted(tree: ast.AST) -> set[str]:
    """Return the names that are bound to bits that are counted out."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.LShift) for one in ast.walk(node.value)):
            names |= {one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return names


@pytest.mark.parametrize("path", OTHERS, ids=[path.relative_to(PACKAGE).as_posix() for path in OTHERS])
def test_no_other_module_names_a_register_or_its_bits(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not literals(tree) & {register.path for register in REGISTERS}
    assert not literals(tree) & {mtrr.name for mtrr in MTRRS}
    assert not numbers(tree) & NUMBERS
    assert not {name for name in shifted(tree) if name.startswith(PREFIXES)}


@pytest.mark.parametrize(
    ("register", "name", "mask"),
    [
        (CR0, "PG", 1 << 31),
        (CR0, "WP", 1 << 16),
        (CR4, "OSXSAVE", 1 << 18),
        (CR4, "LA57", 1 << 12),
        (CR4, "CET", 1 << 23),
        (EFER, "LMA", 1 << 10),
        (EFLAGS, "VM", 1 << 17),
        (HFLAGS, "AVX_EN", 1 << 28),
        (HFLAGS, "SMAP", 1 << 23),
        (HFLAGS, "GUEST", 1 << 21),
        (FSW, "TOP", 0x3800),
        (SEGMENT, "TYPE", 0xF00),
        (SEGMENT, "LIMIT", 0xF0000),
        (SEGMENT, "L", 1 << 21),
    ],
)
def test_masks(register: Register, name: str, mask: int) -> None:
    assert register[name] == mask


def test_parts() -> None:
    assert FSW.part(0x3800, "TOP") == 7
    assert SEGMENT.part(0x8B00, "TYPE") == 11
    with pytest.raises(KeyError):
        CR4["NONE"]


def test_bits_that_no_cpu_has() -> None:
    assert CR4.named == 0x1_1BFF_7FFF


def test_msrs() -> None:
    assert [msr.number for msr in MSRS.values()] == sorted({msr.number for msr in MSRS.values()})
    assert (MSRS["LSTAR"].number, MSRS["EFER"].path) == (0xC0000082, EFER.path)


ELSEWHERE = {"cli/main.py", "cli/shared/othernames.py", "xsave/vendor.py"}
"""Commands and layouts that have the name of an accelerator."""
SAID_ONCE = {
    "env.mp_state": "x86/kvm.py",
    "apic": "x86/lapic.py",
    **dict.fromkeys(NAMES, "x86/traits.py"),
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_names_that_one_module_has(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    found = literals(ast.parse(path.read_text(encoding="utf-8")))
    assert name in ELSEWHERE or not {one for one, where in SAID_ONCE.items() if one in found and where != name}


def test_the_modules_of_the_table_in_contributing_exist() -> None:
    text = (PACKAGE.parent / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Each fact has one place")[2].partition("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    named = [one for row in rows for one in re.findall(r"`([a-z0-9]+(?:\.[a-z0-9]+)+)`", row)]
    assert len(named) >= len(rows) > 15
    for one in named:
        assert importlib.util.find_spec(f"qmigtool.{one}") is not None, one
