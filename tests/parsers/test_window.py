import pytest

from qmigtool.errors import TruncatedError
from qmigtool.parsers.window import NeedMoreData, Window

DATA = bytes(range(1, 17))


def test_reads_at_absolute_offsets():
    window = Window(DATA, base=100, final=True)
    assert window.end == 116
    assert window.u8(100, "x") == 0x01
    assert window.be16(101, "x") == 0x0203
    assert window.be32(102, "x") == 0x03040506
    assert window.be64(108, "x") == 0x090A0B0C0D0E0F10
    assert bytes(window.view(114, 2, "x")) == b"\x0f\x10"
    assert window.bytes(116, 0, "x") == b""


@pytest.mark.parametrize("read", ["u8", "be16", "be32", "be64"])
def test_beyond_the_end_of_a_final_window(read):
    with pytest.raises(TruncatedError) as caught:
        getattr(Window(DATA, base=100, final=True), read)(116, "a thing")
    assert caught.value.offset == 116
    assert "a thing" in caught.value.expected
    assert "from 0x74, of which 0 are there" in caught.value.expected


def test_a_part_that_is_there_is_counted():
    with pytest.raises(TruncatedError, match="8 bytes of a word from 0xa, of which 6 are there"):
        Window(DATA, final=True).be64(10, "a word")


def test_an_open_window_asks_for_more_until_it_is_closed():
    window = Window()
    with pytest.raises(NeedMoreData):
        window.u8(0, "x")
    with pytest.raises(NeedMoreData):
        window.at_end(0)
    window.feed(b"ab", keep=0)
    assert window.u8(1, "x") == ord("b")
    with pytest.raises(NeedMoreData):
        window.be32(0, "x")
    assert not window.at_end(1)
    window.close()
    assert window.at_end(2)
    with pytest.raises(TruncatedError):
        window.be32(0, "x")


def test_feeding_drops_what_is_not_kept():
    window = Window()
    window.feed(b"abcdef", keep=0)
    window.feed(b"ghij", keep=4)
    assert (window.base, window.end) == (4, 10)
    assert window.bytes(4, 6, "x") == b"efghij"


def test_what_was_dropped_cannot_be_read():
    """A negative index would silently give bytes from the other end."""
    window = Window()
    window.feed(b"abcdef", keep=0)
    window.feed(b"ghij", keep=4)
    for read in (window.u8, window.be16, window.be32, window.be64):
        with pytest.raises(ValueError, match="dropped"):
            read(2, "x")
    with pytest.raises(ValueError, match="dropped"):
        window.view(0, 6, "x")


def test_a_reader_may_be_ahead_of_what_has_come():
    window = Window()
    window.feed(b"abc", keep=0)
    window.feed(b"def", keep=100)
    assert window.end == 6
    assert len(window.buf) <= 3
    window.feed(b"ghi", keep=8)
    assert window.end == 9
    assert window.bytes(8, 1, "x") == b"i"


def test_a_final_window_takes_no_more():
    with pytest.raises(ValueError, match="final"):
        Window(DATA, final=True).feed(b"x", keep=0)


def test_a_final_window_does_not_copy():
    data = bytearray(DATA)
    window = Window(data, final=True)
    data[0] = 99
    assert window.u8(0, "x") == 99
    assert window.buf.readonly
