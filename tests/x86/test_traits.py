"""An accelerator is a row in one table, and its name is nowhere else (tests/test_contributing.py adds one)."""

import ast
from pathlib import Path

import pytest

import qmigtool
from qmigtool.x86.traits import NAMES, TRAITS, traits_of

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
