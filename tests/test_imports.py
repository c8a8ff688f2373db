"""What is loaded, and what is visible."""

import json
import subprocess
import sys

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
