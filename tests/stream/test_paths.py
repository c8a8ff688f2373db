"""``stream[path]``: what is at a path, as ``show`` names it."""

import pickle

import pytest

import qmigtool
from qmigtool.devices.device import Device
from qmigtool.parsers.vmstate import Field, Kind
from tests.support import samplefiles


@pytest.fixture
def stream():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        yield stream


def test_a_path_is_a_device_a_subsection_or_a_field(stream):
    assert isinstance(stream["cpu@1"], Device)
    assert stream["cpu@1"].instance_id == 1
    assert stream["cpu"] is stream["cpu@0"]
    field = stream["cpu@0/env.xcr0"]
    assert isinstance(field, Field)
    assert field.value == stream.field("cpu@0/env.xcr0").value == stream["cpu@0/xcr0"].value
    subsection = next(one for one in stream["cpu@0"].fields if one.kind is Kind.SUBSECTION)
    assert stream[f"cpu@0/{subsection.name}"].kind is Kind.SUBSECTION


@pytest.mark.parametrize("path", ["nothing", "cpu@9", "cpu@0/env.xcr1", "", "cpu@0/env.regs[99]"])
def test_what_is_not_there_is_a_key_error_and_one_of_ours(stream, path):
    with pytest.raises(KeyError) as caught:
        stream[path]
    error = caught.value
    assert isinstance(error, qmigtool.PathError)
    assert isinstance(error, qmigtool.UsageError)
    assert error.expected
    assert "expected" in str(error)
    assert not str(error).startswith(("'", '"'))  # KeyError shows the repr of its argument
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own
    assert path not in stream


def test_membership(stream):
    assert "cpu@0/env.xcr0" in stream
    assert "cpu@1" in stream
    assert 0 not in stream


def test_a_stream_is_not_a_sequence(stream):
    with pytest.raises(TypeError, match="a path is a str, not int"):
        stream[0]
    with pytest.raises(TypeError):
        list(stream)


def test_a_body_that_nothing_describes_is_not_a_key_error():
    with qmigtool.open(samplefiles.path("novmdesc-7.2"), schema=None) as stream:
        unknown = [device for device in stream.devices if device.description is None]
        for device in unknown:
            with pytest.raises(qmigtool.UnsupportedError):
                stream[f"{device.label}/x"]
            assert f"{device.label}/x" not in stream


def test_a_closed_stream_is_not_asked(stream):
    stream.close()
    with pytest.raises(qmigtool.ClosedError):
        stream["cpu@0/env.xcr0"]
    with pytest.raises(qmigtool.ClosedError):
        _ = "cpu@0" in stream
    with pytest.raises(qmigtool.ClosedError):
        stream.info()
