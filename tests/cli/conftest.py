"""The program, run in the process of the test."""

import io
import sys

import pytest

from qmigtool.cli import main


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the program in this process: (exit code, stdout, stderr)."""

    def run(*arguments, stdin=None):
        arguments = [str(one) for one in arguments]
        monkeypatch.setattr(sys, "argv", ["qmigtool", *arguments])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main.run(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run
