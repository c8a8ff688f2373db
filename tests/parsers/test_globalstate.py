"""The run state of the guest: the name in its field, and the names that QEMU accepts."""

import pytest

import qmigtool
from qmigtool.parsers.globalstate import RUN_STATE, RUN_STATES, run_state_name
from tests.support import samplefiles


@pytest.mark.parametrize(
    ("buffer", "name"),
    [(b"paused" + bytes(94), "paused"), (b"running\0old", "running"), (bytes(100), ""), (b"x" * 100, "x" * 100)],
)
def test_the_name_ends_at_the_first_nul(buffer, name):
    assert run_state_name(buffer) == name


@pytest.mark.parametrize("sample", ["pc-7.2", "q35-7.2", "arm-7.2"])
def test_the_name_in_a_real_stream_is_one_that_a_loader_accepts(sample):
    with qmigtool.open(samplefiles.path(sample)) as stream:
        buffer = stream.device("globalstate").field(RUN_STATE).value
    assert run_state_name(bytes(buffer)) in RUN_STATES
