"""A sentence is for people: no code reads it again to find out what it was made of; a field of its own says that."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import qmigtool

SENTENCES = frozenset({"evidence", "message", "reason", "told", "why"})
READING = frozenset({"count", "endswith", "find", "index", "partition", "removeprefix", "rpartition", "startswith"})
SEARCHING = frozenset({"findall", "finditer", "fullmatch", "match", "search"})
PACKAGE = Path(qmigtool.__file__).parent


def sentence(node: ast.expr) -> bool:
    if isinstance(node, ast.Subscript):
        node = node.value
    return isinstance(node, ast.Attribute) and node.attr in SENTENCES


def read_again(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            pairs = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
            found = any(
                sentence(right) or (sentence(left) and isinstance(op, ast.Eq | ast.NotEq))
                for left, op, right in pairs
                if isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn)
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found = (node.func.attr in READING and sentence(node.func.value)) or (
                node.func.attr in SEARCHING and any(map(sentence, node.args))
            )
        else:
            continue
        if found:
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "line",
    [
        "saver.evidence[0] == CONTRADICTION",
        "rules = {one.rule for one in findings if '(rule ' in one.reason}",
        "match = _RULE.search(error.message)",
        "if why.startswith('x') or verdict.why.startswith('KVM'): pass",
    ],
)
def test_what_this_looks_for(line: str) -> None:
    assert len(list(read_again(line))) == 1


def test_no_sentence_is_read_again() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.glob("parsers/*.py")]  # a link, in the tree
        if (lines := list(read_again(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
