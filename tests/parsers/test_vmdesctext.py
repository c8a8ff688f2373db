"""A vmdesc's text written again: byte for byte where QEMU wrote it, and where its parts are in it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.errors import StreamError
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.vmdesctext import (
    describe,
    describe_device,
    find_parts,
    format_pairs,
    format_vmdesc,
    is_spaced,
)
from tests.parsers.test_vmdesc import EVERYTHING
from tests.support import packedsamples, samplefiles
from tests.support.streamwriter import Pairs, StreamWriter, Vmsd, dump, num

ALL = [*samplefiles.DESCRIBED, *(n for n in packedsamples.NAMES if n not in packedsamples.NO_VMDESC)]


def text_of(name):
    path = samplefiles.path(name) if name in samplefiles.NAMES else packedsamples.packed(name).path
    with qmigtool.open(path) as stream:
        assert stream.vmdesc_text is not None
        return stream.vmdesc_text


@pytest.mark.parametrize("name", ALL)
def test_a_real_text_is_written_as_qemu_wrote_it(name):
    text = text_of(name)
    assert format_vmdesc(text) == text
    assert is_spaced(text) == name.endswith("-5.2")


@pytest.mark.parametrize("name", ALL)
def test_every_device_is_described_as_qemu_described_it(name):
    """From the tree that was made of it, not from the text."""
    text = text_of(name)
    parts, parsed = find_parts(text), parse_vmdesc(text)
    assert len(parts.devices) == len(parsed.devices)
    for (start, end), device in zip(parts.devices, parsed.devices, strict=True):
        assert format_pairs(describe_device(device), spaced=is_spaced(text)) == text[start:end]
    if parts.configuration is not None:
        start, end = parts.configuration
        assert format_pairs(describe(parsed.configuration), spaced=is_spaced(text)) == text[start:end]
    assert (parsed.configuration is None) == (parts.configuration is None)


@pytest.mark.parametrize("name", ALL)
def test_the_parts_are_where_they_are_said_to_be(name):
    text = text_of(name)
    parts, whole = find_parts(text), json.loads(text, strict=False)
    assert [json.loads(text[start:end], strict=False) for start, end in parts.devices] == whole["devices"]
    if "configuration" in whole:
        assert json.loads(text[slice(*parts.configuration)]) == whole["configuration"]
    comma = b", "
    for (_, end), (start, _) in zip(parts.devices, parts.devices[1:], strict=False):
        assert text[end:start] == comma


def synthetic(**style):
    w = StreamWriter()
    w.device(2, "everything", 0, EVERYTHING)
    w.old_style(3, "slirp", 1, 4, bytes(131))
    w.device(4, 'odd "name" \\ \x01' if not style.get("spaced") else "plain", 2, Vmsd("x", 1, [num("n", "uint8", 1)]))
    return w.vmdesc_text(**style), w.described


@pytest.mark.parametrize("spaced", [False, True])
def test_every_kind_of_field(spaced):
    text, devices = synthetic(spaced=spaced)
    assert format_vmdesc(text) == text
    assert is_spaced(text) == spaced
    parts, parsed = find_parts(text), parse_vmdesc(text)
    for (start, end), device, pairs in zip(parts.devices, parsed.devices, devices, strict=True):
        assert text[start:end] == dump(pairs, spaced=spaced).encode()
        assert format_pairs(describe_device(device), spaced=spaced) == text[start:end]


@pytest.mark.parametrize(
    ("text", "configuration", "devices"),
    [
        (b'{"devices": []}', None, []),
        (b'{"devices":[{},{}]}', None, [b"{}", b"{}"]),
        (
            b' { "devices" : [ {"a": [1, {"devices": [5]}]} , 7 ] , "x" : 1 } ',
            None,
            [b'{"a": [1, {"devices": [5]}]}', b"7"],
        ),
        (b'{"configuration": {"devices": [1]}, "devices": ["]"]}', b'{"devices": [1]}', [b'"]"']),
        (b'{"x": "\\"devices\\": [1]", "devices": ["\\\\"], "configuration": null}', b"null", [b'"\\\\"']),
        (b'{"devices": [1], "devices": [2, 3]}', None, [b"1"]),
        ('{"ä": "ü", "devices": ["ö"]}'.encode(), None, ['"ö"'.encode()]),
        (b'{"x": "\xff\xfe", "devices": ["\x80"]}', None, [b'"\x80"']),
    ],
)
def test_parts_by_hand(text, configuration, devices):
    parts = find_parts(text)
    assert [text[start:end] for start, end in parts.devices] == devices
    assert (None if parts.configuration is None else text[slice(*parts.configuration)]) == configuration


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"{}", b"5", b'{"devices"}', b'{"devices":}', b'{"devices": {}}', b'{"devices": [}'),
        *(b'{"devices": [1 2]}', b'{"devices": [1,]}', b'{"devices": [1]', b'{"devices": [1],', b'{"devices": ['),
        *(b'{"devices": ' + b"[" * 100_000, b'{"x": ' + b"[" * 100_000, b'{"devices": "x"}'),
    ],
)
def test_what_is_no_vmdesc(text):
    with pytest.raises(StreamError):
        find_parts(text)


LEAVES = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(st.text(), inner), max_size=4).map(Pairs)
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_any_text_of_the_new_style(devices):
    text = dump(Pairs([("page_size", 4096), ("devices", devices)])).encode()
    assert format_vmdesc(text) == text
    parts = find_parts(text)
    assert [text[start:end] for start, end in parts.devices] == [dump(device).encode() for device in devices]
