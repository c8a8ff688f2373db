"""Files made to cost much or to break something: every one ends quickly, in one of our errors or in an answer."""

import contextlib
import json
import lzma
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import qmigtool
from qmigtool import analyze
from qmigtool.devices.schema import fit, load
from qmigtool.devices.schema import model as schemas
from qmigtool.devices.schema.model import load_file
from qmigtool.errors import LimitError, StreamError, TruncatedError, UsageError, XsaveError
from qmigtool.parsers import source as sources
from qmigtool.parsers.bodies import SearchedBody
from qmigtool.parsers.livebodies import live_body
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.parsers.tail import find_vmdesc
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.window import Window
from qmigtool.util.files import open_input, replacing
from qmigtool.xsave import parse_cpuid_dump
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, Item, Pairs, StreamWriter, Vmsd, be32, be64, eos, mem_size, num, zero


@contextlib.contextmanager
def within(seconds):
    """Fail what takes longer, also where it waits in the kernel."""

    def late(*_):
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def below(size):
    """Fail what has more than ``size`` bytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def stream(*devices):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    for i, device in enumerate(devices):
        w.device(2 + i, device.name, 0, device)
    return w


def entry(name, type_, size, data=b"", **more):
    """A field of the vmdesc that need not agree with its bytes."""
    return Item([Pairs([("name", name), *more.items(), ("type", type_), ("size", size)])], data)


# -- vmdesc -----------------------------------------------------------------------------------------------------------


def nested(depth, count):
    found = {"vmsd_name": "x", "version": 1, "fields": []}
    for _ in range(depth):
        field = {"name": "f", "array_len": count, "type": "struct", "struct": found, "size": 0}
        found = {"vmsd_name": "x", "version": 1, "fields": [field]}
    return found


def described(*bodies):
    devices = [{"name": "x", "instance_id": i, **body} for i, body in enumerate(bodies)]
    return json.dumps({"page_size": 4096, "devices": devices}).encode()


@pytest.mark.parametrize("bodies", [[nested(4, 4096)], [nested(2, 4096)], [nested(40, 2)], [nested(1, 300)] * 20])
def test_elements_of_no_bytes_are_counted_over_all_levels(bodies):
    with pytest.raises(LimitError, match="without bytes"):
        parse_vmdesc(described(*bodies))


def test_elements_of_no_bytes_that_multiply_those_that_have_some():
    """A struct of one byte and a hundred fields of none, two hundred times: the bytes pay for few of them."""
    fields = [{"name": f"f{i}", "type": "buffer", "size": int(i == 0)} for i in range(100)]
    array = {"name": "a", "array_len": 200, "type": "struct", "struct": {"fields": fields}, "size": 1}
    with pytest.raises(LimitError, match="without bytes"):
        parse_vmdesc(described({"fields": [array]}))


def test_a_large_array_of_bytes_is_legal():
    array = {"name": "a", "array_len": 1 << 24, "type": "uint8", "size": 1}
    description = parse_vmdesc(described({"fields": [array]})).devices[0].description
    assert (description.size, description.leaves, description.empty) == (1 << 24, 1 << 24, 0)


def test_many_marks_and_many_zeros_cost_their_sum():
    """Each of the marks claims to end before the zeros, which all but end the file."""
    marks = 20_000
    data = bytearray()
    for i in range(marks):
        data += b"\0\6" + be32(7 * (marks - i - 1) + 2) + b"{"
    with within(10):
        assert find_vmdesc(BufferSource(bytes(data) + b"}" + bytes(4 << 20) + b"\1")) is None


def test_what_no_vmdesc_has_is_not_kept():
    junk = {f"key{i}": "value" for i in range(50)}
    text = described(*[{"junk": junk}] * 1000)
    with below(4 * len(text)):
        assert len(parse_vmdesc(text).devices) == 1000


def test_an_error_does_not_keep_what_it_is_about():
    text = b'{"no": "vmdesc"}'
    with pytest.raises(StreamError) as caught:
        find_vmdesc(BufferSource(b"\0\6" + be32(len(text)) + text))
    assert [frame.name for frame in caught.traceback][1:] == ["find_vmdesc"]


def test_an_object_is_no_list():
    with pytest.raises(StreamError):
        parse_vmdesc(b'{"page_size": 4096, "devices": {"unknown": 1}}')


# -- bodies -----------------------------------------------------------------------------------------------------------


class Counting(Window):
    """Counts the bytes that are shown."""

    shown = 0

    def view(self, pos, count, what):
        self.shown += count
        return super().view(pos, count, what)


def test_bytes_are_searched_once_whatever_they_look_like():
    window = Counting(b"\x7e\0\0\0\5" * 20_000 + b"\xff" * 9, final=True)
    with pytest.raises(TruncatedError):
        SearchedBody(5, 0, set(), package_end=1 << 30).advance(window, 0)
    assert window.shown < 3 * window.end


LONGEST = be64((1 << 64) - 1)


@pytest.mark.parametrize(
    ("idstr", "record"),
    [
        ("pbs-state", LONGEST),
        ("s390-storage_attributes", be64(2) + LONGEST),
        ("0000:00:01.0/vfio", be64(0xFFFFFFFFEF100004) + LONGEST),
    ],
)
def test_a_payload_that_is_not_there(idstr, record):
    """For a file the error is immediate; a pipe's length is known only at its end."""
    body = live_body(idstr, lambda: None)
    with pytest.raises(TruncatedError) as caught:
        body.advance(Window(record, final=True), 0)
    assert caught.value.offset == len(record)
    assert body.advance(Window(record), 0)[0] == len(record) + (1 << 64) - 1


