"""Numbers as people write them, and the narrower forms of documents that programs write."""

import pytest

from qmigtool.util.values import decimal, parse_number, word


@pytest.mark.parametrize(
    ("text", "value"), [("0x2e7", 743), ("1_000", 1000), ("-1", -1), ("1 GiB", 1 << 30), ("010", None), ("x", None)]
)
def test_parse_number(text: str, value: int | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x2e7", 743), ("0xFF", 255), ("0x100", 256), ("743", None), ("0X1", None), ("0x1K", None), (7, None)],
)
def test_word(text: object, value: int | None) -> None:
    assert word(text) == value
    assert word(text, 8) == (value if value is not None and value < 256 else None)


@pytest.mark.parametrize(
    ("text", "value"), [("07", 7), ("123", None), ("0x1", None), ("", None), ("٣", None), (7, None)]
)
def test_decimal(text: object, value: int | None) -> None:
    assert decimal(text, 2) == value
