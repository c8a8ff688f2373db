"""The pytest plugin, run by pytest in projects of their own.

pytester forgets the modules that a test has imported. numpy cannot be imported twice into one process: so it is
imported here, and the projects' tests run in processes of their own.
"""

import shutil
import subprocess
import sys

import numpy as np  # noqa: F401 - see above
import pytest

from tests.support import samplefiles

PC = samplefiles.path("pc-7.2")

pytest_plugins = ["pytester"]


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
