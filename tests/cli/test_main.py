"""The command line: shapes of JSON, exit codes, CSV, stdin, and no traceback whatever the input."""

import csv
import io
import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from qmigtool.cli import main
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, raw, word, x86_cpu, zero

PC = str(samplefiles.path("pc-7.2"))
KVM = str(samplefiles.path("kvm-avx512-7.2"))


def program(*arguments, **options):
    """Run the real program in a process of its own."""
    options = {"capture_output": True, "check": False, "timeout": 60, **options}
    return subprocess.run([sys.executable, "-m", "qmigtool", *arguments], **options)


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the program in this process: (exit code, stdout, stderr)."""

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["qmigtool", *arguments])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main.run(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def document(result, code=0):
    assert result[0] == code, result[2]
    found = json.loads(result[1])
    assert found.pop("schema") == 1
    return found


def small(**parts):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    w.device(2, "cpu", 0, x86_cpu(**parts))
    return w


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.mig"
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.part(1, word(0, 0xFFF) + eos())
    w.device(2, "timer", 0, Vmsd("timer", 2, [num("ticks", "int64", 5)]))
    path.write_bytes(w.finish())
    return str(path)


RAM_BLOCKS = [
    {"name": "pc.ram", "size": 16777216},
    {"name": "/rom@etc/acpi/tables", "size": 131072},
    {"name": "pc.bios", "size": 262144},
    {"name": "pc.rom", "size": 131072},
    {"name": "/rom@etc/table-loader", "size": 4096},
    {"name": "/rom@etc/acpi/rsdp", "size": 4096},
]

# -- JSON -------------------------------------------------------------------------------------------------------------


def test_the_replaced_bytes_have_their_section(call):
    out = call("rewrite", PC, "--drop-section", "hpet", "--dry-run")[1]
    rows = [line.split()[:4] for line in out.split("\n\n")[1].splitlines()[2:5]]
    assert rows[0] == ["0x80db9", "hpet@0", "174", "0"]
    assert [row[1] for row in rows[1:]] == ["vmdesc", "vmdesc"]
    assert "vmdesc: QEMU's description of the sections" in out
    out = call("rewrite", PC, "--set", "cpu@0/env.mxcsr=0x1fa0", "--dry-run")[1]
    assert "vmdesc" not in out


def test_info(call):
    found = document(call("info", PC, "--json"))
    assert found["accelerator"].pop("evidence")
    assert found == {
        "container": "raw",
        "container_details": {},
        "channels": 0,
        "compression": "none",
        "layers": [],
        "size": 660109,
        "file_size": 660109,
        "machine": "pc-i440fx-7.2",
        "page_size": 4096,
        "page_size_inferred": False,
        "accelerator": {"name": "tcg", "given": False},
        "vcpus": 4,
        "devices": 40,
        "sections": 47,
        "pages_held": 4226,
        "pages": 4226,
        "pages_missing": 0,
        "shared_blocks": [],
        "ram_blocks": RAM_BLOCKS,
        "capabilities": [],
        "uuid": None,
        "vmdesc": True,
        "schema_name": None,
        "strategy": "tail-first",
        "proved": True,
        "before": 0,
        "behind": 0,
        "behind_zero": None,
        "complete": True,
        "problems": [],
        "domain": None,
    }


def test_sections(call):
    found = document(call("sections", PC, "--json"))
    assert found["complete"] is True
    assert found["problems"] == []
    assert len(found["sections"]) == 47
    assert found["sections"][0]["type"] == "header"
    ram = found["sections"][2]
    assert {key: ram[key] for key in ("type", "section_id", "name", "instance_id", "version_id", "offset")} == {
        "type": "start", "section_id": 2, "name": "ram", "instance_id": 0, "version_id": 4, "offset": 0x1A,
    }  # fmt: skip
    assert sum(s["length"] for s in found["sections"]) == 660109


def test_show(call):
    found = document(call("show", PC, "cpu@3/env.xcr0", "--json"))
    assert found["devices"] == [
        {"name": "cpu", "instance_id": 3, "version_id": 12, "fields": {"env.xcr0": "0x7"}},
    ]
    assert (found["field"]["type"], found["field"]["kind"], found["field"]["length"]) == ("uint64", "leaf", 8)
    everything = document(call("show", PC, "--json"))["devices"]
    assert len(everything) == 40
    assert all(set(device) == {"name", "instance_id", "version_id", "fields"} for device in everything)
    assert everything[0]["name"] == "timer"


def test_xsave_table(call):
    found = document(call("xsave", "table", PC, "--json"))
    assert [v["vcpu"] for v in found["vcpus"]] == [0, 1, 2, 3]
    vcpu = found["vcpus"][3]
    assert (vcpu["xcr0"], vcpu["xstate_bv"], vcpu["xstate_bv_recomputed"]) == ("0x7", "0x0", "0x7")
    avx = next(c for c in vcpu["components"] if c["bit"] == 2)
    assert {key: avx[key] for key in ("name", "enabled", "declared", "carried", "live")} == {
        "name": "AVX", "enabled": True, "declared": False, "carried": True, "live": True,
    }  # fmt: skip


def test_xsave_export_check_and_layouts(call, tmp_path):
    out = tmp_path / "area"
    export = ("xsave", "export", KVM, "--vcpu", "0", "--format", "compacted", "--layout", "amd-zen4", "-o", str(out))
    found = document(call(*export, "--json"))
    assert found["size"] == len(out.read_bytes())
    assert (found["format"], found["layout"], found["xstate_bv"]) == ("compacted", "amd-zen4", "0xe7")
    assert int(found["xcomp_bv"], 16) >> 63 == 1
    verdicts = call("xsave", "check", str(out), "--layout", "amd-zen4", "--json")
    assert {"consumer", "ok", "reasons"} <= set(document(verdicts, verdicts[0])["verdicts"][0])
    assert "amd-zen4" in {one["name"] for one in document(call("xsave", "layouts", "--json"))["layouts"]}


def test_errors_are_json_too(call, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"not a stream at all")
    found = document(call("info", str(path), "--json"), 3)
    assert found["error"]["kind"] == "StreamError"
    assert found["error"]["offset"] == 0
    path.write_bytes(b"\x02\x21\x4c\x18\0\0\0")
    found = document(call("info", str(path), "--json"), 63)
    assert found["error"]["feature"] == "the legacy format of lz4 (lz4 -l)"


# -- exit codes -------------------------------------------------------------------------------------------------------


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


# -- text, CSV, stdin -------------------------------------------------------------------------------------------------


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


def test_stdin_of_a_process():
    with samplefiles.path("pc-7.2").open("rb") as file:
        done = program("info", "-", "--json", stdin=file)
    assert done.returncode == 0
    assert json.loads(done.stdout)["devices"] == 40


def test_one_number_is_printed_as_one_number(call):
    assert call("show", PC, "cpu/env.xcr0")[1] == "0x21f\n"
    assert call("show", PC, "cpu@3/env.xcr0")[1] == "0x7\n"


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


def test_a_terminal_that_speaks_ascii_only(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(StreamWriter("caf\u00e9").finish())
    done = program("info", str(path), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0
    assert b"caf\\xe9" in done.stdout


# -- files ------------------------------------------------------------------------------------------------------------

EXPORT = ["xsave", "export", "--vcpu", "0", "--format", "standard", "--layout", "amd-zen4"]


def test_an_output_never_replaces_an_input(call, tmp_path):
    path = tmp_path / "vm.mig"
    path.write_bytes(samplefiles.read("kvm-avx512-7.2"))
    for name in (path, tmp_path / "." / "vm.mig"):
        assert call(*EXPORT, str(path), "-o", str(name))[0] == 2
    link = tmp_path / "link"
    link.symlink_to(path)
    assert call(*EXPORT, str(path), "-o", str(link))[0] == 2
    assert path.read_bytes() == samplefiles.read("kvm-avx512-7.2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "vm.mig"]


def test_outputs_are_atomic(call, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    assert call(*EXPORT, KVM, "-o", str(out))[0] in (2, 3)
    monkeypatch.undo()
    assert out.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_outputs_have_ordinary_rights(call, tmp_path):
    before = os.umask(0o027)
    try:
        assert call(*EXPORT, KVM, "-o", str(tmp_path / "out"))[0] == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_an_output_that_is_no_regular_file_is_written_in_place(call, tmp_path):
    """A rename would put a file where /dev/null was."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert call(*EXPORT, KVM, "-o", str(fifo))[0] == 0
        assert fifo.is_fifo()
        assert len(os.read(reader, 1 << 16)) == 2440
    finally:
        os.close(reader)


