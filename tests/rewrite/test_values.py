"""New values of fields: what each type takes, and what it refuses."""

import pytest

from qmigtool.errors import UsageError
from tests.rewrite.editing import rewritten
from tests.rewrite.points import SIGNED, UNSIGNED, check, refused, stream
from tests.support.streamwriter import num, raw


@pytest.mark.parametrize("type_", UNSIGNED)
def test_numbers_without_a_sign(type_):
    top = (1 << UNSIGNED[type_]) - 1
    for value in (0, 1, top - 1, top, hex(top), str(top), f"0b{top:b}", "0"):
        number = int(value, 0) if isinstance(value, str) else value
        check(type_, value, {type_: num(type_, type_, number)})
    for value in (-1, top + 1, "-1", hex(top + 1), 1 << 70):
        refused(type_, value)


@pytest.mark.parametrize("type_", SIGNED)
def test_numbers_with_a_sign(type_):
    top = (1 << SIGNED[type_] - 1) - 1
    for value in (0, -1, top, -top - 1, "-1", hex(top), hex(-top - 1)):
        number = int(value, 0) if isinstance(value, str) else value
        check(type_, value, {type_: num(type_, type_, number)})
    for value in (top + 1, -top - 2, hex(top + 1), str(-top - 2)):
        refused(type_, value)


@pytest.mark.parametrize("value", ["", "x", "0x", "1.5", "1e3", "true", None, 1.5, [1], {"a": 1}, b"1", b"", "hex:0"])
def test_what_is_no_number(value):
    refused("uint32", value)


def test_the_message_says_what_would_fit():
    assert "-128 to 127" in refused("int8", 128)
    assert "0 to 255" in refused("uint8", 256)


@pytest.mark.parametrize(
    ("value", "byte"),
    [(True, 1), (False, 0), (1, 1), (0, 0), ("true", 1), ("True", 1), ("false", 0), ("1", 1), ("0", 0), (b"\2", 2)],
)
def test_bools(value, byte):
    check("flag", value, {"flag": num("flag", "bool", byte)})
    check("odd", value, {"odd": num("odd", "bool", byte)})


@pytest.mark.parametrize("value", ["yes", "2", "", 2, -1, 1.0, None, [], [True], {}, b"", b"\0\1"])
def test_what_is_no_bool(value):
    refused("flag", value)


@pytest.mark.parametrize("value", [b"others", "hex:6f7468657273", "hex:6F 74 68 65 72 73"])
def test_a_buffer(value):
    check("buffer", value, {"buffer": raw("buffer", b"others")})


@pytest.mark.parametrize("value", ["others", 5, b"short", b"longer?", "hex:6f", "hex:xy", ["o"], True, None])
def test_what_a_buffer_does_not_take(value):
    refused("buffer", value)


def test_a_buffer_of_text_takes_text():
    done = check("buffer", "text:ab", {"buffer": raw("buffer", b"ab\0\0\0\0")})
    again = rewritten(done.data, lambda r: r.set("dev@1/buffer", "cdefg"))
    assert again.data == stream(buffer=raw("buffer", b"cdefg\0"))
    assert [(one.old, one.new) for one in again.changes] == [("ab", "cdefg")]


@pytest.mark.parametrize("now", [b"\0\0\0\0\0\0", b"buffer", b"a\0b\0\0\0", b"\xff\0\0\0\0\0", b"\n\0\0\0\0\0"])
def test_a_buffer_of_anything_else_takes_text_only_where_that_is_said(now):
    source = stream(buffer=raw("buffer", now))
    with pytest.raises(UsageError, match="text:"):
        rewritten(source, lambda r: r.set("dev@1/buffer", "ab"))
    done = rewritten(source, lambda r: r.set("dev@1/buffer", "text:ab"))
    assert done.data == stream(buffer=raw("buffer", b"ab\0\0\0\0"))


@pytest.mark.parametrize("value", ["text:abcdef", "abcdef", "12", "0x5", "-1"])
def test_text_that_does_not_fit_and_numbers(value):
    with pytest.raises(UsageError):
        rewritten(stream(buffer=raw("buffer", b"ab\0\0\0\0")), lambda r: r.set("dev@1/buffer", value))
