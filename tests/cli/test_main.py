"""The program: exit codes, errors, help, and no traceback whatever the input."""

import csv
import io
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from qmigtool.cli import main
from tests.cli.calling import PC, document
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, raw, word


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.mig"
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.part(1, word(0, 0xFFF) + eos())
    w.device(2, "timer", 0, Vmsd("timer", 2, [num("ticks", "int64", 5)]))
    path.write_bytes(w.finish())
    return str(path)


def test_errors_are_json_too(call, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"not a stream at all")
    found = document(call("info", str(path), "--json"), 3)
    assert found["error"]["kind"] == "StreamError"
    assert found["error"]["offset"] == 0
    path.write_bytes(b"\x02\x21\x4c\x18\0\0\0")
    found = document(call("info", str(path), "--json"), 63)
    assert found["error"]["feature"] == "the legacy format of lz4 (lz4 -l)"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["info", PC], 0),
        (["sections", PC], 0),
        (["show", PC, "cpu/env.xcr0"], 0),
        ([], 0),
        (["nonsense"], 2),
        (["info"], 2),
        (["info", "--nonsense", PC], 2),
        (["info", "/nonexistent/file"], 2),
        (["info", "/"], 2),
        (["show", PC, "nothing"], 2),
        (["show", PC, "cpu/nothing"], 2),
        (["info", PC, "--accelerator", "bochs"], 2),
        (["xsave", "export", PC, "--vcpu", "9", "--format", "standard", "--layout", "qemu", "-o", "-"], 2),
        (["xsave", "export", PC, "--vcpu", "0", "--format", "standard", "--layout", "none", "-o", "-"], 2),
        (["xsave", "table", str(samplefiles.path("arm-7.2"))], 63),
    ],
)
def test_exit_codes(call, arguments, code):
    found, out, err = call(*arguments)
    assert found == code
    if code:
        assert err
        assert "qmigtool" in err or "Usage" in err
    else:
        assert out


def test_broken_input_exits_3_and_shows_what_there_is(call, broken):
    code, out, err = call("info", broken)
    assert code == 3
    assert "complete      NO" in out
    assert "offset 0x" in err
    found = call("show", broken, "timer/ticks", "--json")
    assert document(found, found[0])["devices"][0]["fields"] == {"ticks": 5}
    code, out, _ = call("sections", broken)
    assert code == 3
    assert "(cut)" in out


def test_a_finding_exits_1(call):
    area = str(samplefiles.SAMPLES / "areas" / "zen4-avx512.compacted.bin")
    assert call("xsave", "check", area, "--layout", "amd-zen4", "--xcr0", "7")[0] == 1


def test_our_own_bug_exits_70(capsys, monkeypatch):
    def bug(*_):
        raise RuntimeError("ours")

    monkeypatch.setattr(main.cli, "main", bug)
    assert main.run(["info", PC]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert "a defect of qmigtool" in err


def commands(group, *words):
    """Yield the words of every command there is, groups too, the outermost first."""
    yield words
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            yield from commands(group.get_command(context, name), *words, name)


def test_help_of_every_command():
    every = list(commands(main.cli))
    assert {("rewrite",), ("undo",), ("xsave", "import"), ("mshv", "export"), ("schema",)} < set(every)
    for words in every:
        result = CliRunner().invoke(main.cli, [*words, "--help"])
        assert result.exit_code == 0, words
        assert result.output.startswith("Usage:")


def test_only_rewriting_waits_for_the_edit_engine():
    script = (
        "import sys, qmigtool.cli.main as m; m.run(['info', sys.argv[1]]); print('qmigtool.rewrite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, PC], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"


def test_csv(call):
    rows = list(csv.DictReader(io.StringIO(call("sections", PC, "--csv")[1])))
    assert len(rows) == 47
    assert rows[2]["name"] == "ram"
    assert rows[0]["section_id"] == ""
    rows = list(csv.DictReader(io.StringIO(call("xsave", "table", PC, "--csv")[1])))
    assert rows[0]["enabled"] in ("true", "false")
    rows = list(csv.DictReader(io.StringIO(call("show", PC, "cpu@0", "--csv")[1])))
    assert {"device", "path", "value"} <= set(rows[0])


@pytest.mark.parametrize("arguments", [["info", "-", "--json"], ["show", "-", "cpu/env.xcr0"], ["xsave", "table", "-"]])
def test_stdin(call, arguments):
    data = samplefiles.read("pc-7.2")
    code, out, _ = call(*arguments, stdin=data)
    assert code == 0
    whole = call(*[PC if word_ == "-" else word_ for word_ in arguments])[1]
    assert out == whole.replace("tail-first", "forward")


NASTY = "a\x1b[31m\x07\r\n\u202eb"


def test_control_characters_in_names_are_escaped(call, tmp_path):
    w = StreamWriter(NASTY)
    w.start(1, "ram", 0, 4, mem_size([(NASTY, PAGE), (b"\xff\xfe", PAGE)]) + eos())
    w.device(2, NASTY, 0, Vmsd(NASTY, 1, [num(NASTY, "uint8", 1), raw("b", b"\x1b", NASTY)]))
    path = tmp_path / "nasty.mig"
    path.write_bytes(w.finish())
    for arguments in (["info"], ["sections"], ["sections", "--csv"], ["show"], ["info", "--json"], ["show", "--json"]):
        _, out, err = call(*arguments, str(path))
        assert not set("\x1b\x07\r\u202e") & set(out + err), arguments
    _, out, err = call("show", str(path), NASTY)
    assert not set("\x1b\x07\r\u202e") & set(out + err)
    _, out, err = call("show", str(path), NASTY + "x")
    assert not set("\x1b\x07\r\u202e") & set(out + err)


def test_an_input_is_never_changed(call, tmp_path):
    path = tmp_path / "vm.mig"
    data = samplefiles.read("kvm-avx512-7.2")
    path.write_bytes(data)
    path.chmod(0o444)
    for arguments in (["info"], ["sections"], ["show"], ["xsave", "table"]):
        assert call(*arguments, str(path))[0] == 0
    assert path.read_bytes() == data


def test_a_missing_choice_lists_its_values_on_one_line(call) -> None:
    code, _, err = call("wrap", PC, "-o", "out")
    assert code == 2
    assert "Missing option '--as' (expected libvirt, qcow2, gzip," in err
    assert "\\" not in err
