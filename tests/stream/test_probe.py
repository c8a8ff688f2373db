"""Where a stream starts in its file."""

import pytest

from qmigtool.parsers.source import BufferSource
from qmigtool.stream.probe import find_start

MAGIC = bytes.fromhex("5145564d 00000003")  # "QEVM", version 3


@pytest.mark.parametrize("zeros", [0, 1, 4096, (1 << 20) - 3, (1 << 20) + 5])
def test_a_stream_may_follow_zeros(zeros):
    assert find_start(BufferSource(bytes(zeros) + MAGIC + b"\x07")) == zeros


@pytest.mark.parametrize("data", [b"", bytes(100), b"\x01" + MAGIC, bytes(8) + b"no stream", bytes(8) + MAGIC[:7]])
def test_without_its_magic_it_starts_at_0(data):
    assert find_start(BufferSource(data)) == 0
