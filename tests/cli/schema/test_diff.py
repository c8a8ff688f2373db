"""``qmigtool schema diff``: shapes of JSON and CSV, exit codes, and what is said of inputs that describe nothing."""

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool import open as open_stream
from qmigtool.cli import main
from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.schemadiff import compare, read_shapes, sources
from tests.schemadiff.dumps import changed, device, dump, nic, text
from tests.support import samplefiles

PC = str(samplefiles.path("pc-7.2"))
NEW = str(samplefiles.path("pc-11.1"))


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = main.run(["schema", "diff", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def write(tmp_path):
    def make(name, document):
        path = tmp_path / name
        path.write_bytes(document if isinstance(document, bytes) else text(document))
        return path

    return make


def test_the_same_is_0_and_says_so(call):
    code, out, err = call(PC, PC)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "no differences"
    assert call(PC, PC, "--strict")[0] == 0


def test_what_breaks_is_1_in_the_direction_that_counts(call, write):
    old = write("old", dump(nic()))
    newer = write("newer", changed(lambda e, d, f: (e.update(version_id=4), d.update(version_id=4))))
    renamed = write("renamed", changed(lambda e, d, f: f[0].update(field="control")))
    assert call(old, newer)[0] == 1
    assert call(old, newer, "--direction", "forward")[0] == 0
    assert call(old, newer, "--direction", "backward")[0] == 1
    assert call(newer, old, "--direction", "forward")[0] == 1
    assert call(old, renamed)[0] == 0
    assert call(old, renamed, "--strict")[0] == 1


def test_json(call, write):
    a, b = write("a", dump(nic(), machine="pc-1")), write("b", changed(lambda e, d, f: f.pop(0)))
    code, out, _ = call(a, b, "--json")
    document = json.loads(out)
    assert code == 1
    assert document["schema"] == 1
    assert document["a"] == {"source": str(a), "origin": "dump", "machine": "pc-1"}
    assert document["b"]["source"] == str(b)
    assert document["notes"] == []
    assert document["differences"] == [
        {
            "rule": "field-missing",
            "severity": "error",
            "device": "nic",
            "path": "ctrl",
            "forward": "breaks",
            "backward": "breaks",
            "message": "4 bytes, only in A",
            "reason": "every byte after it is misread",
            "a": "4 bytes",
            "b": None,
        }
    ]


def test_csv(call, write):
    a, b = write("a", dump(nic())), write("b", changed(lambda e, d, f: f.pop(0)))
    _, out, _ = call(a, b, "--csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["rule"], row["path"], row["forward"], row["b"]) == ("field-missing", "ctrl", "breaks", "")


def test_only_the_devices_of_a_stream(call, write):
    disk = device("disk", nic()["nic"]["Description"])
    a, b = write("a", dump(disk)), write("b", dump())
    assert call(a, b)[0] == 1
    code, out, _ = call(a, b, "--devices", PC)
    assert (code, out.splitlines()[0]) == (0, "no differences")
    code, out, _ = call(PC, NEW, "--devices", PC, "--json")
    assert code == 0
    assert {one["device"] for one in json.loads(out)["differences"]} == {"piix4_pm", "hpet", "globalstate"}


def test_names_from_a_file_are_escaped(call, write):
    a = write("a", dump(nic()))
    b = write("b", changed(lambda e, d, f: f[0].update(field="\x1b[31mred", size=8)))
    _, out, _ = call(a, b)
    assert "\x1b" not in out
    assert "red" in out


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"{}", 3, "describes no device state"),
        (b'{"devices": []}', 3, "describes no device state"),
        (b"{", 3, "describes no device state"),
        (b"not a stream", 3, "migration stream"),
        (b"", 3, ""),
        (b'{"vmschkmachine": 7}', 3, "instead of an object"),
        (b'{"page_size": 4096, "devices": 7}', 3, "devices"),
        (b'{"schema": 1, "shapes": 7, "devices": []}', 3, "not a schema"),
        (b"\xfd7zXZ\0 and no more", 3, "damaged xz data"),
        (lzma.compress(b'{"vmschkmachine"')[:-9], 3, "is truncated"),
    ],
)
def test_what_describes_nothing(call, write, data, code, message):
    path = write("x", data)
    found, _, err = call(PC, path)
    assert found == code
    assert message in err
    assert str(path) in err


def test_a_stream_without_a_vmdesc_is_unsupported(call):
    code, _, err = call(samplefiles.path("novmdesc-7.2"), PC)
    assert code == 63
    assert "no vmdesc" in err


def test_usage(call, tmp_path):
    assert call(PC)[0] == 2
    assert call(PC, PC, "--direction", "sideways")[0] == 2
    assert call(PC, tmp_path)[0] != 0
    assert call(PC, tmp_path / "nothing")[0] != 0


def test_what_a_and_b_may_be_is_said_of_a_file_that_is_not_there(call, tmp_path):
    code, _, err = call("7.2", tmp_path / "b")
    assert code == 2
    assert "no file '7.2', and no schema of a single version of QEMU is built in" in err
    code, _, err = call(PC, tmp_path / "b")
    assert code == 2
    assert "version" not in err
    for kind in ("a stream", "vmdesc", "-dump-vmstate", "a schema"):
        assert kind in err


