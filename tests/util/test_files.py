"""Files: an output appears as a whole or not at all, an input is never modified, and holes stay holes."""

import io
import os

import pytest

from qmigtool.errors import OutputError, UsageError
from qmigtool.util.files import CHUNK, copy_range, new_folder, open_input, replacing, skip_zeros


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_an_output_appears_when_it_is_finished(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_output_that_failed_is_removed(tmp_path, error):
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail():
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_an_output_is_not_the_input_under_any_name(tmp_path):
    path = tmp_path / "vm"
    path.write_bytes(b"input")
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "soft").symlink_to(path)
    with path.open("rb") as opened:
        for name in ("vm", "hard", "soft"):
            for source in (str(path), opened.fileno()):
                with pytest.raises(OutputError, match="is the input"), replacing(tmp_path / name, source):
                    pass
    assert path.read_bytes() == b"input"


def test_an_output_has_no_rights_that_its_input_does_not_have(tmp_path):
    path = tmp_path / "vm"
    path.write_bytes(b"input")
    path.chmod(0o600)
    before = os.umask(0o022)
    try:
        with replacing(tmp_path / "private", str(path)):
            pass
        with replacing(tmp_path / "ordinary"):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("private", "ordinary")] == [0o600, 0o644]


def test_a_name_of_the_greatest_length(tmp_path):
    path = tmp_path / ("x" * 255)
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_what_has_no_offsets_is_no_input(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="any offset"):
        open_input(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError):
        open_input(tmp_path)


def test_a_folder_is_replaced_on_request_only(tmp_path):
    target = tmp_path / "made"
    for text in ("one", "two"):
        with new_folder(target, lambda folder: (folder / "mine").exists()) as folder:
            (folder / "mine").write_text(text)
    assert (target / "mine").read_text() == "two"
    with pytest.raises(OutputError, match="exists already"), new_folder(target):
        pass
    assert (target / "mine").read_text() == "two"
    assert names(tmp_path) == ["made"]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_range_is_copied(tmp_path, in_memory):
    data = os.urandom(CHUNK + 5000) + bytes(3 * CHUNK) + os.urandom(777)
    path = tmp_path / "source"
    path.write_bytes(data)
    handle = open_input(path)
    try:
        with io.BytesIO() if in_memory else (tmp_path / "copy").open("w+b") as target:
            target.write(b"head")
            copy_range(handle, 4097, len(data) - 5000, target)
            target.write(b"tail")
            target.seek(0)
            assert target.read() == b"head" + data[4097 : len(data) - 903] + b"tail"
    finally:
        os.close(handle)


@pytest.mark.parametrize("in_memory", [False, True])
def test_zeros_are_a_hole_or_written(tmp_path, in_memory):
    length = 8 * CHUNK + 1
    with io.BytesIO() if in_memory else (tmp_path / "out").open("w+b") as target:
        target.write(b"a")
        skip_zeros(target, length)
        target.write(b"b")
        target.seek(0)
        assert target.read() == b"a" + bytes(length) + b"b"
