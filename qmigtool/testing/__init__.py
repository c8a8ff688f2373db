"""Saved state in the tests of other projects.

==========  ============================================================
plugin      the pytest plugin: fixtures, a test for each stream of a folder
assertions  that two streams hold the same state, for any test framework
goldens     the saved state that a test expects, kept small
==========  ============================================================

pytest loads this package in every run, so names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qmigtool.testing.assertions import assert_same_state, explanation
    from qmigtool.testing.goldens import open_golden, write_golden

__all__ = ["assert_same_state", "explanation", "open_golden", "write_golden"]

_LAZY = {
    "assert_same_state": "assertions",
    "explanation": "assertions",
    "open_golden": "goldens",
    "write_golden": "goldens",
}


def __getattr__(name: str) -> Any:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
