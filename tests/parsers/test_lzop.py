"""lzop files: what the program of that name writes, what libvirt's images have, damaged, truncated and lying ones."""

import builtins
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

import qmigtool
from qmigtool.errors import BudgetError, LimitError, QmigError, StreamError, TruncatedError, UnsupportedError
from qmigtool.util.budget import Limits, limited
from tests.parsers.test_saveimage import save_image
from tests.support import casefiles, samplefiles

lzokay = pytest.importorskip("lzokay", reason="lzop needs the extra qmigtool[lzop]")

PC = samplefiles.read("pc-7.2")
MAGIC = b"\x89LZO\x00\r\n\x1a\n"
ADLER32_D, ADLER32_C, EXTRA, CRC32_D, CRC32_C, MULTIPART, FILTER, H_CRC32 = (
    *(0x1, 0x2, 0x40, 0x100, 0x200, 0x400, 0x800, 0x1000),
)


def header(flags: int = ADLER32_D, *, method: int = 1, name: bytes = b"", extra: bytes | None = None) -> bytes:
    count = zlib.crc32 if flags & H_CRC32 else zlib.adler32
    made = struct.pack(">HHHBBI", 0x1040, 0x20A0, 0x0940, method, 5, flags)
    made += struct.pack(">I", 0) * bool(flags & FILTER) + struct.pack(">III", 0o100644, 0, 0)
    made += bytes([len(name)]) + name
    made += struct.pack(">I", count(made))
    if extra is not None:
        field = struct.pack(">I", len(extra)) + extra
        made += field + struct.pack(">I", count(field))
    return MAGIC + made


def block(data: bytes, flags: int = ADLER32_D, *, size: int | None = None, packed: bytes | None = None) -> bytes:
    packed = lzokay.compress(data) if packed is None else packed
    if len(packed) >= len(data):
        packed = data
    sums = [count(data) for flag, count in ((ADLER32_D, zlib.adler32), (CRC32_D, zlib.crc32)) if flags & flag]
    if packed is not data:
        sums += [count(packed) for flag, count in ((ADLER32_C, zlib.adler32), (CRC32_C, zlib.crc32)) if flags & flag]
    words = (len(data) if size is None else size, len(packed), *sums)
    return struct.pack(f">{len(words)}I", *words) + packed


def packed(data: bytes, flags: int = ADLER32_D, *, step: int = 256 << 10, **more: object) -> bytes:
    blocks = (block(data[at : at + step], flags) for at in range(0, len(data), step))
    return header(flags, **more) + b"".join(blocks) + bytes(4)  # type: ignore[arg-type]


def contents(data: bytes) -> bytes:
    with qmigtool.open(data) as stream:
        assert stream.complete, stream.problems
        assert stream.container.compression == "lzop"
        return bytes(stream.source.view(0, stream.size or 0))


@pytest.mark.needs("lzop")
@pytest.mark.parametrize("options", [(), ("-1",), ("-9",), ("-F",), ("--crc32",), ("--crc32", "-C"), ("-C",)])
def test_what_lzop_writes(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "vm.mig").write_bytes(PC)
    subprocess.run(["lzop", "-q", *options, "-o", tmp_path / "vm.lzo", tmp_path / "vm.mig"], check=True)
    data = (tmp_path / "vm.lzo").read_bytes()
    assert contents(data) == PC
    assert contents(save_image(data, form=4)) == PC


@pytest.mark.needs("lzop")
def test_an_image_of_libvirt_is_what_lzop_makes_of_it(tmp_path: Path) -> None:
    image = casefiles.read("load", "c10lzop.save")
    start = 92 + int.from_bytes(image[20:24], "little")
    plain = subprocess.run(["lzop", "-dc"], input=image[start:], check=True, capture_output=True).stdout
    assert contents(image) == plain
    with qmigtool.open(image) as stream, qmigtool.open(plain) as other:
        assert stream.container.removed == ("libvirt header", "lzop")
        assert [hex(one.xcr0) for one in stream.vcpus] == [hex(one.xcr0) for one in other.vcpus]
        assert [one.xsave for one in stream.vcpus] == [one.xsave for one in other.vcpus]


@pytest.mark.needs("lzop")
def test_the_files_made_here_are_those_of_lzop() -> None:
    for flags in (0, ADLER32_D, CRC32_D | H_CRC32, ADLER32_D | ADLER32_C, CRC32_C | CRC32_D):
        made = packed(PC, flags, name=b"vm")
        assert subprocess.run(["lzop", "-dc"], input=made, check=True, capture_output=True).stdout == PC


