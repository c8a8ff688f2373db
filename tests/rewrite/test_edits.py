"""Edits by name, from TOML files and command lines: what is taken, refused, printed and written."""

import contextlib
import hashlib
import inspect
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.cli import main
from qmigtool.cli.shared.editoptions import EDIT_OPTIONS
from qmigtool.errors import QmigError, UsageError
from qmigtool.rewrite import Rewriter
from qmigtool.rewrite.declare import without_option
from qmigtool.rewrite.edits import Edit, apply, load_edits
from qmigtool.rewrite.rewriter import EDITS
from tests.rewrite.editing import assert_true, bodies, stream_of
from tests.support.samplefiles import path, read
from tests.support.streamwriter import Vmsd, num, nums, raw, x86_cpu


def device(a=1, b=2, text=b"text"):
    return Vmsd("dev", 3, [num("a", "uint32", a), num("b", "int16", b), nums("l", "uint8", [1, 2]), raw("t", text)])


def stream(**changed):
    return stream_of(("dev", 0, device(**changed)), ("cpu", 0, x86_cpu()), ("other", 5, device()))


@pytest.fixture
def call(capsys, monkeypatch):
    def run(*arguments):
        arguments = [str(one) for one in arguments]
        monkeypatch.setattr(sys, "argv", ["qmigtool", *arguments])
        code = main.run(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "in.mig"
    file.write_bytes(stream())
    os.utime(file, ns=(10**18, 10**18))
    yield file
    # Whatever was done: an input is never modified.
    assert file.read_bytes() == stream()
    assert file.stat().st_mtime_ns == 10**18


def plan(tmp_path, text):
    file = tmp_path / "plan.toml"
    file.write_text(text)
    return file


# -- TOML -------------------------------------------------------------------------------------------------------------

GOOD = """
[[edit]]
op = "set"
path = "dev@0/a"
to = 0x10
why = "for people"

[[edit]]
op = "set"
path = "dev@0/l"
to = ["0xff", 3]

[[edit]]
op = "rename_section"       # the method's name will do
path = "other@5"
to = "another"
instance-id = 6

[[edit]]
op = "add-section"
name = "new"
version = "0x2"
data = "hex: 00 ff"
after = "dev"
"""


def test_a_good_file(call, source, tmp_path):
    code, out, err = call("rewrite", source, "--edits", plan(tmp_path, GOOD), "-o", tmp_path / "out")
    assert code == 0
    new = bodies(tmp_path / "out")
    assert list(new) == [("dev", 0), ("new", 0), ("cpu", 0), ("another", 6)]
    assert new["dev", 0] == bytes.fromhex("00000010 0002 ff03") + b"text"
    assert new["new", 0] == b"\x00\xff"
    assert_true(tmp_path / "out")
    assert re.search(r"4 changes", err)
    words = [line.split(maxsplit=1)[0] for line in out.splitlines() if line.strip()]
    assert [w for w in words if w in EDITS] == ["set", "set", "rename-section", "add-section"]
    assert out.count("for people") == 1
    _, out, _ = call("rewrite", source, "--edits", tmp_path / "plan.toml", "--dry-run", "--json")
    assert [e["why"] for e in json.loads(out)["edits"]] == ["for people", None, None, None]


def test_edits_are_read_in_order():
    assert [(e.op, dict(e.parameters)) for e in load_edits(GOOD)] == [
        ("set", {"path": "dev@0/a", "to": 16}),
        ("set", {"path": "dev@0/l", "to": ["0xff", 3]}),
        ("rename_section", {"path": "other@5", "to": "another", "instance-id": 6}),
        ("add-section", {"name": "new", "version": "0x2", "data": "hex: 00 ff", "after": "dev"}),
    ]
    assert load_edits("edit = []") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "edit = 5",
        "edit = {op = 'set'}",
        "[edit]\nop = 'set'",
        "edit = [5]",
        "edit = ['set']",
        "edit = [[]]",
        "[[edit]]",
        "[[edit]]\nop = 5",
        "[[edit]]\nop = ['set']",
        "[[edit]]\nop = 'set'\nwhy = 5",
        "[[edits]]\nop = 'set'",
        GOOD + "[more]\nx = 1",
        "version = 1\n" + GOOD,
        "[[edit]]\nop = 'set'\nop = 'set'",
        "[[edit]",
        "edit = " + "[" * 100_000,
        "\x00",
        "\ufeff[[edit]]",
    ],
)
def test_a_file_that_is_none(text, call, source, tmp_path):
    with pytest.raises(UsageError) as caught:
        load_edits(text, "my plan")
    assert "my plan" in str(caught.value)
    code, out, err = call("rewrite", source, "--edits", plan(tmp_path, text), "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "plan.toml" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("op = 'sett'", "sett"),
        ("op = ''", "one of"),
        ("op = 'import-area'\nvcpu = 0", "import-area"),
        ("op = 'write'", "write"),
        ("op = '__init__'", "__init__"),
        ("op = 'set'", "missing"),
        ("op = 'set'\npath = 'dev/a'", "to"),
        ("op = 'set'\npath = 'dev/a'\nto = 1\nmore = 2", "more"),
        ("op = 'set'\npath = 'dev/a'\nto = 1\nself = 2", "self"),
        ("op = 'set'\npath = 'dev/none'\nto = 1", "none"),
        ("op = 'set'\npath = 'dev/a'\nto = 1.5", "uint32"),
        ("op = 'set'\npath = 'dev/a'\nto = 1979-05-27", "uint32"),
        ("op = 'set'\npath = 'dev/a'\nto = inf", "uint32"),
        ("op = 'set'\npath = 'dev/a'\nto = -1", "0 to"),
        ("op = 'set'\npath = 'dev/l'\nto = [1]", "elements"),
        ("op = 'set'\npath = 'dev/l'\nto = {l = 1}", "no field"),
        ("op = 'set-version'\npath = 'dev'\nto = 1.5", "1.5"),
        ("op = 'add-section'\nname = 'x'\nversion = 'x'", "number"),
        ("op = 'add-section'\nname = 'x'\nversion = 1\ndata = 'x'", "hex"),
        ("op = 'drop-component'\nmask = 'sse'", "SSE"),
        ("op = 'drop-component'\nmask = 'everything'", "everything"),
        ("op = 'repair'\nwhat = 'everything'", "everything"),
        ("op = 'require-layout'\nlayout = 'none'", "none"),
        ("op = 'scrub-ram'\nnames = 'none'", "none"),
        ("op = 'drop-command'\nname = 'PING'", "PING"),
    ],
)
def test_an_edit_that_is_none(text, words, call, source, tmp_path):
    code, out, err = call("rewrite", source, "--edits", plan(tmp_path, "[[edit]]\n" + text), "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "out").exists()


# What TOML can hold, where another kind of thing is wanted.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.one_of(st.integers(0, 3), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
    st.sampled_from(["dev@0", "dev@0/a", "cpu@0", "cpu@0/env.xcr0", "r", "ram", "pc-i440fx-9.2", "0x1f", "amx", "kvm"]),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(EDITS)), st.data())
