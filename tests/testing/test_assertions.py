"""Two streams of the same state, and the explanation where they are not."""

from pathlib import Path

import numpy as np  # noqa: F401 - not twice in one process: see test_plugin
import pytest

from qmigtool.testing import assert_same_state
from tests.diff.comparing import edited
from tests.support import samplefiles

pytest_plugins = ["pytester"]

PC = samplefiles.path("pc-7.2")


def test_same_state_passes_and_another_is_explained(pytester: pytest.Pytester) -> None:
    changed = pytester.path / "changed.mig"
    changed.write_bytes(
        edited("pc-7.2", lambda r: r.set("cpu@1/env.cr[4]", 0x600), lambda r: r.set("cpu@2/env.tsc", 77))
    )
    pytester.makepyfile(
        f"""
        PC, CHANGED = {str(PC)!r}, {str(changed)!r}

        def test_same(assert_same_state):
            assert_same_state(PC, PC)

        def test_ignored(assert_same_state):
            assert_same_state(PC, CHANGED, ignore=["cpu@*/env.cr[[]4]", "cpu@1/env.cr[4]"])

        def test_other(assert_same_state):
            assert_same_state(PC, CHANGED)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: the saved states differ: 1 difference; excused as noise: 1 TSC",
            "E*A: *pc-7.2.mig, pc-i440fx-7.2, saved by tcg (inferred)",
            "E*where *A *B *about",
            "E*cpu@1/env.cr[[]4[]]*0x40600*0x600*CR4: -OSXSAVE",
        ]
    )
    # The assertion is what failed, not a line inside the plugin.
    assert "qmigtool/testing/" not in result.stdout.str()


def test_a_broken_stream_is_no_same_state(tmp_path: Path) -> None:
    cut = PC.read_bytes()[:-5000]
    with pytest.raises(AssertionError, match="B is broken"):
        assert_same_state(PC, cut)


def test_memory_is_compared_when_asked_for() -> None:
    scrubbed = edited("pc-7.2", lambda r: r.scrub_ram())
    assert_same_state(PC, scrubbed)
    with pytest.raises(AssertionError, match=r"pages of guest memory differ\n  pc.ram at 0x"):
        assert_same_state(PC, scrubbed, ram=True)


def test_an_explanation_has_an_end() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_same_state(samplefiles.path("pc-7.2"), samplefiles.path("q35-7.2"))
    assert len(str(caught.value).splitlines()) < 50
    assert "more" in str(caught.value)
