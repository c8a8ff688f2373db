"""Where a body ends when its records do not say: a description, or the next footer that makes sense."""

import pytest

from qmigtool.errors import LimitError, TruncatedError
from qmigtool.parsers import bodies
from qmigtool.parsers.bodies import DescribedBody, SearchedBody, footer_of
from qmigtool.parsers.window import NeedMoreData, Window
from tests.support.streamwriter import be16, be32, str8

FOOTER = b"\x7e\0\0\0\x05"
FULL = b"\x04" + be32(6) + str8("next") + be32(0) + be32(1)


def search(data, *, started=(), package_end=None, base=50):
    body = SearchedBody(5, base, set(started), package_end)
    assert body.measured == "footer search"
    return body.advance(Window(data, base=base, final=True), base)


def test_footer():
    assert footer_of(5) == FOOTER
    assert footer_of(0xFFFFFFFF) == b"\x7e\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        b"\0",
        b"\0\x06" + be32(2) + b"{}",
        FULL,
        b"\x01" + FULL[1:],
        b"\x02" + be32(9),
        b"\x03" + be32(9),
        b"\x08" + be16(11) + be16(0),
    ],
    ids=["end", "EOF", "vmdesc", "FULL", "START", "PART", "END", "command"],
)
@pytest.mark.parametrize("body", [b"", b"x" * 40, FOOTER[:4] * 3, FOOTER + b"\xff"])
def test_what_may_follow_a_footer(body, behind):
    found = search(body + FOOTER + behind, started=[9])
    assert found == (50 + len(body), True)


@pytest.mark.parametrize(
    "behind",
    [
        b"\x05abc",
        b"\x06abc",
        b"\x7e\0\0\0\x05",
        b"\x04" + be32(6) + b"\0" + bytes(8),
        b"\x04" + be32(6) + str8("a\x1bb") + bytes(8),
        b"\x04" + be32(6) + str8(b"\xff\xfe") + bytes(8),
        b"\x02" + be32(8),
        b"\x08" + be16(12),
        b"\x08" + be16(0),
    ],
)
def test_what_may_not(behind):
    """The footer's bytes are body here, and the true one comes later."""
    body = b"12" + FOOTER + behind + b"\xee" * 20
    assert search(body + FOOTER + FULL, started=[9]) == (50 + len(body), True)


def test_a_package_ends_where_it_ends():
    assert search(b"12" + FOOTER + b"\xff\xff", package_end=57) == (52, True)
    with pytest.raises(TruncatedError):
        search(b"12" + FOOTER + b"\xff\xff", package_end=58)


def test_padding_behind_a_last_section():
    """Without a vmdesc, EOF may be followed by anything; a better end is preferred."""
    assert search(b"12" + FOOTER + bytes(600)) == (52, True)
    assert search(b"12" + FOOTER + b"\0\0junk" + FOOTER + FULL) == (63, True)
    with pytest.raises(TruncatedError):
        search(b"12" + FOOTER + b"\0\0junk", package_end=1000)


def test_no_footer_at_all():
    with pytest.raises(TruncatedError) as caught:
        search(b"x" * 200)
    assert caught.value.offset == 250
    assert "7e 00 00 00 05" in str(caught.value)


def test_the_search_is_bounded(monkeypatch):
    monkeypatch.setattr(bodies, "MAX_SEARCH", 1000)
    with pytest.raises(LimitError) as caught:
        search(b"x" * 200_000)
    assert caught.value.offset == 50


@pytest.mark.parametrize("size", [65_530, 65_531, 65_532, 65_535, 65_536, 65_537, 131_067, 200_000])
def test_a_footer_across_the_chunks_of_the_search(size):
    assert search(b"x" * size + FOOTER + FULL) == (50 + size, True)


def test_the_search_goes_on_where_it_was():
    data = b"x" * 30 + FOOTER + b"\xff" + b"y" * 30 + FOOTER + FULL
    body, window = SearchedBody(5, 0, set()), Window()
    answers = []
    for at in range(len(data)):
        window.feed(data[at : at + 1], keep=0)
        try:
            answers.append((at, body.advance(window, 0)))
        except NeedMoreData:
            continue
        break
    # The end is known as soon as the whole header behind it is.
    assert answers == [(len(data) - 1, (66, True))]


def described(data, end, **more):
    searched = SearchedBody(5, 0, set())
    body = DescribedBody(end, FOOTER, searched, **more)
    return body.advance(Window(data, final=True), 0), body.measured


def test_a_description_that_fits():
    data = b"1234" + FOOTER + b"\xee"
    assert described(data, 4) == ((4, True), "vmdesc")


@pytest.mark.parametrize("end", [0, 3, 5, 100])
def test_a_description_that_does_not(end):
    assert described(b"1234" + FOOTER + FULL, end) == ((4, True), "footer search")


def test_a_description_without_footers():
    body = DescribedBody(4, FOOTER, None)
    assert body.advance(Window(b"1234zz", final=True), 0) == (4, True)
    with pytest.raises(TruncatedError):
        DescribedBody(4, FOOTER, None).advance(Window(b"123", final=True), 0)
