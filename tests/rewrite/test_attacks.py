"""What attacks on rewriting found: every one of these once lost something, or ended in a traceback."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import qmigtool
from qmigtool.parsers.source import FileSource
from qmigtool.rewrite import Rewriter
from qmigtool.rewrite.splice import Hole, Moved, Splice, write_stream
from qmigtool.rewrite.undo import make_patch
from tests.rewrite.editing import stream_of, writer
from tests.support import samplefiles
from tests.support.streamwriter import Vmsd, num, raw, struct_


def run(*arguments, **more):
    command = [sys.executable, "-m", "qmigtool", *map(str, arguments)]
    return subprocess.run(command, capture_output="stdout" not in more, check=False, **more)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.mig"
    path.write_bytes(samplefiles.path("pc-7.2").read_bytes())
    return path


EDIT = ("--set", "cpu@0/env.tsc=5")


# -- inputs stay what they are ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_standard_output_may_not_be_the_input(mode, source):
    before = source.read_bytes()
    with source.open(mode) as out:
        done = run("rewrite", source, *EDIT, "-o", "-", stdout=out, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert b"is the input" in done.stderr
    assert source.read_bytes() == before


@pytest.mark.slow
def test_no_input_is_written_over(source, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('[[edit]]\nop = "set"\npath = "cpu/env.tsc"\nto = 5\n')
    channel = tmp_path / "channel"
    channel.write_bytes(b"\0\2\0\4\0\0\0\1")  # a return path with a PONG: it has no memory
    layout = tmp_path / "cpuid.txt"
    layout.write_bytes((samplefiles.SAMPLES / "cpuid" / "intel-spr-guest.txt").read_bytes())
    given = ("--edits", plan, "--channel", channel, "--drop-component", "mpx,pkru", "--layout", layout)
    assert run("rewrite", source, *given, "-o", tmp_path / "out").returncode == 0
    for output in (source, plan, channel, layout):
        before = output.read_bytes()
        for where in (("-o", output), ("-o", tmp_path / "out", "--undo", output)):
            done = run("rewrite", source, *given, *where)
            assert (done.returncode, output.read_bytes()) == (2, before), done.stderr
            assert b"is the input" in done.stderr


@pytest.mark.slow
def test_a_bundle_is_not_written_over(source, tmp_path):
    assert run("mshv", "export", source, "--layout", "amd-zen4", "-o", tmp_path / "b").returncode == 0
    for name in ("vcpu-0.xsave", "bundle.json"):
        path = tmp_path / "b" / name
        before = path.read_bytes()
        assert run("mshv", "import", source, tmp_path / "b", "-o", path).returncode == 2
        assert path.read_bytes() == before


def test_the_input_is_known_by_what_it_is(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    with qmigtool.open("in.mig") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.tsc", 5)
        monkeypatch.chdir(tmp_path / "sub")
        with pytest.raises(qmigtool.UsageError, match="is the input"):
            rewriter.save("../in.mig")


@pytest.mark.slow
def test_output_that_nobody_reads_is_no_success(source, tmp_path):
    command = f"{sys.executable} -m qmigtool rewrite {source} --set cpu@0/env.tsc=5 -o - "
    for tail in (">&-", "| head -c 5 >/dev/null; exit ${PIPESTATUS[0]}"):
        done = subprocess.run(["bash", "-c", command + tail], capture_output=True, check=False)
        assert done.returncode == 2, (tail, done)
    assert run("rewrite", source, *EDIT, "-o", "-", "--undo", "-").returncode == 2
    same = tmp_path / "same"
    assert run("rewrite", source, *EDIT, "-o", same, "--undo", same).returncode == 2
    assert not same.exists()


def test_dev_null_is_an_output(source):
    assert run("rewrite", source, *EDIT, "-o", "/dev/null").returncode == 0


# -- nothing becomes something else in silence -----------------------------------------------------------------------


@pytest.mark.parametrize(("version", "name"), [(2, "in/sub"), (1, "in/bus")])
def test_a_vmdesc_that_lies_about_a_nested_subsection(version, name):
    inner = Vmsd("in", 1, [num("x", "uint8", 7)], [Vmsd("in/sub", 1, [num("y", "uint8", 9)])])
    data = stream_of(("a", 0, Vmsd("a", 1, [struct_("s", inner)], [Vmsd("a/top", 1, [num("z", "uint8", 1)])])))
    lie = data.replace(b'"in/sub", "version": 1', f'"{name}", "version": {version}'.encode())
    assert lie != data
    with qmigtool.open(lie) as stream:
        rewriter = Rewriter(stream)
        with pytest.raises(qmigtool.StreamError):
            rewriter.drop_subsection("a/a/top")
        assert rewriter.splices() == []


def test_a_value_leaves_the_vmdesc_as_it_is():
    data = stream_of(("a", 0, Vmsd("a", 1, [num("x", "uint8", 5)])))
    odd = data.replace(b'{"name": "x",', b'{"future": [1,  2], "name": "x",')
    odd = odd.replace(b"\x06" + len(_text(data)).to_bytes(4, "big"), b"\x06" + len(_text(odd)).to_bytes(4, "big"))
    with qmigtool.open(odd) as stream:
        assert stream.complete
        rewriter = Rewriter(stream)
        rewriter.set("a/x", 6)
        (splice,) = rewriter.splices()
        assert (splice.length, splice.data) == (1, b"\x06")
        assert len(make_patch(stream, [splice])) < 100


def _text(data):
    return data[data.index(b'{"page_size"') :]


def test_device_state_that_only_reading_forward_sees():
    """Between PART and END of RAM, with a vmdesc that does not have it there: an edit would miss it."""
    device = Vmsd("a", 1, [num("x", "uint8", 5)])
    w = writer(("a", 0, device))
    data = w.finish()
    end = data.index(b"\x03\x00\x00\x00\x01")
    hidden = (
        b"\x04" + (9).to_bytes(4, "big") + b"\x01a" + bytes(7) + b"\x01" + b"\x05" + b"\x7e" + (9).to_bytes(4, "big")
    )
    with qmigtool.open(data[:end] + hidden + data[end:]) as stream, pytest.raises(qmigtool.QmigError):
        Rewriter(stream)


def test_an_old_style_section_with_two_fields():
    data = stream_of(("old", 0, Vmsd("old", 1, [raw("d1", b"1234"), raw("d2", b"5678")])))
    text = _text(data)
    bare = text.replace(b'"vmsd_name": "old", "version": 1, ', b"")
    data = data[: -len(text) - 4] + len(bare).to_bytes(4, "big") + bare
    with qmigtool.open(data) as stream:
        rewriter = Rewriter(stream)
        rewriter.rename_section("old", "new")
        out = io.BytesIO()
        rewriter.write(out)
    with qmigtool.open(out.getvalue()) as stream:
        assert stream.complete
        assert [f.name for f in stream.device("new").fields] == ["d1", "d2"]


@pytest.mark.parametrize("size", [1, 2, 6, 7, 40, 64, 100, 255, 256, 300])
def test_configuration_spaces_of_any_size(size):
    data = stream_of(("p", 0, Vmsd("p", 1, [raw("config", b"\xff" * size, "pci config")])))
    with qmigtool.open(data) as stream:
        Rewriter(stream).upgrade_machine("pc-i440fx-9.2")


def test_holes_stay_holes(tmp_path):
    path, out = tmp_path / "in", tmp_path / "out"
    with path.open("wb") as file:
        file.write(b"head")
        file.truncate(64 << 20)
        file.seek(0, 2)
        file.write(b"tail")
    data = path.read_bytes()

    whole = SimpleNamespace(source=FileSource(path), sections=[SimpleNamespace(offset=0, end=len(data))])
    with out.open("wb") as file:
        write_stream(whole, file, [Splice(1, 1, (b"X", Hole(1 << 20), Moved(0, 4)))])
    assert out.read_bytes() == data[:1] + b"X" + bytes(1 << 20) + b"head" + data[2:]
    assert out.stat().st_blocks * 512 < 1 << 20


def test_a_hole_hides_what_was_there_before(source, tmp_path):
    old = tmp_path / "old"
    old.write_bytes(os.urandom(2 << 20))
    with old.open("r+b") as out:
        assert (
            run("rewrite", source, "--ram", "mapped-ram", "-o", "-", stdout=out, stderr=subprocess.PIPE).returncode == 0
        )
    assert run("rewrite", source, "--ram", "mapped-ram", "-o", tmp_path / "new").returncode == 0
    assert old.read_bytes() == (tmp_path / "new").read_bytes()


# -- numbers, texts, files that are too large or none ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--add-section", "foo@" + "9" * 5000, "1=00"),
        ("--set-version", "cpu", "0x" + "f" * 5000),
        ("--set", "cpu/env.mxcsr=0x" + "f" * 5000),
        ("--resize-block", "pc.ram", "0x" + "f" * 5000),
        ("--resize-block", "pc.ram", "0x1000000000000000", "--ram", "mapped-ram"),
        ("--drop-component", "-4"),
        ("--upgrade-machine", "pc-i440fx-٣.2"),
        ("--machine-type", "\udcff" * 300),
    ],
)
def test_bad_words(arguments, source, tmp_path):
    done = run("rewrite", source, *(os.fsencode(a) if "\udcff" in a else a for a in arguments), "-o", tmp_path / "o")
    assert done.returncode in (2, 3), done.stderr[-500:]
    assert b"Traceback" not in done.stderr
    assert len(done.stderr) < 2000
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "[[edit]]\nop = 'drop-section'\npath = 0x" + "f" * 5000,
        "[[edit]]\nop = 'set'\npath = 'cpu/env.tsc'\nto" + ".a" * 5000 + " = 1",
        "[[edit]]\nop = 'set'\npath = 'cpu/env.tsc'\nto" + ".a" * 150 + " = 1",
        "[[edit]]\nop = 'drop-component'\nmask = -4",
        '[[edit]]\nop = "machine-type"\nname = "\\uD800"',
    ],
)
def test_bad_edits(text, source, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    done = run("rewrite", source, "--edits", plan, "--dry-run")
    assert done.returncode == 2, done.stderr[-500:]
    assert b"Traceback" not in done.stderr


def test_a_reason_is_not_a_command_to_the_terminal(source, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('[[edit]]\nop = "set"\npath = "cpu/env.tsc"\nto = 5\nwhy = "\\u001b]0;pwn\\u0007"\n')
    done = run("rewrite", source, "--edits", plan, "--dry-run")
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"pwn" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["vcpus"][0].update(vcpu=float("inf")),
        lambda d: d["vcpus"][0].update(size=1e300),
        lambda d: d["vcpus"][0].update(xcr0="0x5"),
        lambda d: d["vcpus"][0]["msrs"].append({"index": "0x1234", "name": "?", "value": "0x1"}),
        lambda d: d.update(vcpus=[]),
        lambda d: d["vcpus"].append(d["vcpus"][0]),
    ],
)
def test_bundles_that_are_none(change, source, tmp_path):
    folder = tmp_path / "b"
    assert run("mshv", "export", source, "--layout", "amd-zen4", "-o", folder).returncode == 0
    path = folder / "bundle.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    done = run("mshv", "import", source, folder, "-o", tmp_path / "o")
    assert done.returncode in (2, 3), done.stderr
    assert b"Traceback" not in done.stderr
    path.unlink()
    os.mkfifo(path)
    assert run("mshv", "import", source, folder, "-o", tmp_path / "o", timeout=20).returncode == 2


def test_a_bundle_of_another_stream_is_told(source, tmp_path):
    folder, other = tmp_path / "b", samplefiles.path("twin-tcg-10.0")
    assert run("mshv", "export", other, "--layout", "amd-zen4", "-o", folder).returncode == 0
    done = run("mshv", "import", source, folder, "--dry-run")
    assert b"the bundle was exported from pc-i440fx-7.2 under tcg with 1 vCPU; this stream is from" in done.stderr


def test_a_bundle_has_no_xcr0_beyond_its_mask(source, tmp_path):
    run("mshv", "export", source, "--layout", "amd-zen4", "-o", tmp_path / "b")
    document = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert document["mask"] == "0x7"
    assert [vcpu["xcr0"] for vcpu in document["vcpus"]] == ["0x7"] * 4
    assert [vcpu["xcr0_beside"] for vcpu in document["vcpus"]] == ["0x218"] * 3 + ["0x0"]


@pytest.mark.slow
def test_patches_that_are_none(source, tmp_path):
    with qmigtool.open(source) as stream:
        size = len(stream.source.whole)
        first = bytes(stream.source.view(0, 4))
        spans = [Splice(0, 4, b"XXXX")], [Splice(8, 1, b"\x07"), Splice(4, 1, b"\x00")], [Splice(9, 0, b"")]
        patches = [make_patch(stream, one) for one in spans]
    assert (size, first) == (source.stat().st_size, b"QEVM")
    for patch in patches:
        (tmp_path / "p").write_bytes(patch)
        done = run("undo", source, tmp_path / "p", "-o", tmp_path / "o")
        assert done.returncode == 3, done.stderr
        assert not (tmp_path / "o").exists()


def test_an_array_of_millions_is_not_taken_apart():
    one = Vmsd("e", 1, [num("b", "uint8", 0)])
    many = struct_("many", one)
    many.entries[0].insert(1, ("array_len", 1 << 20))
    many.data = bytes(1 << 20)
    data = stream_of(("a", 0, Vmsd("a", 1, [many], [Vmsd("a/top", 1, [num("z", "uint8", 1)])])))
    with qmigtool.open(data) as stream:
        rewriter = Rewriter(stream)
        rewriter.drop_subsection("a/a/top")
        assert sum(splice.growth for splice in rewriter.splices()) < 0
