"""libvirt's save images: both byte orders, every compression, unfinished and broken ones."""

import bz2
import gzip
import lzma
import struct

import pytest

import qmigtool
from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError, UnsupportedError
from tests.support import samplefiles

PC = samplefiles.read("pc-7.2")


def save_image(
    payload: bytes,
    *,
    version: int = 2,
    form: int = 0,
    order: str = "<",
    magic: bytes = b"LibvirtQemudSave",
    **words: int,
) -> bytes:
    """A save image with 1000 bytes of XML and slack (src/qemu/qemu_saveimage.h)."""
    xml = b"<domain/>\0".ljust(1000, b"\0")
    numbers = (version, words.get("length", len(xml)), 1, form, words.get("cookie", 0))
    return magic + struct.pack(f"{order}5I", *numbers).ljust(76, b"\0") + xml + payload


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
def test_save_images_of_either_byte_order(order: str, version: int) -> None:
    with qmigtool.open(save_image(PC, order=order, version=version)) as stream:
        assert stream.complete
        assert stream.container.details["stream_offset"] == 1092


@pytest.mark.parametrize(("form", "pack"), [(1, gzip.compress), (2, bz2.compress), (3, lzma.compress)])
def test_save_images_that_are_packed(form: int, pack: object) -> None:
    assert callable(pack)
    with qmigtool.open(save_image(pack(PC), form=form)) as stream:
        assert stream.complete
        assert (stream.container.name, stream.container.in_place) == ("libvirt", False)


def test_an_unfinished_save_image_says_so() -> None:
    with qmigtool.open(save_image(PC, magic=b"LibvirtQemudPart")) as stream:
        assert "did not finish" in str(stream.problems[0])
        assert stream.vcpus


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"version": 3}, StreamError),
        ({"length": 1 << 30}, LimitError),
        ({"length": 1 << 22}, TruncatedError),
        ({"cookie": 5000}, StreamError),
        ({"form": 9}, UnsupportedError),
    ],
)
def test_broken_save_images(words: dict[str, int], error: type[QmigError]) -> None:
    with pytest.raises(error) as caught:
        qmigtool.open(save_image(PC, **words))  # type: ignore[arg-type]
    assert caught.value.offset is not None


@pytest.mark.parametrize(
    ("form", "payload", "words"),
    [
        (1, PC, "says gzip, but the stream is raw"),
        (0, gzip.compress(PC), "says raw, but the stream is gzip"),
        (3, gzip.compress(PC), "says xz, but the stream is gzip"),
        (6, gzip.compress(PC), "says sparse, but the stream is gzip"),
    ],
)
def test_a_header_that_lies_about_the_format(form: int, payload: bytes, words: str) -> None:
    """libvirt starts the program that the header names."""
    with qmigtool.open(save_image(payload, form=form)) as stream:
        assert words in str(stream.problems[0])
        assert stream.problems[0].offset == 28
        assert len(stream.vcpus) == 4
