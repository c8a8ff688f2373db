"""Text and streams told apart."""

import bz2
import gzip
import lzma

import pytest

from qmigtool.errors import BudgetError, LimitError, StreamError
from qmigtool.parsers.source import BufferSource
from qmigtool.stream.textinput import is_stream, is_text, text_of
from tests.support.samplefiles import SAMPLES, read

LIMIT = 1 << 16
TEXT = b'{"a": "' + bytes(range(0x20, 0x22)) * 3000 + b'"}'
CONTAINERS = ("libvirt-raw.save", "savevm-7.2.qcow2", "multifd-10.0.pcap")


@pytest.mark.parametrize("pack", [bytes, lzma.compress, gzip.compress, bz2.compress])
@pytest.mark.parametrize("text", [TEXT, b"x", b"\xef\xbb\xbf# a mark first", "\u00fc".encode() * 3000])
def test_text_packed_or_not(pack, text):
    assert text_of(BufferSource(pack(text)), LIMIT) == text


@pytest.mark.parametrize("pack", [bytes, lzma.compress, gzip.compress, bz2.compress])
@pytest.mark.parametrize("data", [read("pc-7.2"), bytes(8192) + read("pc-7.2"), b"QEVM", b"text" + bytes(4), b""])
def test_what_is_none(pack, data):
    assert text_of(BufferSource(pack(data)), LIMIT) is None


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_are_none(name):
    packed = (SAMPLES / "containers" / f"{name}.xz").read_bytes()
    for data in (packed, lzma.decompress(packed)):
        assert text_of(BufferSource(data), LIMIT) is None
        assert is_stream(data[:16])


@pytest.mark.parametrize("pack", [bytes, lzma.compress, gzip.compress, bz2.compress])
def test_the_length_is_bounded(pack):
    whole = b"a" * LIMIT
    assert text_of(BufferSource(pack(whole)), LIMIT) == whole
    with pytest.raises(LimitError, match=f"at most {LIMIT}"):
        text_of(BufferSource(pack(whole + b"a")), LIMIT)


def test_memory_for_unpacking_is_bounded():
    greedy = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20}]
    with pytest.raises(BudgetError, match="--max-memory"):
        text_of(BufferSource(lzma.compress(TEXT, filters=greedy)), LIMIT)


def test_damage_is_told():
    with pytest.raises(StreamError, match="is truncated"):
        text_of(BufferSource(gzip.compress(TEXT)[:-40]), LIMIT)


def test_the_head_tells():
    assert is_text(b"{}")
    assert not is_text(b"")
    assert not is_text(b"QEVM")
    assert is_text(b"a" * 4096 + b"\0")  # not looked at so far
