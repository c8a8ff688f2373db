"""What is loaded, and what is visible."""

import ast
import json
import os
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import qmigtool
from qmigtool import tables
from tests.support import samplefiles

HEAVY = {"numpy", "pandas", "scapy", "rich", "bitstring"}
SCRIPT = (
    "import json, sys\n"
    "from qmigtool.cli.main import run\n"
    "code = run(sys.argv[1:])\n"
    "sys.stdout.flush()\n"
    "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]), file=sys.stderr)\n"
)


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["info", str(samplefiles.path("pc-7.2")), "--json"], ["xsave", "layouts", "--json"]],
    ids=["version", "help", "info", "layouts"],
)
def test_what_a_quick_command_does_not_load(arguments):
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert not HEAVY & set(modules)
    assert "click" in modules


def test_import_loads_almost_nothing():
    script = "import sys, qmigtool; print(*sorted(m for m in sys.modules if m.startswith('qmigtool')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["qmigtool", "qmigtool.errors"]


def test_all_is_what_is_visible():
    assert sorted(qmigtool.__all__) == dir(qmigtool)
    for name in qmigtool.__all__:
        assert getattr(qmigtool, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qmigtool.nothing


@pytest.mark.parametrize("name", ["qmigtool.errors", "qmigtool.tables", "qmigtool.xsave", "qmigtool.stream.model"])
def test_all_of_modules_exists(name):
    module = __import__(name, fromlist=["x"])
    for one in getattr(module, "__all__", ()):
        assert hasattr(module, one)


def test_every_table_is_listed():
    found = {name for name, value in vars(tables).items() if isinstance(value, tables.Table)}
    assert found == set(tables.__all__) - {"FILE", "Column", "StreamTable", "Table", "as_records", "table"}


def test_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse(Path(qmigtool.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {one.asname or one.name for node in guarded.body for one in node.names}
    eager = {one.name for node in tree.body if isinstance(node, ast.ImportFrom) for one in node.names}
    assert seen == set(qmigtool._LAZY)
    assert set(qmigtool.__all__) == seen | (eager & set(qmigtool.__all__)) | {"__version__"}


def test_help_is_a_page_that_names_the_entry_points():
    page = pydoc.render_doc(qmigtool, renderer=pydoc.plaintext)
    start = page[: page.index("PACKAGE CONTENTS")]
    for word in ("open(target)", "stream[path]", "compare(a, b)", "check.run(", "Rewriter(", "with qmigtool.open"):
        assert word in start
    assert max(map(len, qmigtool.__doc__.splitlines())) <= 120


CONSUMER = """
from collections.abc import Iterable

import qmigtool
from qmigtool import (
    Accelerator, CheckResult, Comparison, Device, Difference, Field, Finding, Layout, PathError, Preflight, Report,
    Severity, Stream, Target, VCpu, Verdict, XsaveArea,
)


def live(vcpu: VCpu) -> int:
    return vcpu.live


def places(found: Comparison) -> list[str]:
    return [one.where for one in found.differences]


def first(stream: Stream) -> XsaveArea:
    layout: Layout = qmigtool.layout("amd-zen4")
    return stream.vcpus[0].xsave.compact(layout)


def at(stream: Stream, path: str) -> Device | Field | None:
    try:
        return stream[path]
    except KeyError:
        return None


def grave(findings: Iterable[Finding]) -> list[Finding]:
    return [one for one in findings if one.severity is Severity.ERROR]


def judged(stream: Stream, target: Target) -> Verdict:
    found: Preflight = qmigtool.preflight.preflight(stream, target)
    return found.verdict


with qmigtool.open("a.mig") as one:
    reveal_type(one)
    reveal_type(one.info())
    result: CheckResult = qmigtool.check.run(["a.mig"])
    wrong: int = one.machine
"""


@pytest.mark.slow
def test_a_program_that_uses_the_types_is_checked(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(CONSUMER)
    root = Path(qmigtool.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(root)},
    )  # fmt: skip
    mine = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    errors = [line for line in mine if "error" in line]
    assert len(errors) == 1, done.stdout  # the one that it has: a machine type is no int
    assert 'expression has type "str | None", variable has type "int"' in errors[0]
    assert any("qmigtool.stream.model.Stream" in line for line in mine)
