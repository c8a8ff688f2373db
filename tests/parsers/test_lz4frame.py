"""lz4 frames: one or many, skippable ones between, inside other containers, damaged and truncated."""

import builtins
import gzip
import struct
import subprocess
from pathlib import Path

import pytest

import qmigtool
from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError, UnsupportedError
from tests.parsers.test_saveimage import save_image
from tests.support import packedsamples, samplefiles

lz4 = pytest.importorskip("lz4.frame", reason="lz4 needs the extra qmigtool[lz4]")

PC = samplefiles.read("pc-7.2")


def skippable(data: bytes = b"", number: int = 0) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + struct.pack("<I", len(data)) + data


def contents(data: bytes, compression: str = "lz4") -> bytes:
    with qmigtool.open(data) as stream:
        assert stream.complete, stream.problems
        assert stream.container.compression == compression
        return bytes(stream.source.view(0, stream.size or 0))


@pytest.mark.needs("lz4")
@pytest.mark.parametrize("options", ["", "-9", "-B4 -BD", "-B7 --content-size", "--no-frame-crc", "-BX"])
def test_what_lz4_writes(options: str, tmp_path: Path) -> None:
    (tmp_path / "vm.mig").write_bytes(PC)
    subprocess.run(["lz4", "-q", *options.split(), tmp_path / "vm.mig", tmp_path / "vm.lz4"], check=True)
    assert contents((tmp_path / "vm.lz4").read_bytes()) == PC


@pytest.mark.needs("lz4")
def test_legacy_frames_are_named(tmp_path: Path) -> None:
    (tmp_path / "vm.mig").write_bytes(PC)
    subprocess.run(["lz4", "-q", "-l", tmp_path / "vm.mig", tmp_path / "vm.lz4"], check=True)
    with pytest.raises(UnsupportedError, match=r"the legacy format of lz4 \(lz4 -l\)"):
        qmigtool.open(tmp_path / "vm.lz4")


def test_many_frames() -> None:
    half = len(PC) // 2
    first, second = lz4.compress(PC[:half]), lz4.compress(PC[half:])
    for data in (
        first + second,
        first + second + bytes(4096),
        skippable(b"\x04\x22\x4d\x18") + first + skippable() + skippable(bytes(100_000), 15) + second + skippable(b"x"),
    ):
        assert contents(data) == PC
    with pytest.raises(LimitError, match="empty members"):
        qmigtool.open(lz4.compress(b"") * 1500)
    with pytest.raises(LimitError, match="skippable frames"):
        qmigtool.open(skippable() * 1500 + first)


def test_skippable_frames_of_zstd() -> None:
    zstd = pytest.importorskip("backports.zstd", reason="zstd needs the extra qmigtool[zstd] below Python 3.14")
    half = len(PC) // 2
    data = b"".join(skippable(b"size") + zstd.compress(part) for part in (PC[:half], PC[half:]))
    assert contents(data, "zstd") == PC  # as pzstd writes it
    assert contents(lz4.compress(data), "zstd") == PC


@pytest.mark.parametrize("rest", [b"", PC[:100], gzip.compress(PC)])
def test_skippable_frames_before_something_else(rest: bytes) -> None:
    for data in (skippable(b"x") + rest, lz4.compress(skippable() + rest)):
        with pytest.raises(StreamError, match="skippable frames before something else"):
            qmigtool.open(data)


def test_inside_other_containers() -> None:
    packed = lz4.compress(PC)
    assert contents(gzip.compress(packed)) == PC
    assert contents(lz4.compress(gzip.compress(PC)), "gzip") == PC
    assert contents(lz4.compress(skippable(b"x") + packed)) == PC
    with qmigtool.open(save_image(packed)) as stream:
        assert bytes(stream.source.view(0, len(PC))) == PC
        assert "the header says raw, but the stream is lz4" in str(stream.problems[0])
    image = samplefiles.container("libvirt-raw.save")
    with qmigtool.open(lz4.compress(image)) as stream:
        assert (stream.container.name, stream.container.removed) == ("libvirt", ("lz4",))


def test_an_extra_channel() -> None:
    sample = packedsamples.packed("multifd-none-7.2")
    channels = [bytes(one) if isinstance(one, bytes) else Path(one).read_bytes() for one in sample.channels]
    with qmigtool.open(sample.path, channels=channels) as stream:
        page = bytes(stream.ram.page("pc.ram", 0x100000))
    for wrapped in ([lz4.compress(one) for one in channels], [skippable(b"x") + lz4.compress(one) for one in channels]):
        with qmigtool.open(sample.path, channels=wrapped) as stream:
            assert bytes(stream.ram.page("pc.ram", 0x100000)) == page


def test_truncated_and_damaged() -> None:
    data = skippable(b"abc") + lz4.compress(PC, content_checksum=True, block_checksum=True)
    for end in [*range(4, 40), 1000, len(data) // 2, len(data) - 5, len(data) - 1]:
        try:
            with qmigtool.open(data[:end]) as stream:
                assert isinstance(stream.problems[0], TruncatedError), end
        except StreamError:
            assert end < 1001
    for at in range(11, len(data), 1999):
        broken = bytearray(data)
        broken[at] ^= 0x10
        try:
            with qmigtool.open(bytes(broken)) as stream:
                assert stream.problems, at
        except QmigError:
            pass


def test_a_frame_with_a_dictionary_is_named() -> None:
    descriptor = bytes([0x41, 0x40]) + struct.pack("<I", 7)
    with pytest.raises(UnsupportedError, match="dictionary"):
        qmigtool.open(b"\x04\x22\x4d\x18" + descriptor + bytes(60))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *more: object, **others: object) -> object:
        if name.startswith("lz4"):
            raise ImportError(name)
        return real(name, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UnsupportedError, match=r"needs the package lz4 .*pip install 'qmigtool\[lz4\]'"):
        qmigtool.open(lz4.compress(PC))
