"""What the tests of captures with holes share: pages compared with those of the plain stream."""

from qmigtool import Stream
from qmigtool.errors import UnsupportedError


def pages(stream: Stream, plain: Stream) -> int:
    """Return how many pages are there; each is as in the plain stream."""
    there = 0
    for block in stream.ram.blocks:
        for addr in range(0, block.used_length, stream.page_size):
            try:
                page = stream.ram.page(block.idstr, addr)
            except UnsupportedError:
                continue
            there += 1
            assert page == plain.ram.page(block.idstr, addr), (block.idstr, hex(addr))
    return there
