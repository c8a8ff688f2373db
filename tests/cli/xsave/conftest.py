"""The program with --json, run in the process of the test."""

import json

import pytest

from qmigtool.cli.main import run


@pytest.fixture
def report(capsys):
    """Run the program: (exit status, JSON document or None, stderr)."""

    def run_it(*arguments):
        status = run([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else None, err

    return run_it
