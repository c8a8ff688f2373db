"""What memory a stream has, compared with memory dumped by QEMU and with a naive reader."""

import hashlib
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.errors import UnsupportedError, UsageError
from tests.ram.memories import MIB, TIB, huge, naive, opened, ram_of, whole
from tests.support import samplefiles
from tests.support.packedsamples import NAMES, RAM, SHARED
from tests.support.ramwriter import (
    filled,
    named_page,
    plain,
)
from tests.support.streamwriter import PAGE

HOLE = slice(0xA0000, 0x100000)  # VGA and ROM windows: pmemsave reads devices there


def main_block(stream):
    return "pc.ram" if "pc.ram" in {block.idstr for block in stream.ram_blocks} else stream.ram_blocks[0].idstr


@pytest.mark.parametrize("name", [name for name in RAM if name not in SHARED])
def test_memory_is_what_pmemsave_wrote(name):
    with opened(name) as stream:
        block = main_block(stream)
        data = bytearray(stream.ram.read(block, 0, 16 * MIB))
        pages = b"".join(part.tobytes() for _, part in stream.ram.pages(block))
        assert not stream.problems
    assert pages[: HOLE.start] == data[: HOLE.start]
    data[HOLE] = bytes(HOLE.stop - HOLE.start)
    parts = [hashlib.sha256(data[at : at + MIB]).hexdigest() for at in range(0, len(data), MIB)]
    zeroes = hashlib.sha256(bytes(MIB)).hexdigest()
    assert ["zero" if part == zeroes else part for part in parts] == RAM[name]["mib"]
    assert hashlib.sha256(data).hexdigest() == RAM[name]["sha256"]


def test_what_pmemsave_wrote_is_not_the_same_for_all():
    """The test above would not pass with another stream's memory, or with none."""
    assert len({one["sha256"] for one in RAM.values()}) >= 7
    assert all(one["mib"][4] != "zero" != one["mib"][8] for one in RAM.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_page_of_every_block_is_the_naive_one(name):
    expected = naive(name)
    with opened(name) as stream:
        for block in stream.ram_blocks:
            if block.mr_addr is not None and not any(page[0] == block.idstr for page in expected.history):
                with pytest.raises(UnsupportedError, match="shared memory"):
                    next(stream.ram.pages(block.idstr))
                continue
            found = hashlib.sha256()
            # of a virtio-mem device, unplugged memory is never sent
            for _, part in stream.ram.pages(block.idstr, absent="zero" if "/d2" in block.idstr else "error"):
                found.update(part.tobytes())
            assert found.digest() == hashlib.sha256(expected.block(block.idstr)).digest(), block.idstr


def test_mapped_memory_equals_its_plain_twin():
    """One guest, two QEMU runs: what it wrote by itself is the same bytes."""
    with opened("mapped-11.1") as one, opened("plain-7.2") as two, opened("mapped-offset-11.1") as three:
        assert one.ram.count()["pc.ram"].keys() == {"mapped", "mapped_zero"}
        for at in (4 * MIB, 8 * MIB):
            found = one.ram.read("pc.ram", at, MIB)
            assert found == two.ram.read("pc.ram", at, MIB) == three.ram.read("pc.ram", at, MIB)
        number = 0x412345 >> 12
        assert one.ram.read("pc.ram", number << 12, 8) == number.to_bytes(4, "little") * 2
        assert one.ram.read("pc.ram", (number << 12) + 0x7FF, 3) == bytes([0, number & 0xFF, 0])


def test_mapped_memory_holds_the_guest_program():
    """The guest program of the older samples is at 1 MiB in each of them, whatever QEMU and encoding; so do its
    patterns (see samples/MANIFEST.md)."""
    with (
        opened("mapped-10.0") as one,
        opened("compress-7.2") as two,
        qmigtool.open(samplefiles.path("pc-7.2")) as three,
        qmigtool.open(samplefiles.path("pc-11.1")) as four,
    ):
        programs = [stream.ram.read("pc.ram", MIB, 4 * PAGE) for stream in (one, two, three, four)]
        assert len({program[:256] for program in programs}) == 1
        assert [bytes(range(1, 33)) in program for program in programs] == [True] * 4


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(addr=st.integers(0, 16 * MIB), length=st.integers(0, 40_000))
def test_any_range_can_be_read(addr, length):
    whole = naive("xbzrle-11.1").block("pc.ram")
    with opened("xbzrle-11.1") as stream:
        if addr + length > len(whole):
            with pytest.raises(UsageError):
                stream.ram.read("pc.ram", addr, length)
        else:
            assert stream.ram.read("pc.ram", addr, length) == whole[addr : addr + length]


def test_what_is_not_there_is_a_usage_error():
    with opened("plain-7.2") as stream:
        for action in (
            lambda: stream.ram.read("nothing", 0, 1),
            lambda: stream.ram.page("pc.ram", 16 * MIB),
            lambda: stream.ram.page("pc.ram", -1),
            lambda: stream.ram.read("pc.ram", 0, -1),
            lambda: stream.ram.history("pc.ram", 16 * MIB),
            lambda: stream.ram.final("PC.RAM"),
        ):
            with pytest.raises(UsageError):
                action()


@pytest.mark.parametrize("name", ["plain-7.2", "xbzrle-7.2", "compress-live-7.2", "multifd-zlib-7.2", "mapped-11.1"])
def test_a_block_is_written_with_holes(name, tmp_path):
    target = tmp_path / "memory"
    with opened(name) as stream, target.open("wb") as file:
        file.write(b"head")
        stream.ram.write_block("pc.ram", file)
        assert file.tell() == 4 + 16 * MIB
    assert target.read_bytes() == b"head" + naive(name).block("pc.ram")


def test_zero_pages_become_holes(tmp_path):
    target = tmp_path / "memory"
    with opened("plain-7.2") as stream, target.open("wb") as file:
        stream.ram.write_block("pc.ram", file)
    assert target.stat().st_size == 16 * MIB
    assert target.stat().st_blocks * 512 <= 343 * PAGE + 64 * 1024


def test_writing_over_an_old_file_leaves_nothing_of_it(tmp_path):
    """write_block() skips zero pages: an old file's bytes must not shine through."""
    target = tmp_path / "memory"
    target.write_bytes(b"\xff" * (2 * MIB))
    with ram_of(plain(named_page(3, 7), pages=64).finish()) as stream, target.open("r+b") as file:
        stream.ram.write_block("r", file, absent="zero")
    assert target.read_bytes() == bytes(3 * PAGE) + filled(7) + bytes(60 * PAGE)


def test_a_terabyte_of_zeros_is_written_in_no_time(tmp_path):
    target = tmp_path / "huge"
    with ram_of(huge()) as stream, target.open("wb") as file:
        stream.ram.write_block("huge", file, absent="zero")
    assert target.stat().st_size == TIB
    assert target.stat().st_blocks <= 64
    with target.open("rb") as file:
        file.seek(TIB - PAGE)
        assert file.read() == filled(1)


def test_packed_samples_are_small():
    from tests.support.packedsamples import FOLDER

    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_500_000
    assert all(lzma.LZMADecompressor().decompress(path.read_bytes(), 16) for path in FOLDER.glob("*.mig.xz"))


def test_a_ram_has_a_short_name():
    with ram_of(plain(whole(*range(8))).finish()) as stream:
        assert repr(stream.ram) == "<Ram 1 blocks, 0x8000 bytes, 1 runs, 1 channels>"
