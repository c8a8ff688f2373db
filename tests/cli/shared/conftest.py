"""Paths of samples in these tests are those of the tree."""

import pytest

from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def in_the_tree(monkeypatch):
    monkeypatch.chdir(ROOT)