def test_a_hash_table_that_is_not_there():
    body = live_body("spapr/htab", lambda: None)
    window = Window(be32(0) + be32(0) + be32(0xFFFF0000) + bytes(15), final=True)
    assert body.advance(window, 0) == (4, False)
    with pytest.raises(TruncatedError):
        body.advance(window, 4)


def test_a_section_that_is_not_there(tmp_path):
    path = tmp_path / "vm.mig"
    w = StreamWriter()
    w.start(1, "pbs-state", 0, 1, LONGEST)
    path.write_bytes(bytes(w.data))
    with qmigtool.open(path) as opened:
        assert not opened.complete
        assert isinstance(opened.error, TruncatedError)


# -- compat -----------------------------------------------------------------------------------------------------------

PLAIN = Vmsd("plain", 1, [num("n", "uint8", 7)])


@pytest.mark.parametrize(
    "field",
    [
        entry("v", "uint8", 1 << 40, b"abc"),
        entry("v", "uint8", 1, b"abc", array_len=1 << 24),
    ],
)
def test_compat_believes_no_size_that_the_section_contradicts(field):
    with qmigtool.open(stream(Vmsd("lies", 1, [field]), PLAIN).finish()) as opened, within(10), below(50 << 20):
        assert list(analyze.state(opened)) == ["ram (1)", "plain (3)"]
        assert any("describes" in str(problem) for problem in opened.problems)


@pytest.mark.parametrize(("type_", "size"), [("uint8", 1 << 40), ("int64", 3)])
def test_compat_believes_no_size_that_the_struct_contradicts(type_, size):
    inner = {"vmsd_name": "s", "version": 1, "fields": [{"name": "v", "type": type_, "size": size}]}
    lies = Vmsd("lies", 1, [entry("s", "struct", 3, b"abc", struct=inner)])
    with qmigtool.open(stream(lies).finish()) as opened, within(10):
        # An integer of three bytes is none; a struct that does not fill its place is not looked into.
        shown = {"v": "61 62 63"} if size == 3 else "61 62 63"
        assert analyze.state(opened)["lies (2)"] == {"s": shown}


def test_compat_of_a_vmdesc_that_is_refused():
    w = stream()
    w.eof()
    w.vmdesc(described(nested(4, 4096)))
    with qmigtool.open(bytes(w.data)) as opened, pytest.raises(LimitError, match="without bytes"):
        analyze.desc(opened)


# -- schemas ----------------------------------------------------------------------------------------------------------


def schema(shapes, top=None, **more):
    devices = [["d", 1, [[len(shapes) - 1 if top is None else top, []]]]]
    return json.dumps({"schema": 1, "name": "n", "shapes": shapes, "devices": devices, **more})


def row(*fields, name="d"):
    return [name, 1, [list(field) for field in fields], []]


@pytest.mark.parametrize(
    "text",
    [
        schema([row(("f", "uint8", True))]),
        schema([row(("f", "uint8", 1.5))]),
        schema([row(("f", "uint8", 1, False))]),
        schema([row(("f", "uint8", 1, 2.0))]),
        schema([row((5, "uint8", 1))]),
        schema([row(("f", None, 1))]),
        schema([row(("f", "struct", 0, None, [True])), row()], 0),
        schema([row(("f", "struct", 0, None, [1.0])), row()], 0),
        schema([["d", float("inf"), [], []]]),
        schema([["d", "1", [], []]]),
        schema([[7, 1, [], []]]),
        schema([["d", 1, [], []]], name=7),
        schema([["d", 1, [], []]], devices=[["d", float("inf"), [[0, []]]]]),
        schema([["d", 1, [], []]], devices=[["d", 1, [[0, [7]]]]]),
        schema([["d", 1, [], []]], devices=[["d", 1, [[-1, []]]]]),
    ],
)
def test_a_schema_of_wrong_types(text):
    with pytest.raises(StreamError):
        load(text)


def chain(length):
    return [row(("a", "uint8", 1)), *(row(("a", "struct", 1, None, [i])) for i in range(length))]


