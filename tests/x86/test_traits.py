"""An accelerator is a row in one table: one that is made up is known everywhere."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qmigtool
from qmigtool.x86.traits import NAMES, TRAITS, traits_of
from tests.support.paths import SAMPLES

PACKAGE = Path(qmigtool.__file__).parent
TABLE = PACKAGE / "x86" / "traits.py"
# A command, and a source of layouts, that have the name of an accelerator; names as other tools spell them.
NAMESAKES = ("cli/main.py", "cli/shared/othernames.py", "xsave/vendor.py")
OTHERS = [path for path in sorted(PACKAGE.rglob("*.py")) if path != TABLE and not str(path).endswith(NAMESAKES)]


@pytest.mark.parametrize("path", OTHERS, ids=[path.relative_to(PACKAGE).as_posix() for path in OTHERS])
def test_no_other_module_spells_the_name_of_an_accelerator(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} & {*NAMES}


def test_nothing_follows_from_a_name_that_is_not_known() -> None:
    assert traits_of("x") == traits_of(None)
    assert traits_of("kvm") is TRAITS["kvm"]
    assert traits_of(None).foreign == TRAITS["hvf"].foreign


@pytest.fixture(scope="module")
def with_nvmm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A copy of the package in which NetBSD's accelerator is a row in the table, and nothing else is changed."""
    place = tmp_path_factory.mktemp("nvmm")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(PACKAGE, place / "qmigtool", ignore=ignore)
    if not (place / "qmigtool" / "parsers").exists():
        shutil.copytree(Path(qmigtool.parsers.__file__).parent, place / "qmigtool" / "parsers", ignore=ignore)
    table = place / "qmigtool" / "x86" / "traits.py"
    text = table.read_text(encoding="utf-8")
    row = 'NVMM = Traits("nvmm", "NVMM", halted=True, components=0xE7, sections=("nvmm-clock",))\n\n'
    changed = text.replace("TRAITS = {", row + "TRAITS = {").replace("WHPX, HVF)", "WHPX, HVF, NVMM)")
    assert changed != text
    table.write_text(changed, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(place)}


def run(environment: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "qmigtool", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode in (0, 1, 63), done.stderr
    return done.stdout + done.stderr


def test_a_row_makes_an_accelerator_known(with_nvmm: dict[str, str], tmp_path: Path) -> None:
    stream = str(SAMPLES / "twin-tcg-10.0.mig")
    assert "nvmm" in run(with_nvmm, "info", "--help")
    assert "nvmm" in run(with_nvmm, "info", "--accelerator", "nvmm", stream)
    out = tmp_path / "out.mig"
    told = run(with_nvmm, "rewrite", stream, "--to-accelerator", "nvmm", "--lossy", "-o", str(out))
    assert "TK1" in told
    assert out.exists()
    target = tmp_path / "target.toml"
    target.write_text('accelerator = "nvmm"\n')
    assert "nvmm" in run(with_nvmm, "preflight", stream, "--target", str(target), "--json")