def test_stdout_takes_an_area():
    done = program(*EXPORT, KVM, "-o", "-")
    assert done.returncode == 0
    assert len(done.stdout) == 2440
    assert b"2440 bytes" in done.stderr


def test_a_reader_that_goes_away():
    """More than a pipe holds: else all may be written before the reader is gone."""
    with subprocess.Popen(
        [sys.executable, "-m", "qmigtool", "show", PC, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
    assert b"Traceback" not in err
    assert err == b""
    assert process.returncode == 2  # not all was written


def test_an_input_is_never_changed(call, tmp_path):
    path = tmp_path / "vm.mig"
    data = samplefiles.read("kvm-avx512-7.2")
    path.write_bytes(data)
    path.chmod(0o444)
    for arguments in (["info"], ["sections"], ["show"], ["xsave", "table"]):
        assert call(*arguments, str(path))[0] == 0
    assert path.read_bytes() == data


def test_show_says_which_of_several_instances_it_shows(call):
    said = "qmigtool: 4 instances of cpu; cpu@0 shown (NAME@INSTANCE shows another)\n"
    assert call("show", PC, "cpu")[2] == said
    assert call("show", PC, "cpu/env.xcr0")[2] == said
    assert call("show", PC, "cpu/env.xcr0", "--json")[2] == said
    assert call("show", PC, "cpu@0/env.xcr0")[2] == ""
    assert call("show", PC, "cpu@3")[2] == ""
    assert call("show", PC, "timer")[2] == ""


def test_show_says_where_names_are(call):
    status, _, err = call("show", PC, "rtc")
    assert status == 2
    assert "no device 'rtc'" in err
    assert "`qmigtool show FILE` lists them" in err


@pytest.mark.parametrize("path", ["cpu@0/avx512", "cpu@0/cpu/avx512", "cpu@0/cpu/avx512/env.opmask_regs"])
def test_show_says_that_a_subsection_was_not_sent(call, path):
    status, _, err = call("show", PC, path)
    assert status == 2
    assert "cpu@0 has no subsection cpu/avx512 in this stream" in err
    status, _, err = call("show", PC, "cpu@0/avx51")
    assert (status, "subsection" in err) == (2, False)
