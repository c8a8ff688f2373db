"""The pytest plugin, run by pytest in projects of their own.

pytester forgets the modules that a test has imported. numpy cannot be imported twice into one process: so it is
imported here, and the projects' tests run in processes of their own.
"""

import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np  # noqa: F401 - see above
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
KVM, TCG = samplefiles.path("twin-kvm-10.0"), samplefiles.path("twin-tcg-10.0")


def test_nothing_heavy_is_imported() -> None:
    """pytest loads the plugin in every run of every project: what it costs, everybody pays."""
    code = (
        "import sys, pytest; before = set(sys.modules); import qmigtool.testing.plugin; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}), "
        "*sorted(m for m in sys.modules if m.startswith('qmigtool')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        *("qmigtool", "qmigtool", "qmigtool.errors", "qmigtool.testing", "qmigtool.testing.plugin"),
    ]


def test_the_plugin_is_found_by_its_entry_point(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--help")
    result.stdout.fnmatch_lines(["*--qmig-update-golden*"])
    result = pytester.runpytest_subprocess("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.qmig_streams(folder*"])


@pytest.mark.slow
def test_a_stream_is_opened_and_closed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        kept = []

        def test_open(qmig_open):
            stream = qmig_open({str(PC)!r})
            kept.append(stream)
            assert stream.machine == "pc-i440fx-7.2"
            assert qmig_open({str(KVM)!r}, accelerator="tcg").accelerator.given

        def test_closed():
            import pytest, qmigtool
            with pytest.raises(qmigtool.ClosedError):
                kept[0].source.view(0, 4)
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


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


@pytest.mark.slow
def test_a_test_for_each_stream_of_a_folder(pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("streams")
    for name in ("pc-7.2", "microvm-10.0"):
        shutil.copy(samplefiles.path(name), folder)
    (folder / "notes.txt").write_text("no stream")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.qmig_streams("streams")
        def test_each(qmig_stream):
            assert qmig_stream.vcpus

        @pytest.mark.qmig_streams("streams", pattern="pc-*")
        def test_some(qmig_stream):
            assert qmig_stream.machine == "pc-i440fx-7.2"
        """
    )
    result = pytester.runpytest_subprocess("-v", "--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_each?microvm-10.0.mig? PASSED*", "*test_some?pc-7.2.mig? PASSED*"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "message"),
    [('@pytest.mark.qmig_streams("none")', "no stream '[*].mig' in *none"), ("", "qmig_stream requires @pytest.mark*")],
)
def test_a_folder_without_streams_fails(pytester: pytest.Pytester, mark: str, message: str) -> None:
    """Tests that are gone because a folder was renamed would look like success."""
    pytester.makepyfile(f"import pytest\n{mark}\ndef test_each(qmig_stream): pass\n\ndef test_other(): pass\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"{message}*"])


def test_a_file_that_is_no_stream_fails_in_one_line(pytester: pytest.Pytester) -> None:
    (pytester.mkdir("streams") / "x.mig").write_text("no stream at all")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.qmig_streams("streams")
        def test_each(qmig_stream): pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*x.mig: at offset 0x0*"])
    assert "qmigtool/stream/model.py" not in result.stdout.str()


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
