"""A class has a name of its own: two things of one name are one thing, or two names."""

import ast
from collections import Counter
from pathlib import Path

import qmigtool
import qmigtool.parsers

ROOTS = (Path(qmigtool.__file__).parent, Path(qmigtool.parsers.__file__).parent)


def test_no_public_class_has_the_name_of_another() -> None:
    paths = {path.resolve() for root in ROOTS for path in root.rglob("*.py")}
    names = Counter(
        node.name
        for path in paths
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, number in names.items() if number > 1] == []
