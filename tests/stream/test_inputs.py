"""Inputs: which are closed, and by whom."""

import gzip
import io

from qmigtool.parsers.source import BufferSource
from qmigtool.stream.inputs import take_inputs
from tests.support import samplefiles

PC = samplefiles.read("pc-7.2")


class Closes(BufferSource):
    """A source that records that it was closed."""

    closed = False

    def close(self):
        self.closed = True
        super().close()


def test_a_plain_input_is_its_own_source_and_stays_open():
    given = Closes(PC)
    problems = []
    taken = take_inputs(given, (), {}, problems)
    assert taken.source is given
    assert (taken.container.name, taken.container.compression) == ("raw", "none")
    assert (taken.pipe, taken.file_size, taken.channels, problems) == (None, len(PC), (), [])
    taken.give_back()
    assert not given.closed
    taken.close()
    assert given.closed


def test_a_compressed_input_has_a_source_of_its_own():
    given = BufferSource(gzip.compress(PC))
    taken = take_inputs(given, (), {}, [])
    assert taken.container.compression == "gzip"
    assert bytes(taken.source.whole) == PC
    assert taken.file_size == given.size
    taken.close()


def test_a_compressed_channel_is_decompressed():
    plain, packed = BufferSource(b"channel one"), BufferSource(gzip.compress(bytes.fromhex("1122334400000001") * 99))
    taken = take_inputs(BufferSource(PC), (plain, packed), {}, [])
    assert taken.channels[0] is plain
    assert bytes(taken.channels[1].whole) == bytes.fromhex("1122334400000001") * 99
    assert taken.outer == (packed,)
    taken.close()


def test_a_pipe_has_no_size_and_no_descriptor():
    taken = take_inputs(io.BytesIO(PC), (), {}, [])
    assert taken.pipe is not None
    assert (taken.file_size, taken.descriptors) == (None, ())
    taken.close()
