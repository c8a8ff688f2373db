"""Samples with edits that break them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import qmigtool
from qmigtool.rewrite import Rewriter
from tests.preflight.remedies.remedied import Edits
from tests.support.paths import SAMPLES


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, *edits: Edits) -> Path:
        path = tmp_path / "edited file.mig"  # with a blank: it has to be quoted
        with qmigtool.open(SAMPLES / f"{name}.mig") as stream:
            rewriter = Rewriter(stream)
            for one in edits:
                one(rewriter)
            rewriter.save(path)
        return path

    return make