def test_a_chain_of_shapes_entered_from_its_end():
    shapes = chain(2000)
    devices = [[f"d{i}", 1, [[i, []]]] for i in range(0, 2001, 50)]
    with pytest.raises(StreamError, match="nested"):
        load(schema(shapes, devices=devices))
    for length in (62, 63):
        assert fit(load(schema(chain(length))), "d", 1, b"x").description.leaves == 1
    with pytest.raises(StreamError, match="nested"):
        load(schema(chain(64)))


def doubled(levels):
    """Shapes that each have the one before twice."""
    double = [row(("a", "struct", 0, None, [i]), ("b", "struct", 0, None, [i])) for i in range(levels)]
    return [row(("x", "uint8", 0)), *double]


def test_inline_shapes_that_double():
    shapes = [*doubled(50), row(("l", "qlist", 8, None, [], [50]))]
    with within(5):
        assert fit(load(schema(shapes)), "d", 1, bytes(8)) is None


def test_shapes_that_double():
    with within(10):
        assert fit(load(schema(doubled(50))), "d", 1, b"") is None


def test_arrays_of_nothing_in_a_schema():
    shapes = [row(("a", "uint8", 0, 1 << 24))]
    assert fit(load(schema(shapes)), "d", 1, b"") is None


def test_schema_files_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(schemas, "MAX_TEXT", 1 << 16)
    text = schema([row()]).encode()
    long, bomb, good = tmp_path / "long.json", tmp_path / "bomb.json.xz", tmp_path / "good.json.xz"
    long.write_bytes(text + b" " * (1 << 16))
    bomb.write_bytes(lzma.compress(text + b" " * (50 << 20)))
    good.write_bytes(lzma.compress(text))
    assert load_file(str(good)).name == "n"
    for path in (long, bomb):
        with below(10 << 20), pytest.raises(LimitError):
            load_file(str(path))
    # Unpacking takes as much memory as the file says that it was packed with.
    monkeypatch.setattr(schemas, "MAX_MEMORY", 1 << 20)
    with pytest.raises(StreamError, match=r"[Mm]emory"):
        load_file(str(good))


def test_schema_files_of_another_kind(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with within(5):
        for path in (tmp_path / "fifo", "/dev/zero"):
            with pytest.raises(UsageError) as caught:
                load_file(str(path))
            assert str(path) in str(caught.value)
        with pytest.raises(IsADirectoryError) as directory:
            load_file(str(tmp_path))
        assert directory.value.filename == str(tmp_path)


# -- files ------------------------------------------------------------------------------------------------------------


def test_an_input_that_is_no_file(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (fifo, "/dev/zero"):
        with within(5), pytest.raises(UsageError) as caught:
            FileSource(path)
        assert str(path) in str(caught.value)
    with pytest.raises(IsADirectoryError):
        open_input(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_becomes_shorter(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(4 * 4096))
    with FileSource(path) as source:
        os.truncate(path, 5000)
        for look in (lambda: source.view(3 * 4096, 1), lambda: source.passed(100)):
            with pytest.raises(StreamError, match="shorter") as caught:
                look()
            assert caught.value.offset == 5000


def test_a_place_far_behind_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PASSED", 1)
    path = tmp_path / "x"
    path.write_bytes(bytes(3 * 4096))
    with FileSource(path) as source:
        source.passed(1 << 65)
        assert bytes(source.view(3 * 4096 - 1, 1)) == b"\0"


def test_holes(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"data")
    with FileSource(path) as source:
        first = source.first_data()
        assert first in (0, 4 << 20)  # a file system need not have holes
    os.truncate(path, 0)
    os.truncate(path, 1 << 20)
    with FileSource(path) as source:
        assert source.first_data() in (0, 1 << 20)
    assert BufferSource(bytes(5)).first_data() == 0


def test_standard_input_is_an_input_too(tmp_path):
    path = tmp_path / "vm.mig"
    path.write_bytes(samplefiles.read("kvm-avx512-7.2"))
    command = [sys.executable, "-m", "qmigtool", "xsave", "export", "--vcpu", "0", "--format", "standard"]
    with path.open("rb") as file:
        done = subprocess.run(
            [*command, "--layout", "amd-zen4", "-", "-o", str(path)], stdin=file, capture_output=True, check=False
        )
    assert done.returncode == 2, done.stderr
    assert path.read_bytes() == samplefiles.read("kvm-avx512-7.2")


def write(path):
    with within(5), replacing(path) as file:
        file.write(b"new")


def test_a_target_with_a_name_as_long_as_it_may_be(tmp_path):
    path = tmp_path / ("\u00e9" * 127)
    write(path)
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_error_names_the_target(tmp_path):
    path = tmp_path / "none" / "out"
    with pytest.raises(FileNotFoundError) as caught:
        write(path)
    assert caught.value.filename == str(path)


def test_a_target_that_is_a_loop(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        write(loop)
    assert loop.is_symlink()


# -- CPUID ------------------------------------------------------------------------------------------------------------


def test_a_dump_of_cpus_without_rows():
    with below(1 << 20), pytest.raises(XsaveError):
        parse_cpuid_dump("CPU 1:\n" * 20_000, "dump")
