"""The benches as a test, for who asks for them by name: ``pytest tests/bench/bench_figures.py -s``."""

import importlib

import pytest

from tests.bench.__main__ import GROUPS
from tests.bench.measure import show


@pytest.mark.bench
@pytest.mark.parametrize("name", GROUPS)
def test_figures(name: str) -> None:
    group = importlib.import_module(f"tests.bench.{name}")
    show(group.TITLE, group.figures())
