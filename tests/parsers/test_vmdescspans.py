"""Measured or read as a whole, a vmdesc says the same; and only what is asked for is taken apart."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.errors import StreamError
from qmigtool.parsers import vmdesc
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.vmdescspans import find_spans
from tests.parsers.test_vmdesc import EVERYTHING, INNER, SUB, text_of
from tests.support import packedsamples, samplefiles

DESCRIBED = [name for name in packedsamples.NAMES if name not in packedsamples.NO_VMDESC]


def sample_text(name):
    path = samplefiles.path(name) if name in samplefiles.NAMES else packedsamples.packed(name).path
    with qmigtool.open(path) as stream:
        return stream.vmdesc_text


def outcome(text):
    """What reading says: all that is in it, or the error."""
    try:
        found = parse_vmdesc(text)
        return found.page_size, found.configuration, [(d.size, d.version, d._all()) for d in found.devices]
    except StreamError as error:
        return type(error), str(error)


def at_once(text):
    """The same, read as a whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vmdesc, "find_spans", lambda text: None)
        return outcome(text)


@pytest.mark.parametrize("name", [*samplefiles.DESCRIBED, *DESCRIBED])
def test_every_real_description_is_measured(name):
    text = sample_text(name)
    spans = find_spans(text.decode())
    assert None not in {device.size for device in spans.devices}
    assert outcome(text) == at_once(text)


@pytest.mark.parametrize("spaced", [False, True])
def test_inline_descriptions_are_measured(spaced):
    text = text_of(EVERYTHING, INNER, SUB, spaced=spaced)
    sizes = [device.size for device in find_spans(text.decode()).devices]
    assert sizes == [len(one.body()) for one in (EVERYTHING, INNER, SUB)]
    assert outcome(text) == at_once(text)


PC = sample_text("pc-7.2")
WORDS = [match.span() for match in re.finditer(rb'"[^"]*"|[0-9]+', PC)]
PIECES = [b'"name"', b'"size"', b'"version"', b'"vmsd_name"', b'"fields"', b'"struct"', b'"array_len"', b"0", b"-1",
          b"1.5", b"NaN", b"true", b"null", b"{}", b"[]", b"281474976710656",
          b'"\\ud800"', b'"\xff"', b"", b"16777217"]  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(WORDS) - 1), st.sampled_from(PIECES))
def test_whatever_stands_in_the_text(word, piece):
    start, end = WORDS[word]
    text = PC[:start] + piece + PC[end:]
    assert outcome(text) == at_once(text)


@pytest.mark.parametrize("name", ["pc-7.2", "twin-kvm-10.0"])
def test_one_field_takes_one_description_apart(name):
    with qmigtool.open(samplefiles.path(name)) as stream:
        stream.prove()
        assert stream.field("cpu@0/env.eip").value
        assert [device.idstr for device in stream.vmdesc.devices if device._make is None] == ["cpu"]
