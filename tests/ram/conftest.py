"""What every test of memory does at its end."""

import tracemalloc

import pytest


@pytest.fixture(autouse=True)
def untraced():
    yield
    tracemalloc.stop()
