"""A sentence is for people: no code reads it again to find out what it was made of; a field of its own says that."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import qmigtool
from tests.fleet import remedies

SENTENCES = frozenset({"evidence", "meaning", "message", "reason", "told", "why"})
SAID = frozenset({"doubts", "errors", "losses", "notes", "problems", "reasons", "unknown", "warnings"})
"""What holds several sentences, or records with one each."""
READING = frozenset(
    {"count", "endswith", "find", "index", "partition", "removeprefix", "replace", "rpartition", "split", "startswith"}
)
SEARCHING = frozenset({"findall", "finditer", "fullmatch", "match", "search", "sub"})
PACKAGE = Path(qmigtool.__file__).parent


MAKERS = frozenset({"condensed", "lines", "printable", "sentence", "told", "wrapped"})
"""Functions that return text for people."""
ERRORS = frozenset({"error", "exc", "exception"})
"""Names of caught exceptions."""
PROSE = re.compile("[a-z] [a-z]|^ ?[A-Z]{2,}[a-z ]* [a-z]")
"""Words of a sentence that are looked for in a text."""


MADE = (": ", " (", "(", " has no ", "; ")
"""Where sentences are put together, and so where they would be taken apart."""
FOREIGN = ("xsave/cputext/", "parsers/")
"""What reads the texts of other programs."""
ESCAPES = "util/text.py"
"""What escapes every text that is printed, and so looks at its characters."""


def said(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in SAID


def sentence(node: ast.expr, names: frozenset[str] = frozenset()) -> bool:
    if isinstance(node, ast.Subscript):
        return sentence(node.value, names) or said(node.value)
    if isinstance(node, ast.Call):
        return made(node)
    if isinstance(node, ast.Name):
        return node.id in names
    return isinstance(node, ast.Attribute) and node.attr in SENTENCES


def made(node: ast.expr) -> bool:
    """Whether an expression is text for people: made by one of MAKERS, or of an error."""
    if isinstance(node, ast.IfExp):
        return made(node.body) or made(node.orelse)
    if isinstance(node, ast.List | ast.Tuple):
        return any(map(made, node.elts))
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name) and node.func.id in ("str", "map") and node.args:
        last = node.args[-1]
        return (isinstance(last, ast.Name) and last.id in ERRORS) or (
            isinstance(last, ast.Attribute) and last.attr in SAID
        )
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in MAKERS


def bound(function: ast.Module | ast.FunctionDef) -> frozenset[str]:
    """Return the names of a function that are text for people, or one of several in a loop."""
    found = set()
    for node in _within(function):
        if isinstance(node, ast.For | ast.comprehension) and (said(node.iter) or made(node.iter)):
            found |= {one.id for one in ast.walk(node.target) if isinstance(one, ast.Name)}
        elif isinstance(node, ast.Assign) and made(node.value):
            found |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    return frozenset(found)


def searched(node: ast.Compare) -> bool:
    """Whether words of a sentence are looked for in a text."""
    return (
        isinstance(node.left, ast.Constant)
        and isinstance(node.left.value, str)
        and isinstance(node.ops[0], ast.In | ast.NotIn)
        and not isinstance(node.comparators[0], ast.Tuple | ast.List | ast.Set | ast.Dict)
        and PROSE.search(node.left.value) is not None
    )


def taken_apart(node: ast.Call) -> bool:
    return any(isinstance(one, ast.Constant) and one.value in MADE for one in node.args)


def read_again(source: str, *, foreign: bool = False) -> Iterator[str]:
    for function in (one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Module | ast.FunctionDef)):
        yield from _read_again(function, bound(function), foreign=foreign)


def _within(function: ast.Module | ast.FunctionDef) -> Iterator[ast.AST]:
    """Walk a function without those inside it."""
    waiting: list[ast.AST] = [one for one in ast.iter_child_nodes(function) if not isinstance(one, ast.FunctionDef)]
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
            ) or (not foreign and searched(node))
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
        "parts = [printable(text)] if width is None else wrapped(text, 66)\nred = parts[0].startswith('NO')",
        "for severity, line in text.lines(found):\n    line.replace(severity.value, 'x', 1)",
        "if str(error) not in map(str, self.problems): pass",
        "known = str(error) == 'the stream is cut'",
        "loaded += any('QEMU loads' in line for line in trial.done)",
        "if ' if that QEMU' not in option: pass",
    ],
)
def test_what_this_looks_for(line: str) -> None:
    assert len(list(read_again(line))) == 1


_FOREIGN = tuple(str(PACKAGE / one) for one in FOREIGN)


def test_no_sentence_is_read_again() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in [*PACKAGE.rglob("*.py"), *PACKAGE.glob("parsers/*.py")]  # a link, in the tree
        if path != PACKAGE / ESCAPES
        and (lines := list(read_again(path.read_text(encoding="utf-8"), foreign=str(path).startswith(_FOREIGN))))
    }
    assert found == {}


def test_the_fleet_reads_no_sentence() -> None:
    path = Path(remedies.__file__)
    assert list(read_again(path.read_text(encoding="utf-8"))) == []
