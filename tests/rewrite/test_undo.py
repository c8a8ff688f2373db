"""Edits in place as a patch: there and back, and not over anything else."""

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import QmigError, StreamError, UsageError
from qmigtool.rewrite import Rewriter, Splice
from qmigtool.rewrite.undo import make_patch, read_patch
from tests.rewrite.editing import rewritten, sample, stream_of
from tests.support.streamwriter import Vmsd, num, raw


def source(a=1, text=bytes(100)):
    return stream_of(("dev", 0, Vmsd("dev", 1, [num("a", "uint32", a), raw("t", text), num("b", "uint8", 3)])))


def patch_of(data, *edits):
    with qmigtool.open(data) as stream:
        rewriter = Rewriter(stream)
        for edit in edits:
            edit(rewriter)
        return make_patch(stream, rewriter.splices())


def patched(data, patch):
    out, at = bytearray(), 0
    with qmigtool.open(data) as stream:
        for splice in read_patch(stream, patch):
            out += data[at : splice.offset] + splice.data
            at = splice.offset + splice.length
    return bytes(out + data[at:])


EDITS = (lambda r: r.set("dev/a", 0x01020304), lambda r: r.set("dev/b", 9), lambda r: r.machine_type("pc-i440fx-9.2"))


def test_there_and_back():
    old = source()
    new, patch = rewritten(old, *EDITS).data, patch_of(old, *EDITS)
    assert new != old
    assert patched(old, patch) == new
    assert patched(new, patch) == old
    assert patched(patched(old, patch), patch) == old


def test_the_bytes_of_a_patch():
    """As the module's head says, written by hand."""
    old = source()
    at = old.index(struct.pack(">I", 1) + bytes(100))
    spans = struct.pack(">QI", at + 3, 1) + b"\x01\x09"
    head = b"QMIGUNDO" + struct.pack(">IIQ", 1, 1, len(old))
    wanted = head + spans + hashlib.sha256(head + spans).digest()
    assert patch_of(old, lambda r: r.set("dev/a", 9)) == wanted
    assert patched(old, wanted) == source(9)


def test_a_patch_of_nothing():
    patch = patch_of(source())
    assert patched(source(), patch) == source()


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.drop_section("dev"),
        lambda r: r.machine_type("pc-i440fx-10.0"),
        lambda r: r.add_section("x", 1, data=b""),
        lambda r: r.add_subsection("dev", "dev/x", data=b"1"),
        lambda r: r.rename_section("dev", "device"),
    ],
)
def test_edits_that_move_have_no_patch(edit):
    with pytest.raises(UsageError) as caught:
        patch_of(source(), edit)
    assert "move" in str(caught.value)


def test_another_name_as_long_has_one():
    patch = patch_of(source(), lambda r: r.rename_section("dev", "ved", 5))
    assert patched(patched(source(), patch), patch) == source()


# -- what is no patch of it -------------------------------------------------------------------------------------------

PATCH = patch_of(source(), *EDITS)


@pytest.mark.parametrize("at", range(len(PATCH)))
def test_every_damaged_byte_is_seen(at):
    with qmigtool.open(source()) as stream, pytest.raises(StreamError) as caught:
        read_patch(stream, PATCH[:at] + bytes([PATCH[at] ^ 0x40]) + PATCH[at + 1 :])
    assert "damaged" in str(caught.value)


@pytest.mark.parametrize("size", range(len(PATCH)))
def test_every_cut_is_seen(size):
    with qmigtool.open(source()) as stream, pytest.raises(StreamError):
        read_patch(stream, PATCH[:size])


def test_something_behind_is_seen():
    with qmigtool.open(source()) as stream, pytest.raises(StreamError):
        read_patch(stream, PATCH + b"\0")


@pytest.mark.parametrize(
    "other",
    [
        source(5),  # another value where the patch has one
        source(text=b"1" * 200),  # another size
        rewritten(source(), EDITS[0]).data,  # half of it done
        sample("pc-7.2").read_bytes(),
    ],
)
def test_another_stream_is_refused(other):
    with qmigtool.open(other) as stream, pytest.raises(StreamError):
        read_patch(stream, PATCH)