@example("machine-type", None)
def test_parameters_of_any_kind_are_taken_or_refused(op, data):
    """An edit of an unknown file is made, or gives an error with the reason."""
    known = [name for name in inspect.signature(getattr(Rewriter, EDITS[op])).parameters if name != "self"]
    parameters = (
        dict.fromkeys(known, 5)
        if data is None
        else {name: data.draw(ODD) for name in data.draw(st.lists(st.sampled_from(known), unique=True))}
        if known
        else {}
    )
    with qmigtool.open(stream()) as opened:
        rewriter = Rewriter(opened)
        with contextlib.suppress(QmigError):
            apply(rewriter, Edit(op, parameters))
            rewriter.splices()


def test_an_edit_with_a_parameter_of_an_unknown_type_is_not_registered():
    def odd_edit(self, path: "str", ratio: "float | None" = None) -> None:
        """Never runs."""

    with pytest.raises(TypeError, match="parameter ratio has the annotation float"):
        without_option(odd_edit)
    assert "odd-edit" not in EDITS


# -- command lines ----------------------------------------------------------------------------------------------------


def test_options_apply_in_the_order_given(call, source, tmp_path):
    for number, (first, second, value) in enumerate(((5, 6, 6), (6, 5, 5))):
        out = tmp_path / f"out{number}"
        assert call("rewrite", source, "--set", f"dev@0/a={first}", "--set", f"dev@0/a={second}", "-o", out)[0] == 0
        assert out.read_bytes() == stream(a=value)


