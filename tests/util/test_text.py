"""Text out of files: what a terminal, a CI runner or a spreadsheet would obey is escaped."""

import json

import pytest

from qmigtool.util.text import csv_text, hexadecimal, json_text, json_tokens, json_value, printable, text_value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain caf\u00e9", "plain caf\u00e9"),
        ("a\x1b[31mb\n", "a\\x1b[31mb\\n"),
        ("\u202eb", "\\u202eb"),
        ("\udcff", "\\udcff"),
        ("::error::x", "\\x3a:error::x"),
        ("  ::add-mask::x", "  \\x3a:add-mask::x"),
        ("x ::error::", "x ::error::"),
        ("##vso[task.x]", "#\\x23vso[task.x]"),
        ("## heading", "## heading"),
    ],
)
def test_commands_are_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "\\x3d1+1"),
        (" @x", " \\x40x"),
        ("\uff1d1", "\\uff1d1"),
        ("-x", "\\x2dx"),
        ("-5", "-5"),
        ("+1.5", "+1.5"),
        ("a=b", "a=b"),
    ],
)
def test_formulas_are_escaped_in_csv(text, cell):
    assert csv_text(text) == cell


@pytest.mark.parametrize("value", ["##vso[x]y", "##[error]", "\u00e9\x1b", {"##vso[a]": 1}, [1, None, True]])
def test_json_reads_the_same_and_has_no_command(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert "##" not in text
    assert text.isascii()


@pytest.mark.parametrize(
    ("type_", "value", "in_json", "for_people"),
    [
        ("uint64", 16, "0x10", "0x10"),
        ("uint32", 16, 16, "0x10"),
        ("int32", -3, -3, "-3"),
        ("bool", True, True, "true"),
        ("buffer", b"\0\x01", "0001", "0001"),
        ("buffer", bytes(4), "00000000", "4 zero bytes"),
        ("name", "a\x07", "a\x07", "a\\x07"),
    ],
)
def test_values(type_, value, in_json, for_people):
    assert json_value(type_, value) == in_json
    assert json_value(type_, [value, value]) == [in_json, in_json]
    assert json.loads(json_tokens(type_, [value])[0]) == in_json
    assert text_value(type_, value) == for_people


def test_no_number_is_none():
    assert (hexadecimal(None), hexadecimal(0), hexadecimal(255)) == (None, "0x0", "0xff")
