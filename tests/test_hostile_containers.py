"""Containers made to hurt: each command ends in time, in little memory, with an answer or a typed error."""

import gzip
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parsers.test_qcow2 import image_of
from tests.parsers.test_saveimage import save_image
from tests.support import casefiles, samplefiles
from tests.support.measured import MEMORY, SECONDS, measured

SIZE = 1 << 16
PC = samplefiles.read("pc-7.2")
HEAD = PC[: 64 << 10]
SKIP = b"\x50\x2a\x4d\x18"


def lz4(data: bytes) -> bytes:
    compress: Callable[[bytes], bytes] = pytest.importorskip("lz4.frame", reason="needs qmigtool[lz4]").compress
    return compress(data)


def lz4_bomb() -> bytes:
    return lz4(HEAD + bytes(1 << 30))


def lz4_frames() -> bytes:
    return lz4(HEAD) + lz4(b"x") * 1_000_000


def lz4_skipped() -> bytes:
    return lz4(HEAD) + (SKIP + bytes(4)) * 2_000_000


def lz4_long_skip() -> bytes:
    return SKIP + b"\xff\xff\xff\xff" + lz4(HEAD)


def lz4_nested() -> bytes:
    data = HEAD
    for _ in range(8):
        data = lz4(data)
    return data


def lzop_head(flags: int = 1) -> bytes:
    pytest.importorskip("lzokay", reason="needs qmigtool[lzop]")
    header = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 5, flags, 0, 0, 0, 0)
    return b"\x89LZO\x00\r\n\x1a\n" + header + struct.pack(">I", zlib.adler32(header))


def lzop_bomb() -> bytes:
    """Blocks of 64 MiB of zeros, a thousand of them."""
    import lzokay

    zeros = bytes(64 << 20)
    packed = lzokay.compress(zeros)
    block = struct.pack(">III", len(zeros), len(packed), zlib.adler32(zeros)) + packed
    return lzop_head() + struct.pack(">III", len(HEAD), len(HEAD), zlib.adler32(HEAD)) + HEAD + block * 100


def lzop_small_blocks() -> bytes:
    one = struct.pack(">III", 1, 1, zlib.adler32(b"x")) + b"x"
    return lzop_head() + struct.pack(">III", len(HEAD), len(HEAD), zlib.adler32(HEAD)) + HEAD + one * 1_000_000


def lzop_large_block() -> bytes:
    return lzop_head() + struct.pack(">III", 64 << 20, 63 << 20, 0) + bytes(64 << 20)


def lzop_members() -> bytes:
    return (lzop_head() + bytes(4)) * 300_000


def qcow2_subclusters() -> bytes:
    """Every entry of many L2 tables has the same zeros."""
    image = bytearray(image_of([0, *[6 * SIZE]] + [0] * 4000, struct.pack(">QQ", 0, 0xFFFFFFFF << 32) * 4096))
    struct.pack_into(">Q", image, 72, 0x10)
    return bytes(image)


def qcow2_zeros() -> bytes:
    """The state is after 2**50 bytes of zeros that tables without clusters describe."""
    image = bytearray(image_of([0] * 4_000 + [6 * SIZE], struct.pack(">Q", 7 * SIZE)))
    return bytes(image)


def xml_laughs() -> bytes:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    xml = f'<!DOCTYPE d [<!ENTITY e0 "ha">{entities}]><domain>&e11;</domain>'.encode()
    image = bytearray(save_image(PC))
    image[92:1092] = xml[:1000].ljust(1000, b"\0")
    return bytes(image)


def xml_long() -> bytes:
    xml = b"<domain>" + b"<a b='c'/>" * 90_000 + b"x" * (8 << 20) + b"</domain>\0"
    head = b"LibvirtQemudSave" + struct.pack("<5I", 2, len(xml), 1, 0, 0) + bytes(56)
    return head + xml + PC


CASES: list[tuple[Callable[[], bytes], str, set[int]]] = [
    (lz4_bomb, "info F", {3, 63}),
    (lz4_frames, "info F", {3}),
    (lz4_skipped, "info F", {3}),
    (lz4_long_skip, "info F", {3}),
    (lz4_nested, "info F", {3}),
    (lzop_bomb, "info F", {3, 63}),
    (lzop_small_blocks, "info F", {3, 63}),
    (lzop_large_block, "info F", {3, 63}),
    (lzop_members, "info F", {3}),
    (qcow2_subclusters, "info F", {3}),
    (qcow2_zeros, "info F", {3}),
    (qcow2_zeros, "wrap F --as qcow2 -o OUT", {3}),
    (xml_laughs, "info F", {0}),
    (xml_long, "info F", {0}),
    (xml_long, "info F --xml", {0}),
    (xml_long, "wrap F --as libvirt -o OUT", {0}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("made", "command", "status"), CASES)
def test_made_files(made: Callable[[], bytes], command: str, status: set[int], tmp_path: Path) -> None:
    (tmp_path / "F").write_bytes(made())
    check(command, status, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["unwrap F -o OUT", "wrap F --as gzip -o OUT", "wrap F --as qcow2 --like F -o OUT"])
@pytest.mark.parametrize(
    "name", ["bomb.qcow2", "dict768.xz", "golden.xz", "lie.mig", "overwritten.mig", "flows1100.pcap"]
)
def test_cases(name: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "F").write_bytes(casefiles.read("hostile", name))
    check(command, {0, 1, 2, 3, 63}, tmp_path)


def check(command: str, status: set[int], folder: Path) -> None:
    places = {"F": str(folder / "F"), "OUT": str(folder / "OUT")}
    found, seconds, memory, said = measured(*(places.get(word, word) for word in command.split()))
    assert found in status, said
    assert memory < MEMORY, memory
    assert seconds < SECONDS, seconds
    assert "Traceback" not in said


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("end", [20, 1000, 60_000])
def test_a_truncated_container_in_another(pack: Callable[[bytes], bytes], end: int, tmp_path: Path) -> None:
    """A save image, cut inside its header or behind it, in a compressed file."""
    (tmp_path / "F").write_bytes(pack(save_image(PC)[:end]))
    check("info F", {3}, tmp_path)