def test_options_of_different_kinds_apply_in_the_order_given(call, source, tmp_path):
    file = plan(tmp_path, "[[edit]]\nop = 'set'\npath = 'renamed@9/a'\nto = 7")
    arguments = [
        *("--set", "dev@0/a=1"),
        *("--rename-section", "dev@0", "renamed@9"),
        *("--edits", str(file)),
        *("--set", "renamed@9/b=-5"),
        *("--drop-section", "other"),
        *("--add-section", "other@5", "1=00"),
    ]
    code, out, _ = call("rewrite", source, *arguments, "-o", tmp_path / "out", "--json")
    assert code == 0
    assert [(e["edit"], e["where"]) for e in json.loads(out)["edits"]] == [
        ("rename-section", "dev@0"),
        ("set", "renamed@9/a"),
        ("set", "renamed@9/b"),
        ("drop-section", "other@5"),
        ("add-section", "other@5"),
    ]
    assert bodies(tmp_path / "out") == {
        ("renamed", 9): bytes.fromhex("00000007 fffb 0102") + b"text",
        ("cpu", 0): x86_cpu().body(),
        ("other", 5): b"\0",
    }
    # Another order cannot be: there is no renamed@9 yet.
    code, _, err = call("rewrite", source, *arguments[5:], *arguments[:5], "-o", tmp_path / "out2")
    assert (code, (tmp_path / "out2").exists()) == (2, False)
    assert "renamed" in err


def test_the_same_by_options_by_file_and_by_method(call, source, tmp_path):
    options = (
        *("--set", "cpu@0/env.mxcsr=0x1fa0", "--set", "dev/l=[9, 8]", "--set", "dev/t=hex:6d6f7265"),
        *("--add-subsection", "dev@0", "dev/s=0102", "--rename-subsection", "dev@0/dev/s", "dev/z"),
        *("--set-version", "dev@0/dev/z", "4", "--add-section", "new@2", "7=ff", "--machine-type", "pc-q35-9.2"),
        *("--add-subsection", "cpu@0", "cpu/xss"),
    )
    assert call("rewrite", source, *options, "-o", tmp_path / "a")[0] == 0
    toml = plan(
        tmp_path,
        """
        edit = [
          {op = "set", path = "cpu@0/env.mxcsr", to = 0x1fa0},
          {op = "set", path = "dev/l", to = [9, 8]},
          {op = "set", path = "dev/t", to = "hex:6d6f7265"},
          {op = "add-subsection", path = "dev@0", name = "dev/s", data = "0102"},
          {op = "rename-subsection", path = "dev@0/dev/s", to = "dev/z"},
          {op = "set-version", path = "dev@0/dev/z", to = 4},
          {op = "add-section", name = "new", instance_id = 2, version = 7, data = "ff"},
          {op = "machine-type", name = "pc-q35-9.2"},
          {op = "add-subsection", path = "cpu@0", name = "cpu/xss"},
        ]
        """.replace("\n", " ").replace(", ]", "]"),
    )
    assert call("rewrite", source, "--edits", toml, "-o", tmp_path / "b")[0] == 0
    with qmigtool.open(source) as opened:
        rewriter = Rewriter(opened)
        rewriter.set("cpu@0/env.mxcsr", 0x1FA0)
        rewriter.set("dev/l", [9, 8])
        rewriter.set("dev/t", b"more")
        rewriter.add_subsection("dev@0", "dev/s", data=b"\1\2")
        rewriter.rename_subsection("dev@0/dev/s", "dev/z")
        rewriter.set_version("dev@0/dev/z", 4)
        rewriter.add_section("new", 7, 2, data=b"\xff")
        rewriter.machine_type("pc-q35-9.2")
        rewriter.add_subsection("cpu@0", "cpu/xss")
        size = rewriter.save(tmp_path / "c")
    one, other, third = ((tmp_path / name).read_bytes() for name in "abc")
    assert one == other == third
    assert size == len(one)
    assert one != stream()
    assert_true(one)
    assert bodies(one)["dev", 0].endswith(b"\x09\x08more\x05\x05dev/z\0\0\0\4\1\2")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "dev@0/a"],
        ["--set", "=5"],
        ["--set", "dev@0/a="],
        ["--set", "dev@0/l=[1"],
        ["--set", "dev@0/l={]"],
        ["--set", "dev@0/l=" + "[" * 100_000],
        ["--set", "dev@0/l=hex:0"],
        ["--set"],
        ["--rename-section", "dev@0"],
        ["--rename-section", "dev@0", "x@99999999999"],
        ["--add-section", "x", ""],
        ["--add-section", "x", "1=xyz"],
        ["--add-section", "dev", "1=00"],
        ["--add-subsection", "dev", "x=0"],
        ["--set-version", "dev", "one"],
        ["--drop-section", "none"],
        ["--edits", "/none"],
        ["--none"],
        ["--layout", "none", "--set", "dev@0/a=1"],
        ["--xcr0", "none", "--to-accelerator", "kvm"],
        ["--to-accelerator", "none"],
        ["--absent", "none"],
    ],
)
def test_bad_command_lines(arguments, call, source, tmp_path):
    code, out, err = call("rewrite", source, *arguments, "-o", tmp_path / "out")
    assert code == 2
    assert err
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_there_must_be_an_output(call, source):
    code, _, err = call("rewrite", source, "--set", "dev@0/a=1")
    assert code == 2
    assert "-o" in err