def piped(monkeypatch, data):
    """Standard input is a pipe: it can be read once, and has no place to go back to."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Once(data))))


class Once(io.RawIOBase):
    """Gives a few bytes at a time, as a pipe may."""

    def __init__(self, data):
        self._rest = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self._rest.read(min(len(buffer), 3 if self._rest.tell() < 9 else 1 << 16))
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("kind", ["stream", "packed stream", "vmdesc", "dump", "packed dump"])
def test_standard_input_is_one_of_a_and_b(kind, call, write, monkeypatch):
    def of(machine):
        if "stream" in kind:
            return lzma.compress(machine.read_bytes(), preset=1) if "packed" in kind else machine.read_bytes()
        if kind == "vmdesc":
            with open_stream(machine) as stream:
                return stream.vmdesc_text
        document = dump(nic()) if machine == old else changed(lambda e, d, f: f.pop(0))
        return lzma.compress(text(document)) if "packed" in kind else text(document)

    old, new = (samplefiles.path(name) for name in ("pc-7.2", "pc-11.1"))
    a, b = write("a", of(old)), write("b", of(new))
    wanted = call(a, b, "--csv")
    assert len(wanted[1].splitlines()) > 1
    piped(monkeypatch, of(old))
    assert call("-", b, "--csv") == wanted
    piped(monkeypatch, of(new))
    assert call(a, "-", "--csv") == wanted
    with b.open() as redirected:  # < FILE
        monkeypatch.setattr(sys, "stdin", redirected)
        code, out, _ = call(a, "-", "--json")
        assert (code, json.loads(out)["b"]["source"]) == (wanted[0], "-")


def test_standard_input_of_devices_and_its_limits(call, write, monkeypatch):
    disk = device("disk", nic()["nic"]["Description"])
    a, b = write("a", dump(disk)), write("b", dump())
    piped(monkeypatch, samplefiles.read("pc-7.2"))
    assert call(a, b, "--devices", "-")[0] == 0
    for twice in (("-", "-"), (a, "-", "--devices", "-")):
        assert call(*twice)[0] == 2
    for data, says in ((b"", "ends here"), (b"no stream", "migration stream"), (b"{}", "describes no device state")):
        piped(monkeypatch, data)
        code, _, err = call("-", b)
        assert code == 3
        assert err.startswith("qmigtool: -: ")
        assert says in err
    monkeypatch.setattr(sources, "MAX_TEXT", 100)
    piped(monkeypatch, b"{" + b" " * 1000)
    assert "too long" in call("-", b)[2]


def test_a_text_has_an_end(monkeypatch, write):
    path = write("x", dump(nic()))
    packed = write("y", lzma.compress(text(dump(nic()))))
    names = [[shape.name for shape in read_shapes(str(one)).shapes] for one in (path, packed)]
    assert names == [["nic"], ["nic"]]
    monkeypatch.setattr(sources, "MAX_TEXT", 100)
    for one in (path, packed):
        with pytest.raises(LimitError, match="too long"):
            read_shapes(str(one))


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, bz2.compress])
def test_packed_or_not_the_answer_is_the_same(pack, call, write):
    old, new = (samplefiles.read(name) for name in ("pc-7.2", "pc-11.1"))
    plain = call(write("a", old), write("b", new), "--csv")
    assert len(plain[1].splitlines()) > 1
    assert call(write("a", pack(old)), write("b", pack(new)), "--csv") == plain
    assert call(write("a", pack(text(dump(nic())))), write("b", text(dump(nic()))))[0] == 0


def shared(depth):
    """A schema whose shapes are each part of the next one twice: 2 ** depth bodies, if each is looked at."""
    rows = [["leaf", 1, [["x", "uint32", 4]], []]]
    for at in range(depth):
        rows.append([f"n{at}", 1, [["a", "struct", 4, None, [at]], ["b", "struct", 4, None, [at]]], []])
    return {"schema": 1, "name": "s", "shapes": rows, "devices": [["dev", 1, [[depth, []]]]]}


def test_shapes_that_are_part_of_each_other_are_not_followed_without_end(call, write, monkeypatch):
    monkeypatch.setattr(compare, "MAX_FIELDS", 1 << 14)
    one, other = shared(40), shared(40)
    a, b = (write(name, json.dumps(document).encode()) for name, document in (("a", one), ("b", other)))
    assert call(a, b)[0] == 0
    other["shapes"][0][2][0] = ["x", "uint64", 8]
    a, b = (write(name, json.dumps(document).encode()) for name, document in (("a", one), ("b", other)))
    code, _, err = call(a, b)
    assert code == 3
    assert "fields to compare" in err


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3000), st.binary(max_size=8), st.integers(0, 40))
def test_any_bytes_are_read_or_refused(tmp_path_factory, at, new, length):
    whole = text(dump(nic()))
    path = tmp_path_factory.mktemp("x") / "x"
    path.write_bytes(whole[:at] + new + whole[at + length :])
    with contextlib.suppress(StreamError, UnsupportedError):
        read_shapes(str(path))
