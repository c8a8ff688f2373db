"""Values of changes as text."""

import pytest

from qmigtool.rewrite.changes import as_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "true"),
        (False, "false"),
        (255, "0xff"),
        (-2, "-0x2"),
        (b"\x01\xab", "01ab"),
        (bytes(32), "00" * 32),
        (bytes(33), "00" * 32 + "... 33 bytes"),
        ([1, b"\xff", [True, None]], "[0x1 ff [true -]]"),
        ((), "[]"),
        ([0] * 9, "[" + " ".join(["0x0"] * 9) + "]"),
        ([0] * 10, "[" + " ".join(["0x0"] * 8) + " ... 10 elements]"),
        ("pc-q35-7.2", "pc-q35-7.2"),
    ],
)
def test_values_as_text(value, text):
    assert as_text(value) == text


def test_nothing_is_cut_without_a_limit():
    assert as_text(bytes(100), shown=None) == "00" * 100
    assert as_text([0] * 100, shown=None).count("0x0") == 100