@pytest.mark.parametrize("flags", [0, ADLER32_D, CRC32_D | H_CRC32, ADLER32_D | ADLER32_C, CRC32_C, 0x0300000D])
def test_every_checksum(flags: int) -> None:
    half = len(PC) // 2
    for data in (
        packed(PC, flags, name=b"n" * 255),
        packed(PC, flags, step=5000),
        packed(PC[:half], flags) + packed(PC[half:], flags),
        packed(PC, flags) + bytes(4096),
        packed(PC, flags | EXTRA, extra=b"more"),
    ):
        assert contents(data) == PC


def first_block(flags: int) -> tuple[bytes, int]:
    """Return a file, and where the words of its first block start."""
    return packed(PC, flags), len(header(flags))


@pytest.mark.parametrize("flags", [ADLER32_D, CRC32_D, ADLER32_D | ADLER32_C, CRC32_D | CRC32_C])
def test_a_wrong_checksum_is_found(flags: int) -> None:
    data, at = first_block(flags)
    for word in range(2, 2 + flags.bit_count()):
        broken = bytearray(data)
        broken[at + 4 * word] ^= 1
        with pytest.raises(StreamError, match=r"a block's (Adler-32|CRC-32) is"):
            qmigtool.open(bytes(broken))


@pytest.mark.parametrize("flags", [0, ADLER32_D, ADLER32_C])
def test_a_block_that_gives_too_few_bytes_is_not_filled_with_zeros(flags: int) -> None:
    """lzokay does fill it: without a checksum of the plain data, only the length shows it."""
    short = PC[:100_000]
    data = header(flags) + block(short, flags, size=len(short) + 1) + block(PC[100_000:], flags) + bytes(4)
    with pytest.raises(StreamError, match=r"too few bytes|Adler-32"):
        qmigtool.open(data)


def test_lengths_that_lie() -> None:
    data, at = first_block(ADLER32_D)
    for size, clen, error in (
        (0xFFFFFFFF, 5, StreamError),
        (64 << 20, (64 << 20) + 1, StreamError),
        (100, 0, StreamError),
        (100, 101, StreamError),
        (16 << 20, 16 << 20, TruncatedError),
    ):
        with pytest.raises(error):
            qmigtool.open(data[:at] + struct.pack(">II", size, clen) + data[at + 8 :])
    with limited(Limits(memory=1 << 20, grow=False)), pytest.raises(BudgetError):
        qmigtool.open(data[:at] + struct.pack(">II", 64 << 20, 1000) + data[at + 8 :])
    with pytest.raises(StreamError, match="an extra field of"):
        qmigtool.open(header(EXTRA) + struct.pack(">I", 1 << 31) + bytes(1 << 16))
    for flags in (0, H_CRC32):
        broken = bytearray(packed(PC, flags, name=b"vm"))
        broken[len(header(flags, name=b"vm")) - 5] ^= 1
        with pytest.raises(StreamError, match=r"the header's (CRC-32|Adler-32)"):
            qmigtool.open(bytes(broken))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (packed(PC, FILTER), "a filter"),
        (packed(PC, MULTIPART), "several parts"),
        (packed(PC, method=128), "lzop method 128"),
    ],
)
def test_what_only_lzop_reads_is_named(data: bytes, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as caught:
        qmigtool.open(data)
    assert caught.value.offset is not None


def test_truncated_at_every_field() -> None:
    data, at = first_block(ADLER32_D | ADLER32_C)
    for end in [*range(len(MAGIC), at + 24), at + 1000, len(data) - 4, len(data) - 1]:
        try:
            with qmigtool.open(data[:end]) as stream:
                assert isinstance(stream.problems[0], TruncatedError), end
                assert not stream.complete or end >= len(data) - 4
        except TruncatedError:
            pass


def test_damaged_bytes_raise_nothing_but_our_errors() -> None:
    data = packed(PC[:200_000], 0, step=20_000)
    for at in range(len(MAGIC), len(data), 997):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        try:
            with qmigtool.open(bytes(broken)) as stream:
                _ = stream.devices
        except QmigError:
            pass


def test_many_small_members() -> None:
    with pytest.raises(LimitError, match="empty members"):
        qmigtool.open(packed(b"") * 1500)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *more: object, **others: object) -> object:
        if name == "lzokay":
            raise ImportError(name)
        return real(name, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UnsupportedError, match=r"needs the package lzokay .*pip install 'qmigtool\[lzop\]'"):
        qmigtool.open(packed(PC))