# -- what is printed --------------------------------------------------------------------------------------------------


def test_a_dry_run_says_all_and_writes_nothing(call, source, tmp_path):
    before = sorted(tmp_path.iterdir())
    at = stream().index(device().body())
    code, out, err = call("rewrite", source, "--set", "dev@0/a=0x12345678", "--dry-run")
    assert code == 0
    lines = out.splitlines()
    line = next(line for line in lines if line.startswith("set"))
    assert line.split() == ["set", f"{at:#x}", "dev@0/a", "0x1", "0x12345678"]
    splice = lines[-1].split()
    assert splice == [f"{at:#x}", "dev@0", "4", "4", "00000001", "12345678"]
    assert "nothing written" in err
    # An output that is named all the same is not written either.
    code, again, _ = call("rewrite", source, "--set", "dev@0/a=0x12345678", "--dry-run", "-o", tmp_path / "out")
    assert (code, again) == (0, out)
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_of_edits_that_move(call, source, tmp_path):
    source_bytes = stream()
    at = source_bytes.index(b"\x04\0\0\0\x04\x05other")
    code, out, _ = call("rewrite", source, "--drop-section", "other", "--dry-run", "--json")
    assert code == 0
    document = json.loads(out)
    gone = next(s for s in document["splices"] if s["offset"] == at)
    # Its head, its body, its footer.
    assert (gone["old_length"], gone["new_length"]) == (1 + 4 + 6 + 4 + 4 + len(device().body()) + 5, 0)
    assert document["bytes"] is None
    # The announced splices are what is then done.
    call("rewrite", source, "--drop-section", "other", "-o", tmp_path / "out")
    growth = sum(s["new_length"] - s["old_length"] for s in document["splices"])
    assert (tmp_path / "out").stat().st_size == len(source_bytes) + growth


