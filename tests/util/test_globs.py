import re
import time

from hypothesis import given
from hypothesis import strategies as st

from qmigtool.util.globs import matches


@given(st.text("ab*?[.", max_size=8), st.text("ab[.\n", max_size=10))
def test_like_a_regular_expression(pattern: str, name: str) -> None:
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    assert matches(pattern, name) == (re.fullmatch(expression, name, re.DOTALL) is not None)


def test_no_name_makes_it_slow() -> None:
    """A backtracking search needs some 10**10 steps for the first, and does not end for the second."""
    started = time.process_time()
    assert not matches("*nvme@*/host_timestamp", "nvme@" * 100_000)
    assert not matches("*a*a*a*a*a*a*a*a*b", "a" * 50_000)
    assert time.process_time() - started < 5
