"""Multifd channels with holes: pages that a hole may have written are lost, all others are known."""

import lzma
import random

import pytest

import qmigtool
from qmigtool.errors import GapError, TruncatedError
from tests.stream.holed import pages
from tests.support import packedsamples
from tests.support.capturewriter import SEGMENT, Packets


def multifd(name: str, lost: dict[int, list[int]], size: int) -> tuple[bytes, list[bytes]]:
    """A capture of a migration with two channels, without some segments of each; and what each channel sent."""
    streams = [(packedsamples.FOLDER / f"{name}.{part}.xz").read_bytes() for part in ("mig", "ch0.bin", "ch1.bin")]
    plain = [lzma.decompress(one) for one in streams]
    packets = Packets()
    for index, one in enumerate(plain):
        before = len(packets.frames)
        packets.connection(one, port=40000 + index, size=size)
        for segment in sorted(lost.get(index, []), reverse=True):
            del packets.frames[before + 2 + segment]
    # All connections are open before the first ends.
    packets.frames.sort(key=lambda frame: frame[47] & 1)
    starts = [one for one in packets.frames if one[47] & 2]
    return Packets.of([*starts, *(one for one in packets.frames if not one[47] & 2)]).pcap(), plain


MULTIFD = ("multifd-none-11.1", "multifd-none-7.2", "multifd-zlib-7.2", "multifd-zstd-11.1")


@pytest.mark.parametrize("name", MULTIFD)
@pytest.mark.parametrize("size", [SEGMENT, 16384])
def test_holes_in_multifd_channels(name: str, size: int) -> None:
    """A page that is there is right; a hole inside a packet costs the pages of that packet at most."""
    chance = random.Random(size)  # noqa: S311 - no secret
    whole, plain = multifd(name, {}, size)
    with qmigtool.open(whole) as wanted:
        assert wanted.complete, wanted.problems
        total = pages(wanted, wanted)
        for _ in range(6):
            channel = chance.choice([0, 1, 2])
            count = -(-len(plain[channel]) // size)
            first = 1 if channel else 2  # its greeting tells what it is
            if count <= first:
                continue
            data, _ = multifd(name, {channel: [chance.randrange(first, count)]}, size)
            with qmigtool.open(data) as stream:
                assert not stream.complete
                there = pages(stream, wanted)
                assert there <= total
                assert all(isinstance(problem, GapError | TruncatedError) for problem in stream.problems), (
                    stream.problems
                )


def test_a_hole_in_one_packet_costs_its_pages() -> None:
    whole, _ = multifd("multifd-none-11.1", {}, SEGMENT)
    with qmigtool.open(whole) as wanted:
        total = pages(wanted, wanted)
        run = next(run for run in wanted.ram.runs if run["encoding"] == 6 and run["pages"] > 3)
        segment, channel = int(run["offset"]) // SEGMENT + 1, int(run["channel"])
        data, _ = multifd("multifd-none-11.1", {channel: [segment]}, SEGMENT)
        with qmigtool.open(data) as stream:
            there = pages(stream, wanted)
            assert total - 128 <= there < total
