"""What is shipped: a sub-package that is missing from pyproject vanishes from the wheel without a word."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import qmigtool
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def folders(top, package):
    """Every package below ``top``, by its import name."""
    for init in sorted(top.rglob("__init__.py")):
        if any(part.is_symlink() for part in init.parents if part != top and top in part.parents):
            continue
        yield ".".join([package, *init.parent.relative_to(top).parts])


MAN_PAGE = "qmigtool/cli/qmigtool.1"
PACKAGES = {*folders(ROOT / "qmigtool", "qmigtool"), *folders(ROOT / "parsers", "qmigtool.parsers")}


def shipped():
    """Every file that has to be in a wheel."""
    found = set()
    for top, package in ((ROOT / "qmigtool", "qmigtool"), (ROOT / "parsers", "qmigtool/parsers")):
        for path in top.rglob("*"):
            inside = path.relative_to(top)
            linked = top.name == "qmigtool" and inside.parts[0] == "parsers"
            if path.is_file() and not linked and "__pycache__" not in path.parts:
                found.add(f"{package}/{inside.as_posix()}")
    # The man page is not for the package: it goes where `man` finds it.
    return found - {MAN_PAGE}


def test_packages_equal_the_tree():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == PACKAGES


def test_versions_agree():
    assert qmigtool.__version__ == PROJECT["project"]["version"]


def test_parsers_is_a_relative_link():
    link = ROOT / "qmigtool" / "parsers"
    assert link.is_symlink()
    assert str(link.readlink()) == "../parsers"
    assert importlib.util.find_spec("qmigtool.parsers.savevm") is not None


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what the build needs, so that nothing is left in the checkout."""
    major = int(importlib.metadata.version("setuptools").split(".")[0])
    if major < 77:
        pytest.skip(f"setuptools {major} is older than what pyproject.toml asks for (77)")
    if not (ROOT / PROJECT["project"]["readme"]).exists():
        pytest.skip("no README.md")
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    for name in ("qmigtool", "parsers"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_wheel(tree, tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(tree)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    (man_page,) = (name for name in names if name.endswith("data/share/man/man1/qmigtool.1"))
    assert names - {man_page} == shipped()
    assert {"qmigtool/py.typed", "qmigtool/xsave/layouts.json", "qmigtool/parsers/savevm.py"} <= names


def test_sdist(tree, tmp_path):
    if importlib.util.find_spec("build") is None:
        pytest.skip("the module `build` is not installed")
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", str(tmp_path), str(tree)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    missing = {name.replace("qmigtool/parsers/", "parsers/") for name in shipped()} - names
    assert not missing
