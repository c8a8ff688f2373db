"""Golden files."""

import lzma
from pathlib import Path

import numpy as np  # noqa: F401 - not twice in one process: see test_plugin
import pytest

import qmigtool
from qmigtool.errors import BudgetError
from qmigtool.testing import assert_same_state
from qmigtool.testing.goldens import open_golden, write_golden
from qmigtool.util.budget import Limits, limited
from tests.diff.comparing import edited
from tests.support import samplefiles

pytest_plugins = ["pytester"]

PC = samplefiles.path("pc-7.2")

GOLDEN = """
    import os

    def test_state(qmig_golden):
        qmig_golden(os.environ["STREAM"], ignore=["i8259@*"])
        qmig_golden(os.environ["STREAM"], "again/../../../etc")
"""


@pytest.mark.slow
def test_golden_files(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(test_golden=GOLDEN)
    monkeypatch.setenv("STREAM", str(PC))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no golden file *test_state.mig.xz; --qmig-update-golden writes it*"])

    result = pytester.runpytest_subprocess("--qmig-update-golden", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    folder = pytester.path / "golden" / "test_golden"
    assert sorted(file.name for file in folder.iterdir()) == [
        "test_state-again-..-..-..-etc.mig.xz",
        "test_state.mig.xz",
    ]
    result.stdout.fnmatch_lines(["*golden files written*", "*test_state.mig.xz (* bytes)"])
    assert all(file.stat().st_size < 40_000 for file in folder.iterdir())
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)

    changed = pytester.path / "changed.mig"
    changed.write_bytes(edited("pc-7.2", lambda r: r.set("cpu@3/env.regs[0]", 5)))
    monkeypatch.setenv("STREAM", str(changed))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*A: golden/test_golden/test_state.mig.xz, *", "E*cpu@3/env.regs?0?*0x5*RAX", "E*--qmig-update-golden*again"]
    )


def test_a_golden_is_the_stream_without_its_memory(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "one.mig.xz"
    with qmigtool.open(PC) as stream:
        size = write_golden(stream, file)
        assert size == file.stat().st_size
        with open_golden(file) as golden:
            assert_same_state(stream, golden)
            assert not any(golden.ram.page("pc.ram", 0x100000))
            assert any(stream.ram.page("pc.ram", 0x100000))


def test_a_golden_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "one.mig.xz"
    for data in (b"", b"no xz at all", lzma.compress(PC.read_bytes())[:-50]):
        file.write_bytes(data)
        with pytest.raises(qmigtool.StreamError):
            open_golden(file)


def test_a_golden_that_unpacks_without_end(tmp_path: Path) -> None:
    file = tmp_path / "one.mig.xz"
    file.write_bytes(lzma.compress(bytes(4 << 20)))
    with pytest.raises(qmigtool.StreamError, match="starts with zeros"):
        open_golden(file)
    file.write_bytes(lzma.compress(PC.read_bytes() * 4))
    with limited(Limits(spool=1 << 20)), pytest.raises(BudgetError, match="--max-spool"):
        open_golden(file)
