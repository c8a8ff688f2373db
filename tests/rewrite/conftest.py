"""What the tests of edits share, in addition to :mod:`tests.rewrite.editing`."""

import sys
from collections.abc import Callable

import pytest

from qmigtool.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command line; return the exit status, and what it prints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        words = [str(one) for one in arguments]
        monkeypatch.setattr(sys, "argv", ["qmigtool", *words])
        code = main.run(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run
