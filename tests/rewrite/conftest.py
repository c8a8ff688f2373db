"""What the tests of edits share, in addition to :mod:`tests.rewrite.editing`."""

import sys
import zlib
from collections.abc import Callable

import pytest

from qmigtool.cli import main
from tests.rewrite.memorymodel import DELTA, stream_of
from tests.rewrite.structures import STYLES
from tests.support.ramwriter import filled
from tests.support.streamwriter import (
    PAGE,
    compressed,
    flush,
    page,
    xbzrle,
    zero,
)

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


@pytest.fixture
def two():
    """Blocks a (4 pages) and b (3), in two rounds and two PARTs; the second starts with CONTINUE."""
    return stream_of(
        [("a", 4), ("b", 3)],
        [page(0, filled(1), "a"), zero(PAGE), page(2 * PAGE, filled(2)), page(3 * PAGE, filled(3))],
        [xbzrle(2 * PAGE, DELTA), zero(0, "b"), page(PAGE, filled(4)), zero(2 * PAGE, fill=7)],
        [page(3 * PAGE, filled(5), "a"), flush(), compressed(0, zlib.compress(filled(6)))],
    )


@pytest.fixture(params=STYLES.values(), ids=STYLES)
def style(request):
    return request.param
