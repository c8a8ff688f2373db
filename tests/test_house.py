"""The tree: rooms, what they import, and that no import leads upwards or back, deferred ones included.

import-linter holds the contracts in pyproject.toml; this draws the graph itself, out of the sources, with the layers of
the first contract: it also sees imports for types and inside functions.
"""

import ast
import keyword
import tomllib
from collections import defaultdict
from functools import cache

import pytest

from qmigtool.cli.main import cli
from tests.support.paths import ROOT


def rooms():
    """Give the rooms of the first contract, lowest first; those of one line do not import one another."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    assert contract["containers"] == ["qmigtool"]
    return [{one.strip() for one in line.split("|")} for line in reversed(contract["layers"])]


ROOMS = rooms()
LOOSE = 6  # files of the package itself, the entry points among them
LINES = 450  # of a module: a longer one has two ideas


def sources():
    """Give (module, whether it is a package, syntax tree) of everything that ships."""
    for folder, package in (("qmigtool", "qmigtool"), ("parsers", "qmigtool.parsers")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "qmigtool/parsers" in path.as_posix():
                continue
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join((package, *(parts[:-1] if is_package else parts)))
            yield name, is_package, ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def graph():
    """What each module imports, for types and inside functions, too."""
    trees = list(sources())
    modules = {name for name, _, _ in trees}
    edges = defaultdict(set)
    for name, _, tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} imports by dots"
                base = node.module or ""
                targets = [
                    f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names
                ]
            else:
                continue
            edges[name].update(target for target in targets if target in modules and target != name)
    return edges


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_no_more_than_six_loose_files():
    loose = sorted(path.name for path in (ROOT / "qmigtool").glob("*.py"))
    assert len(loose) <= LOOSE, loose


def test_no_module_is_longer_than_one_idea():
    long = {
        path.relative_to(ROOT).as_posix(): count
        for folder in ("qmigtool", "parsers")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    }
    assert not long, f"split these by idea: at most {LINES} lines"


def test_every_room_has_its_place(graph):
    known = set().union(*ROOMS) | {"", "__main__"}
    assert {room(name) for name, _, _ in sources()} <= known


def test_every_folder_is_in_the_readme():
    code = (ROOT / "qmigtool/README.md").read_text(encoding="utf-8").partition("## The code")[2]
    folders = {path.parent.name for path in (ROOT / "qmigtool").glob("*/__init__.py")} - {"parsers"}
    assert sorted(one for one in folders if f"`{one}`" not in code) == []


def test_every_room_says_what_lives_there():
    for folder in sorted({path.parent for path in (ROOT / "qmigtool").rglob("*.py")} | {ROOT / "parsers"}):
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


def test_nothing_is_imported_upwards(graph):
    height = {one: level for level, rooms in enumerate(ROOMS) for one in rooms}
    # The package itself hands out names of every room; only the command line wants its version.
    up = [
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if room(module) not in ("", "__main__")
        and room(module) != room(target)
        and (height[room(module)] <= height[room(target)] if room(target) else room(module) != "cli")
    ]
    assert not up


def test_there_is_no_circle(graph):
    state: dict[str, int] = {}
    found = []

    def visit(module, path):
        state[module] = 1
        for target in sorted(graph.get(module, ())):
            if state.get(target) == 1:
                found.append(" -> ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, [*path, target])
        state[module] = 2

    for module in sorted(graph):
        if module not in state:
            visit(module, [module])
    assert not found


def commands(group, above=()):
    """Give (path of names, where it is) of each command and group that is imported when it is called."""
    for name, (place, _) in group._lazy.items():
        yield (*above, name), place
        inner = group.get_command(None, name)
        if hasattr(inner, "_lazy"):
            yield from commands(inner, (*above, name))


def modules():
    """Give (module, its test file), both as paths in the tree."""
    for folder, prefix in (("qmigtool", ""), ("parsers", "parsers/")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder)
            if inside.parts[0] != "parsers" and not path.stem.startswith("__"):
                tests = (ROOT / "tests" / prefix / inside.parent / f"test_{path.name}").relative_to(ROOT)
                yield path.relative_to(ROOT).as_posix(), tests.as_posix()


def elsewhere_rows():
    return tomllib.loads((ROOT / "tests/support/testedby.toml").read_text(encoding="utf-8"))


def test_every_module_has_its_tests():
    elsewhere = elsewhere_rows()
    missing = [tests for module, tests in modules() if module not in elsewhere and not (ROOT / tests).exists()]
    assert not missing, "write these tests, or name the file that has them in tests/support/testedby.toml"


def test_no_row_of_a_module_that_is_gone_or_has_its_own_tests():
    own = {module for module, tests in modules() if not (ROOT / tests).exists()}
    assert sorted(set(elsewhere_rows()) - own) == [], "delete these rows of tests/support/testedby.toml"


@cache
def imports_of(file):
    """Give the names that a test file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module}, (f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def reached(file):
    """Give what a test file imports, and what the helpers in `tests` and the fixtures do that it uses."""
    todo = [file, *(path for folder in file.parents[:2] if (path := folder / "conftest.py").exists())]
    found = set()
    for one in todo:
        names = imports_of(one)
        helpers = [(ROOT / name.replace(".", "/")).with_suffix(".py") for name in names if name.startswith("tests.")]
        todo += [path for path in helpers if path.exists() and path not in todo]
        found |= names
    return found


def test_the_file_that_a_row_names_can_run_the_module():
    """It imports the package, the module's room, or the command line."""
    wrong = []
    for module, tests in elsewhere_rows().items():
        own = f"qmigtool.{module.removeprefix('qmigtool/').split('/')[0]}."
        names = reached(ROOT / tests) if (ROOT / tests).exists() else set()
        if not any(name == "qmigtool" or f"{name}.".startswith((own, "qmigtool.cli.")) for name in names):
            wrong.append(f"{module}: {tests}")
    assert not wrong, "name the file whose tests run the module"


def test_every_command_has_a_file_of_its_name():
    found = dict(commands(cli))
    assert len(found) > 20
    for names, place in found.items():
        # A keyword of Python's is no name of a module.
        assert place.partition(":")[0].split(".") == [f"{name}_" if keyword.iskeyword(name) else name for name in names]
