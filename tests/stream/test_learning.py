"""A schema learned from streams: what is skipped, and what is broken."""

import pytest

from qmigtool.errors import TruncatedError, UnsupportedError
from qmigtool.stream.learning import learn_from
from tests.support import samplefiles


def test_a_stream_without_a_vmdesc_is_skipped() -> None:
    described, bare = str(samplefiles.path("pc-7.2")), str(samplefiles.path("novmdesc-7.2"))
    found = learn_from([described, bare], "one")
    assert found.schema.name == "one"
    assert found.schema.variants("cpu", 12)
    assert (found.skipped, found.problems) == ([bare], [])
    with pytest.raises(UnsupportedError, match="without a vmdesc"):
        learn_from([bare])


def test_the_problems_of_a_broken_stream_are_returned(tmp_path) -> None:
    broken = tmp_path / "broken.mig"
    broken.write_bytes(samplefiles.path("pc-7.2").read_bytes()[:3000])
    found = learn_from([str(broken)])
    assert not found.schema.devices
    assert [type(one) for one in found.problems] == [TruncatedError]
