"""Fixtures that the tests of opening and reading share."""

import pytest

from qmigtool.cli.main import run


@pytest.fixture
def call(capsys):
    """Run a command line; return its exit status, and what it wrote to standard output and standard error."""

    def go(*arguments):
        status = run(list(arguments))
        out, err = capsys.readouterr()
        return status, out, err

    return go