def test_what_the_patch_does_not_touch_may_be_another():
    other = rewritten(source(), lambda r: r.set("dev/t", b"x" * 100)).data
    assert patched(other, PATCH) == rewritten(other, *EDITS).data


def signed(body):
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"QMIGUNDO",
        b"QMIGUNDO" + struct.pack(">IIQ", 2, 0, len(source())),
        b"qmigundo" + struct.pack(">IIQ", 1, 0, len(source())),
        b"QMIGUNDO" + struct.pack(">IIQ", 1, 1, len(source())),
        b"QMIGUNDO" + struct.pack(">IIQ", 1, 0xFFFFFFFF, len(source())),
        b"QMIGUNDO" + struct.pack(">IIQ", 1, 1, len(source())) + struct.pack(">QI", 0, 0xFFFFFFFF),
        b"QMIGUNDO" + struct.pack(">IIQ", 1, 1, len(source())) + struct.pack(">QI", 1 << 60, 4) + b"QEVMqevm",
        b"QMIGUNDO" + struct.pack(">IIQ", 1, 1, len(source())) + struct.pack(">QI", len(source()), 1) + b"ab",
        b"QMIGUNDO" + struct.pack(">IIQ", 1, 1, len(source())) + struct.pack(">QI", (1 << 64) - 1, 1) + b"ab",
    ],
)
def test_hostile_patches_with_a_right_digest(body):
    with qmigtool.open(source()) as stream, pytest.raises(QmigError):
        read_patch(stream, signed(body))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(source())), st.integers(0, 40), st.binary(max_size=80)), max_size=5))
def test_patches_that_others_have_made_never_write_outside(spans):
    body = b"QMIGUNDO" + struct.pack(">IIQ", 1, len(spans), len(source()))
    for offset, length, data in spans:
        body += struct.pack(">QI", offset, length) + source()[offset : offset + length] + data
    with qmigtool.open(source()) as stream:
        try:
            splices = read_patch(stream, signed(body))
        except QmigError:
            return
    assert all(isinstance(s, Splice) and s.length == len(s.data) for s in splices)
    assert all(s.offset >= 0 and s.offset + s.length <= len(source()) for s in splices)


# -- the program ------------------------------------------------------------------------------------------------------


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = main.run([str(one) for one in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_the_program(call, tmp_path):
    old, new, patch, back = (tmp_path / name for name in ("old", "new", "patch", "back"))
    old.write_bytes(sample("pc-7.2").read_bytes())
    edits = ("--set", "cpu@1/env.mxcsr=0x1fa0", "--set", "cpu@3/env.regs[0]=7")
    assert call("rewrite", old, *edits, "-o", new, "--undo", patch)[0] == 0
    assert old.read_bytes() == sample("pc-7.2").read_bytes() != new.read_bytes()
    assert patch.stat().st_size < 200
    code, out, err = call("undo", new, patch, "-o", back)
    assert (code, out) == (0, "")
    assert back.read_bytes() == old.read_bytes()
    assert f"{old.stat().st_size} bytes" in err
    assert call("undo", old, patch, "-o", back, "--json")[0] == 0
    assert back.read_bytes() == new.read_bytes()
    # Of another file it takes nothing.
    back.unlink()
    assert call("undo", sample("q35-7.2"), patch, "-o", back)[0] == 3
    assert call("undo", old, old, "-o", back)[0] == 3
    assert call("undo", old, tmp_path / "none", "-o", back)[0] == 2
    assert not back.exists()


def test_no_patch_means_no_output(call, tmp_path):
    out, patch = tmp_path / "out", tmp_path / "patch"
    code, _, err = call("rewrite", sample("pc-7.2"), "--drop-section", "fdc", "-o", out, "--undo", patch)
    assert code == 2
    assert "move" in err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_no_patch(call, tmp_path):
    patch = tmp_path / "patch"
    assert call("rewrite", sample("pc-7.2"), "--set", "cpu/env.mxcsr=1", "--dry-run", "--undo", patch)[0] == 0
    assert list(tmp_path.iterdir()) == []
