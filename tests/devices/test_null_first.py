"""An array of pointers whose first one is NULL, as QEMU before 10.0 describes it: structs of nothing, a byte for each.

``css`` of s390_css (7.2: 256 pointers, of which number 254 is no NULL): what it points to is in the body all the same.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import UnsupportedError
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader.predict import predict_source
from qmigtool.preflight.target.reference import target_from_stream
from tests.support.streamwriter import Item, Pairs, StreamWriter, Vmsd, num


def nothing(name: str, count: int, data: bytes) -> Item:
    words = [("name", name), ("array_len", count), ("type", "struct"), ("struct", Pairs([])), ("size", 1)]
    return Item([Pairs(words)], data)


def stream(*fields: Item) -> bytes:
    writer = StreamWriter()
    writer.device(1, "s390_css", 0, Vmsd("s390_css", 1, fields))
    return writer.finish()


def test_the_fields_around_it_are_read() -> None:
    data = stream(num("first", "uint8", 3), nothing("css", 4, b"00" + b"abcdef" + b"0"), num("last", "uint16", 0xFE))
    with qmigtool.open(data) as opened:
        (device,) = opened.devices
        assert [(one.name, one.value) for one in device.fields] == [
            ("first", 3),
            ("css", b"00abcdef0"),
            ("last", 0xFE),
        ]
        rewriter = qmigtool.Rewriter(opened)
        rewriter.set("s390_css@0/last", 7)
        made = io.BytesIO()
        rewriter.write(made)
        assert made.getvalue() == data.replace(b"abcdef0\0\xfe", b"abcdef0\0\x07")


def test_check_has_nothing_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vm.mig"
    path.write_bytes(stream(nothing("css", 4, b"00" + b"abcdef" + b"0"), num("last", "uint16", 1)))
    main.run(["check", str(path)])
    assert "devices-decoded" not in capsys.readouterr().out


def test_a_target_does_not_read_by_it() -> None:
    """Real 7.2 loads s390_css though its own description is 767 bytes short: what it points to is not described."""
    data = stream(num("first", "uint8", 3), nothing("css", 4, b"00" + b"abcdef" + b"0"))
    with qmigtool.open(data) as opened:
        target = target_from_stream(opened, "reference")
    assert predict_source(BufferSource(data), target).loads is None


@pytest.mark.parametrize(
    "fields",
    [
        (nothing("a", 2, b"0xx0"), nothing("b", 2, b"00")),  # which of the two is longer?
        (nothing("a", 4, b"00"),),  # shorter than a byte for each
    ],
)
def test_what_cannot_be_told_stays_unread(fields: tuple[Item, ...]) -> None:
    with qmigtool.open(stream(*fields)) as opened, pytest.raises(UnsupportedError):
        _ = opened.devices[0].fields
