"""A sentence is for people: no code reads it again to find out what it was made of; a field of its own says that."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import qmigtool

SENTENCES = frozenset({"evidence", "meaning", "message", "reason", "told", "why"})
SAID = frozenset({"doubts", "errors", "losses", "notes", "unknown", "warnings"})
"""What holds several sentences, or records with one each."""
READING = frozenset(
    {"count", "endswith", "find", "index", "partition", "removeprefix", "rpartition", "split", "startswith"}
)
SEARCHING = frozenset({"findall", "finditer", "fullmatch", "match", "search", "sub"})
PACKAGE = Path(qmigtool.__file__).parent


MADE = (": ", " (", "(", " has no ", "; ")
"""Where sentences are put together, and so where they would be taken apart."""
FOREIGN = ("xsave/cputext/", "parsers/")
"""What reads the texts of other programs."""


def said(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in SAID


def sentence(node: ast.expr, names: frozenset[str] = frozenset()) -> bool:
    if isinstance(node, ast.Subscript):
        return sentence(node.value, names) or said(node.value)
    if isinstance(node, ast.Name):
        return node.id in names
    return isinstance(node, ast.Attribute) and node.attr in SENTENCES


def bound(tree: ast.AST) -> frozenset[str]:
    """Return the names that stand for one of several sentences in a loop."""
    loops = (node for node in ast.walk(tree) if isinstance(node, ast.For | ast.comprehension))
    return frozenset(loop.target.id for loop in loops if isinstance(loop.target, ast.Name) and said(loop.iter))


def taken_apart(node: ast.Call) -> bool:
    return any(isinstance(one, ast.Constant) and one.value in MADE for one in node.args)


def read_again(source: str, *, foreign: bool = False) -> Iterator[str]:
    for function in (one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Module | ast.FunctionDef)):
        yield from _read_again(function, bound(function), foreign=foreign)


def _within(function: ast.Module | ast.FunctionDef) -> Iterator[ast.AST]:
    """Walk a function without those inside it."""
    waiting: list[ast.AST] = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.FunctionDef)]


def _read_again(function: ast.Module | ast.FunctionDef, names: frozenset[str], *, foreign: bool) -> Iterator[str]:
    for node in _within(function):
        if isinstance(node, ast.Compare):
            pairs = zip([node.left, *node.comparators], node.ops, node.comparators, strict=False)
            found = any(
                sentence(right, names) or (sentence(left, names) and isinstance(op, ast.Eq | ast.NotEq))
                for left, op, right in pairs
                if isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn)
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found = (
                node.func.attr in READING and (sentence(node.func.value, names) or (not foreign and taken_apart(node)))
            ) or (node.func.attr in SEARCHING and any(sentence(one, names) for one in node.args))
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
        "match = next((m for line in verdict.errors if (m := _VRING.search(line))), None)",
        "place, colon, what = text.partition(': ')",
        "if 'loads' in verdict.doubts[0]: pass",
        "return re.sub('[AB](?= has no )', name, difference.meaning)",
        "if any('x' in one for one in found.notes): pass",
    ],
)
def test_what_this_looks_for(line: str) -> None:
    assert len(list(read_again(line))) == 1


_FOREIGN = tuple(str(PACKAGE / one) for one in FOREIGN)


def test_no_sentence_is_read_again() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.glob("parsers/*.py")]  # a link, in the tree
        if (lines := list(read_again(path.read_text(encoding="utf-8"), foreign=str(path).startswith(_FOREIGN))))
    }
    assert found == {}