def test_the_json_document(call, source, tmp_path):
    at = stream().index(device().body())
    code, out, err = call(
        *("rewrite", source, "-o", tmp_path / "out", "--json"),
        *("--set", "dev@0/b=-3", "--set", "dev@0/l=[3,4]", "--add-section", "new", "1=ff"),
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert set(document) == {"schema", "edits", "losses", "notes", "splices", "bytes", "problems", "proved"}
    assert document["schema"] == 1
    assert (document["losses"], document["notes"], document["problems"]) == ([], [], [])
    assert document["bytes"] == (tmp_path / "out").stat().st_size
    assert document["edits"] == [
        {"edit": "set", "where": "dev@0/b", "offset": at + 4, "old": "0x2", "new": "-0x3", "why": None},
        {
            "edit": "set",
            "where": "dev@0/l",
            "offset": at + 6,
            "old": "[0x1 0x2]",
            "new": "[0x3 0x4]",
            "why": None,
        },
        {"edit": "add-section", "where": "new@0", "offset": None, "old": None, "new": "ff", "why": None},
    ]
    # The splices, made by hand, give the output.
    written = (tmp_path / "out").read_bytes()
    at = shift = 0
    for splice in document["splices"]:
        offset = splice["offset"]
        assert written[at + shift : offset + shift] == stream()[at:offset]
        at = offset + splice["old_length"]
        assert splice["old"] == stream()[offset:at].hex()
        assert splice["new"] == written[offset + shift : offset + shift + splice["new_length"]].hex()
        shift += splice["new_length"] - splice["old_length"]
    assert written[at + shift :] == stream()[at:]
    assert shift == len(written) - len(stream()) > 0


def test_errors_as_json(call, source, tmp_path):
    code, out, _ = call("rewrite", source, "--set", "dev@0/none=1", "-o", tmp_path / "out", "--json")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "UsageError"


def test_nothing_to_change(call, source, tmp_path):
    code, out, err = call("rewrite", source, "--set", "dev@0/a=1", "-o", tmp_path / "out")
    assert (code, out) == (0, "")
    assert "nothing changes" in err
    assert (tmp_path / "out").read_bytes() == stream()


def test_the_output_may_be_stdout(source, tmp_path):
    command = [sys.executable, "-m", "qmigtool", "rewrite", str(source), "--set", "dev@0/a=5", "-o", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == stream(a=5)
    assert b"1 change" in done.stderr


# -- exit codes -------------------------------------------------------------------------------------------------------


def test_exit_codes(call, source, tmp_path):
    out = tmp_path / "out"
    assert call("rewrite", source, "--set", "dev@0/a=1", "-o", out)[0] == 0
    out.unlink()
    # 1: a loss that was not allowed
    code, _, err = call(
        "rewrite", path("kvm-avx512-7.2"), "--layout", "intel-haswell", "--set", "cpu@0/env.xcr0=0xe7", "-o", out
    )
    assert code in (1, 2), err
    # 3: broken input
    broken = tmp_path / "broken"
    broken.write_bytes(stream()[:500])
    assert call("rewrite", broken, "--set", "dev@0/a=1", "-o", out)[0] == 3
    # 63: not supported
    bare = tmp_path / "bare"
    bare.write_bytes(stream_of(("dev", 0, device()), vmdesc=False))
    assert call("rewrite", bare, "--set", "dev@0/a=1", "-o", out)[0] == 63
    assert not out.exists()


def test_a_required_layout(call, tmp_path):
    """The vCPU has AVX-512 live (XCR0 0xe7)."""
    out = tmp_path / "out"
    source, before = path("kvm-avx512-7.2"), hashlib.sha256(read("kvm-avx512-7.2")).digest()
    fitting, lacking = "amd-zen4", "amd-zen2"
    assert call("rewrite", source, "--layout", fitting, "-o", out)[0] == 0
    assert out.read_bytes() == source.read_bytes()
    out.unlink()
    code, printed, err = call("rewrite", source, "--layout", lacking, "-o", out, "--json")
    assert code == 1
    assert json.loads(printed)["error"]["components"] == ["opmask", "ZMM_Hi256", "Hi16_ZMM"]
    assert not out.exists()
    assert call("rewrite", source, "--layout", lacking, "--drop-component", "avx512", "-o", out)[0] == 0
    assert_true(out)
    assert hashlib.sha256(source.read_bytes()).digest() == before
    assert lacking in err


# -- the input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["itself", "a link", "a hard link", "another way"])
def test_the_output_is_never_the_input(how, call, source, tmp_path):
    target = tmp_path / "x.mig"
    if how == "itself":
        target = source
    elif how == "a link":
        target.symlink_to(source)
    elif how == "a hard link":
        target.hardlink_to(source)
    else:
        target = tmp_path / ".." / tmp_path.name / "in.mig"
    code, _, err = call("rewrite", source, "--set", "dev@0/a=5", "-o", target)
    assert code == 2
    assert "is the input" in err


def test_no_output_over_a_plan_or_a_patch(call, source, tmp_path):
    patch = tmp_path / "patch"
    assert call("rewrite", source, "--set", "dev@0/a=5", "-o", tmp_path / "out", "--undo", patch)[0] == 0
    code, _, err = call("rewrite", source, "--set", "dev@0/a=5", "-o", tmp_path / "new", "--undo", source)
    assert code == 2
    assert "is the input" in err
    for target in (source, patch):
        assert call("undo", source, patch, "-o", target)[0] == 2
    assert stream(a=5) == (tmp_path / "out").read_bytes()


def test_the_sample_names_every_edit_and_its_parameters():
    text = path("pc-7.2").with_name("edits.toml").read_text()
    listed = {line.split()[1]: line for line in text.splitlines() if line.startswith("#   ")}
    assert set(listed) == set(EDITS), "samples/edits.toml has a line for each edit, with its parameters"
    for op, method in EDITS.items():
        parameters = list(inspect.signature(getattr(Rewriter, method)).parameters)[1:]
        found = [word.strip("[],") for word in listed[op].split()[2:]]
        assert found == parameters, f"samples/edits.toml: the parameters of {op}"


def test_every_edit_is_an_option():
    options = {option.op for option in EDIT_OPTIONS} | {"require-layout"}  # --layout
    assert set(EDITS) <= options
