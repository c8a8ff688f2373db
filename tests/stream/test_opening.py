"""Inputs of any kind, and inputs that are no stream."""

import io

import pytest

import qmigtool
from qmigtool.errors import StreamError, TruncatedError, UnsupportedError
from tests.stream.opened import small


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind(kind):
    with qmigtool.open(kind(bytes(small().data))) as stream:
        assert stream.complete


def test_path_as_text(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(small().data)
    with qmigtool.open(str(path)) as stream:
        assert stream.complete
        assert repr(stream) == f"<Stream {str(path)!r}, pc-i440fx-7.2, read tail-first>"


@pytest.mark.parametrize("data", [b"", b"QEV", b"\x7fELF" + bytes(60), bytes(5000), b"\xff" * 5000])
def test_no_stream_at_all(data):
    for target in (data, io.BytesIO(data)):
        with pytest.raises(StreamError) as caught:
            qmigtool.open(target)
        assert caught.value.offset is not None


@pytest.mark.parametrize("head", [b"\x02\x21\x4c\x18", b"LUKS\xba\xbe", b"QCPR"])
def test_containers_that_cannot_be_opened_are_named(head):
    for target in (head + bytes(50), io.BytesIO(head + bytes(50))):
        with pytest.raises(UnsupportedError) as caught:
            qmigtool.open(target)
        assert caught.value.offset == 0
        assert caught.value.feature


@pytest.mark.parametrize("head", [b"LibvirtQemudSave", b"QFI\xfb", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_containers_that_are_nothing_but_a_head(head):
    with pytest.raises((StreamError, UnsupportedError)):
        qmigtool.open(head + bytes(50))


def test_files_that_are_no_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        qmigtool.open(tmp_path / "absent")
    with pytest.raises(OSError, match=r"directory|Is a"):
        qmigtool.open(tmp_path)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(TruncatedError):
        qmigtool.open(empty)
