"""A stream read through a pipe, in pieces of any size, is the stream read from its file."""

import contextlib
import io
import os
import threading

import pytest

import qmigtool
from qmigtool.errors import StreamError
from tests.stream.opened import frames, look, small
from tests.support import samplefiles


def through_a_pipe(data, consumer):
    read, write = os.pipe()

    def feed():
        with contextlib.suppress(BrokenPipeError), os.fdopen(write, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with os.fdopen(read, "rb") as pipe, qmigtool.open(pipe) as stream:
            return consumer(stream)
    finally:
        thread.join()


@pytest.mark.parametrize("name", samplefiles.NAMES)
def test_a_pipe_gives_what_the_file_gives(name):
    data = samplefiles.read(name)
    with qmigtool.open(samplefiles.path(name)) as stream:
        expected = look(stream)
        masks = [(v.xcr0, v.live, v.xsave.data) for v in stream.vcpus] if name in samplefiles.X86 else None
    assert through_a_pipe(data, look) == expected
    with qmigtool.open(io.BytesIO(data)) as stream:
        assert look(stream) == expected
        assert stream.strategy == "forward"
        if masks is not None:
            assert [(v.xcr0, v.live, v.xsave.data) for v in stream.vcpus] == masks


class Dribble(io.RawIOBase):
    """A raw stream that gives a few bytes at a time, as a socket may."""

    def __init__(self, data, step):
        self._data, self._step, self._at = data, step, 0

    def readable(self):
        return True

    def read(self, size=-1):
        piece = self._data[self._at : self._at + self._step]
        self._at += len(piece)
        return piece


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("options", [{}, {"tail": bytes(99)}, {"vmdesc": False}, {"machine": None}])
def test_pieces_of_any_size_through_a_pipe(step, options):
    w = small(**options)
    data = bytes(w.data)
    with qmigtool.open(data) as stream:
        expected = look(stream)
    with qmigtool.open(Dribble(data, step)) as stream:
        assert look(stream) == expected
        assert frames(stream) == w.spans


@pytest.mark.parametrize("step", [1, 5])
def test_a_container_in_small_pieces(step):
    with pytest.raises(StreamError, match="gzip"):
        qmigtool.open(Dribble(b"\x1f\x8b\x08" + bytes(40), step))


def test_a_fifo_by_its_path(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    data = bytes(small().data)
    thread = threading.Thread(target=path.write_bytes, args=(data,))
    thread.start()
    with qmigtool.open(path) as stream:
        thread.join()
        assert stream.complete
        assert [v.xcr0 for v in stream.vcpus] == [7, 1]
