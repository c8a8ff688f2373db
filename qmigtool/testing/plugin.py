"""The pytest plugin: streams as fixtures, one assertion, golden files, and a test for each stream of a folder.

pytest loads this module in every run of every project that has qmigtool installed, so it imports nothing else of
qmigtool until a test needs it.

===================================  ==================================================================================
fixture ``qmig_open``                opens streams (as ``qmigtool.open``), and closes them after the test
fixture ``qmig_stream``              each stream of a folder, one test for each: ``@pytest.mark.qmig_streams("folder")``
fixture ``assert_same_state``        :func:`qmigtool.testing.assert_same_state`
fixture ``qmig_golden``              ``qmig_golden(stream)``: the state is that of the golden file of this test
option ``--qmig-update-golden``      write the golden files again instead of comparing
===================================  ==================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from qmigtool.diff import Noise
    from qmigtool.stream.model import Stream

__all__ = ["assert_same_state", "qmig_golden", "qmig_open", "qmig_stream"]

MARKER = "qmig_streams"
FOLDER = "golden"  # next to the test file


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--qmig-update-golden``."""
    group = parser.getgroup("qmigtool", "QEMU migration streams")
    group.addoption(
        "--qmig-update-golden",
        action="store_true",
        help="write the golden files of qmig_golden again instead of comparing with them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f'{MARKER}(folder, pattern="*.mig"): run the test once for each stream of a folder next to the test file '
        "(fixture qmig_stream)",
    )
    config.stash[_WRITTEN] = []


_WRITTEN: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that use ``qmig_stream`` with the streams of their folder."""
    if "qmig_stream" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        files: list[Path | str] = [f'qmig_stream requires @pytest.mark.{MARKER}("folder")']
    else:
        files = _streams(metafunc.definition.path.parent, *marker.args, **marker.kwargs)
    # A renamed folder must not make its tests disappear: the error is a test that fails.
    ids = [file.name if isinstance(file, Path) else "no-stream" for file in files]
    metafunc.parametrize("qmig_stream", files, indirect=True, ids=ids)


def _streams(beside: Path, folder: str, pattern: str = "*.mig") -> list[Path | str]:
    """Return the streams of a folder, or error messages in their place."""
    place = beside / folder
    files: list[Path | str] = [file for file in sorted(place.glob(pattern)) if file.is_file()]
    return files or [f"no stream {pattern!r} in {place}"]


@pytest.fixture
def qmig_open(request: pytest.FixtureRequest) -> Iterator[Callable[..., Stream]]:
    """Return a function that opens a stream as ``qmigtool.open`` does; it is closed after the test.

    A relative path that does not exist from the working directory is looked up next to the test file.
    """
    from qmigtool.stream.opening import open_stream

    with ExitStack() as stack:

        def opened(target: Any, **options: Any) -> Stream:
            if isinstance(target, str | Path) and not Path(target).exists():
                beside = request.path.parent / target
                target = beside if beside.exists() else target
            return stack.enter_context(open_stream(target, **options))

        yield opened


@pytest.fixture
def qmig_stream(request: pytest.FixtureRequest, qmig_open: Callable[..., Stream]) -> Stream:
    """The stream of this test: one of the folder that ``@pytest.mark.qmig_streams`` names."""
    from qmigtool.errors import QmigError

    if isinstance(request.param, str):
        pytest.fail(request.param, pytrace=False)
    try:
        return qmig_open(request.param)
    except (QmigError, OSError) as error:
        pytest.fail(f"{request.param}: {error}", pytrace=False)


@pytest.fixture(name="assert_same_state")
def assert_same_state() -> Callable[..., None]:
    """Return :func:`qmigtool.testing.assert_same_state`."""
    from qmigtool import testing

    return testing.assert_same_state


@pytest.fixture
def qmig_golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function ``(stream, name="", *, ignore=(), noise=None)``: the state must be that of a golden file.

    The file is ``golden/<test file>/<test>[-name].mig.xz`` next to the test file; ``ignore`` and ``noise`` as for
    ``assert_same_state``. With ``--qmig-update-golden`` it is written instead. It does not contain guest memory.
    """
    update = bool(request.config.getoption("--qmig-update-golden"))

    def check(
        stream: Stream | str | Path | bytes,
        name: str = "",
        *,
        ignore: str | Iterable[str] = (),
        noise: Noise | None = None,
    ) -> None:
        __tracebackhide__ = True
        from qmigtool.stream.model import Stream
        from qmigtool.stream.opening import open_stream
        from qmigtool.testing import assert_same_state
        from qmigtool.testing.goldens import open_golden, write_golden

        file = request.path.parent / FOLDER / request.path.stem / f"{_slug(request.node.name, name)}.mig.xz"
        with ExitStack() as stack:
            actual = stream if isinstance(stream, Stream) else stack.enter_context(open_stream(stream))
            if update:
                size = write_golden(actual, file)
                request.config.stash[_WRITTEN].append(f"{file} ({size} bytes)")
                return
            if not file.is_file():
                pytest.fail(f"no golden file {file}; --qmig-update-golden writes it", pytrace=False)
            try:
                assert_same_state(stack.enter_context(open_golden(file)), actual, ignore=ignore, noise=noise)
            except AssertionError as error:
                error.add_note("A is the golden file; if B is right, --qmig-update-golden writes it again")
                raise

    return check


def _slug(*parts: str) -> str:
    """Return a file name for a test's name, without path separators."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, parts))).strip("-.").removesuffix(".mig")
    return slug or "golden"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print which golden files were written."""
    written = config.stash[_WRITTEN]
    if written:
        terminalreporter.section("golden files written")
        for line in written:
            terminalreporter.write_line(line)
