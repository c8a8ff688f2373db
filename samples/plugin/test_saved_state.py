"""Tests of saved state with qmigtool's pytest plugin; the last fails on purpose, to show its output.

pytest samples/plugin
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import qmigtool

SAMPLES = Path(__file__).resolve().parents[1]
BEFORE = SAMPLES / "pc-7.2.mig"


@pytest.mark.qmig_streams("..", pattern="pc-*.mig")
def test_every_stream_is_whole(qmig_stream: qmigtool.Stream) -> None:
    assert qmig_stream.complete
    assert len(qmig_stream.vcpus) == 4


def test_a_program_that_changes_too_much(assert_same_state: Callable[..., None], tmp_path: Path) -> None:
    after = tmp_path / "after.mig"
    with qmigtool.open(BEFORE) as stream:  # stands for the program under test
        edits = qmigtool.Rewriter(stream)
        edits.set("cpu@1/env.cr[4]", 0x600)
        edits.set("cpu@2/env.mxcsr", 0x1FA0)
        edits.set("cpu@2/env.tsc", 77)
        edits.save(after)
    assert_same_state(BEFORE, after, ignore="cpu@*")
    assert_same_state(BEFORE, after)
