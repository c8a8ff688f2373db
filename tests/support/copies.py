"""Copies of the package in which something is changed, and commands that run in them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import qmigtool
import qmigtool.parsers

PACKAGE = Path(qmigtool.__file__).parent


def copy_package(place: Path) -> dict[str, str]:
    """Copy the package into a folder; return the environment in which it is the one that is imported."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(PACKAGE, place / "qmigtool", ignore=ignore)
    if not (place / "qmigtool" / "parsers").exists():
        shutil.copytree(Path(qmigtool.parsers.__file__).parent, place / "qmigtool" / "parsers", ignore=ignore)
    return {**os.environ, "PYTHONPATH": str(place)}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of qmigtool in such an environment."""
    command = [sys.executable, "-m", "qmigtool", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", check=False)
