from pathlib import Path

import pytest

from qmigtool.errors import BudgetError, StreamError, TruncatedError
from qmigtool.parsers.source import BufferSource, FileSource, KeptSource
from qmigtool.util.budget import Limits, limited

DATA = bytes(range(200))


@pytest.fixture(params=["buffer", "file"])
def opened(request, tmp_path):
    if request.param == "buffer":
        with BufferSource(bytearray(DATA)) as found:
            yield found
    else:
        path = tmp_path / "x.mig"
        path.write_bytes(DATA)
        with FileSource(path) as found:
            yield found


def test_views(opened):
    assert opened.size == 200
    assert bytes(opened.view(5, 3)) == b"\x05\x06\x07"
    assert bytes(opened.view(200, 0)) == b""
    assert opened.view(0, 200).readonly


@pytest.mark.parametrize(("offset", "length"), [(200, 1), (0, 201), (1 << 70, 1), (-1, 1), (5, -1)])
def test_beyond_the_end(opened, offset, length):
    with pytest.raises(TruncatedError) as caught:
        opened.view(offset, length)
    assert caught.value.offset == 200


def test_a_file_is_only_read(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(DATA)
    path.chmod(0o400)
    before = path.stat()
    with FileSource(path) as found:
        assert found.name == str(path)
        assert bytes(found.whole) == DATA
    assert path.read_bytes() == DATA
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    with FileSource(path) as found:
        assert found.size == 0
        with pytest.raises(TruncatedError):
            found.view(0, 1)


def test_a_view_outlives_its_source(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(DATA)
    found = FileSource(path)
    view = found.view(10, 2)
    found.close()
    assert bytes(view) == b"\x0a\x0b"


def test_nothing_stays_open(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(DATA)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        FileSource(path).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_kept_spans():
    kept = KeptSource()
    kept.keep(100, b"abcdef")
    kept.keep(200, b"xyz")
    assert kept.size is None
    assert bytes(kept.view(100, 6)) == b"abcdef"
    assert bytes(kept.view(102, 2)) == b"cd"
    assert bytes(kept.view(200, 3)) == b"xyz"
    for offset, length in ((99, 1), (105, 2), (106, 1), (0, 1), (202, 2), (500, 0)):
        with pytest.raises(StreamError, match="not kept"):
            kept.view(offset, length)


def test_what_is_kept_is_bounded():
    kept = KeptSource()
    with limited(Limits(memory=20)):
        kept.keep(0, b"12345678")
        with pytest.raises(BudgetError, match="--max-memory") as caught:
            kept.keep(100, b"123")
    assert caught.value.offset == 100
