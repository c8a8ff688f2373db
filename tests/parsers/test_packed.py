"""Packed streams: one member or many, whole, damaged and cut short."""

import bz2
import gzip
import lzma

import pytest

import qmigtool
from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError
from tests.support import samplefiles

PC = samplefiles.read("pc-7.2")


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_packed_streams(name: str, pack: object) -> None:
    assert callable(pack)
    half = len(PC) // 2
    for packed in (pack(PC), pack(PC[:half]) + pack(PC[half:]), pack(PC) + bytes(4096)):
        with qmigtool.open(packed) as stream:
            assert stream.complete, stream.problems
            assert stream.container.compression == name
            assert not stream.container.in_place
            assert bytes(stream.source.view(0, len(PC))) == PC


def test_zstd() -> None:
    zstd = pytest.importorskip("backports.zstd", reason="zstd needs the extra qmigtool[zstd] below Python 3.14")
    with qmigtool.open(zstd.compress(PC)) as stream:
        assert stream.complete
        assert stream.container.compression == "zstd"
    with pytest.raises(StreamError, match="damaged zstd"):
        qmigtool.open(b"\x28\xb5\x2f\xfd" + b"\xff" * 40)


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_many_members(name: str, pack: object) -> None:
    assert callable(pack)
    parts = [PC[at : at + 300] for at in range(0, 60_000, 300)]
    with qmigtool.open(b"".join(map(pack, parts)) + pack(PC[60_000:])) as stream:
        assert stream.complete
    with pytest.raises(LimitError, match="1001 empty members"):
        qmigtool.open(pack(b"") * 1500)
    with qmigtool.open(pack(b"") * 500 + pack(PC)) as stream:
        assert stream.complete


def test_what_can_be_unpacked_of_a_broken_file_is_shown() -> None:
    packed = gzip.compress(PC)
    with qmigtool.open(packed[:-20000]) as stream:
        assert isinstance(stream.problems[0], TruncatedError)
        assert stream.machine == "pc-i440fx-7.2"
        assert not stream.complete
    damaged = bytearray(lzma.compress(PC))
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(QmigError):
        qmigtool.open(bytes(damaged)).device("cpu")
