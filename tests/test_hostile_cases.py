"""Files made to hurt: each command ends in time, in little memory, with an answer or a typed error.

Measured in processes of their own, with few file descriptors and unbuffered output. The cases are those of
``tests/data/cases/hostile``; variants of each kind are made here.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import sys
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.cli.shared.output import print_cells, say
from qmigtool.errors import BudgetError, LimitError, StreamError, UsageError
from qmigtool.rewrite import Rewriter
from qmigtool.rewrite.fields import assign
from qmigtool.util.budget import Limits, limited
from qmigtool.util.text import csv_text, json_text, printable
from tests.fuzz import hostile
from tests.support import casefiles, samplefiles
from tests.support.measured import MEMORY, SECONDS, measured
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, nums, raw, x86_cpu, zero

CASES = [
    ("arr8.mig", "show F --json", 0), ("arr8.mig", "analyze F", 0), ("arr8.mig", "show F a/arr[5]", 0),
    ("arr8.mig", "rewrite F --set a/arr[5]=9 -o OUT", 0), ("structs.mig", "show F a/arr[5]", 0),
    ("structs.mig", "show F --json", 63), ("structs.mig", "diff F F", 0), ("sections.mig", "info F", 63),
    ("sections.mig", "show F", 63), ("sections.mig", "show F --json", 63), ("sections.mig", "check F", 63),
    ("sections.mig", "xsave table F", 63), ("sections.mig", "diff F F", 63), ("sections.mig", "analyze F", 63),
    ("sections.mig", "preflight F --target F", 63), ("fit.mig", "show F", 0), ("fit.mig", "show F --json", 63),
    ("fit.mig", "check F", 0), ("fit.mig", "diff F F", 0), ("fit.mig", "preflight F --target F", 63),
    ("structs.mig", "preflight F --target F", 63), ("zAnest.zst", "info F", 3),
    ("zznest.zst", "check F", 3), ("bomb.qcow2", "info F", 3),
    ("mem.zst", "info F", 3), ("dict768.xz", "info F", 63), ("golden.xz", "info F", 3), ("flows1100.pcap", "show F", 0),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command", "status"), CASES)
def test_cases(name: str, command: str, status: int, tmp_path: Path) -> None:
    if name.endswith(".zst"):
        pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    places = {"F": casefiles.put("hostile", name, tmp_path), "OUT": str(tmp_path / "out")}
    found, seconds, memory, said = measured(*(places.get(word, word) for word in command.split()))
    assert found == status, said
    assert memory < MEMORY
    assert seconds < SECONDS
    assert "Traceback" not in said


MADE = [
    ("subsections.mig", "preflight F --target F", 0), ("buffer-large.mig", "show F --json", 0),
    ("zeros-jumping.mig", "ram F", 63), ("described-only.mig", "diff F F", 63),
    ("buffer-large.mig", "diff F F", 0), ("real-cpus-1040.mig", "show F --json", 0),
    ("connections.pcap", "info F", 0), ("connections-main.pcap", "info F", 3), ("segments-random.pcap", "info F", 3),
    ("segments-lies.pcap", "info F", 3), ("fragments.pcap", "info F", 0), ("interfaces.pcapng", "info F", 0),
    ("blocks-empty.pcapng", "info F", 3), ("segments-backwards.pcap", "flows F", 3),
    ("segments-odd.pcap", "flows F", 3),
    ("flows-data.pcap", "flows F", 3), ("connections.pcap", "flows F --json", 0), ("segments-far.pcap", "flows F", 3),
]  # fmt: skip
"""Pairs of the matrix (``python -m tests.fuzz hostile``) that were too slow or too large, and some of each kind."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command", "status"), MADE)
def test_variants(name: str, command: str, status: int, tmp_path: Path) -> None:
    row = hostile.try_one(name, command, hostile.put(name, tmp_path), tmp_path)
    assert not row.faults, row
    assert row.run.status == status, row


def test_parts_and_commands_are_counted() -> None:
    """Half a million items of some bytes, in a section that has begun, and pings."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    head = bytes(w.data)
    w.part(1, eos())
    part = bytes(w.data)[len(head) :]
    ping = b"\x08" + (2).to_bytes(2, "big") + (4).to_bytes(2, "big") + bytes(4)
    for item in (part, ping):
        with limited(Limits(objects=15_000)), qmigtool.open(head + item * 100_000) as stream:
            assert len(stream.sections) < 10_000
            assert any(isinstance(problem, BudgetError) for problem in stream.problems)


def test_many_empty_parts_are_no_attack() -> None:
    """Two streams in one budget, as `diff` has them: QEMU 10.0 writes so many PARTs while a dirty bitmap waits."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    head = bytes(w.data)
    w.part(1, eos())
    part = bytes(w.data)[len(head) :]
    with limited():
        for _ in range(2):
            with qmigtool.open(head + part * 61_440 + b"\0") as stream:
                assert len(stream.sections) > 61_440
                assert not any(isinstance(problem, BudgetError) for problem in stream.problems)


def test_an_element_is_set_where_it_lies() -> None:
    before = casefiles.read("hostile", "arr8.mig")
    with qmigtool.open(before) as stream:
        at = stream.field("a/arr[5]").offset
        rewriter = Rewriter(stream)
        rewriter.set("a/arr[5]", 9)
        out = io.BytesIO()
        rewriter.write(out)
    assert out.getvalue() == before[:at] + b"\x09" + before[at + 1 :]


# -- variants of each kind -----------------------------------------------------------------------------------------


def machine(*devices: Vmsd) -> bytes:
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    for i, device in enumerate(devices):
        w.device(2 + i, device.name, 0, device)
    w.eof()
    w.vmdesc()
    return bytes(w.data)


PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("inner", PACKERS)
def test_what_is_packed_twice_and_no_stream_is_not_unpacked(inner: str, outer: str) -> None:
    data = PACKERS[outer](PACKERS[inner](b"A" * (64 << 10) + os.urandom(100)))
    with limited(Limits(spool=1)), pytest.raises(StreamError, match=f"the {inner} in {outer} content"):
        qmigtool.open(data)


def test_packers_in_packers_have_an_end() -> None:
    data = b"QEVM"
    for _ in range(6):
        data = gzip.compress(data)
    with pytest.raises(LimitError, match="too many nested"):
        qmigtool.open(data)


@pytest.mark.parametrize("packer", PACKERS)
def test_tiny_members_are_bounded(packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmigtool.parsers.packed.MAX_SMALL", 50)
    stream = samplefiles.read("pc-7.2")[:4000]
    data = b"".join(PACKERS[packer](stream[i : i + 20]) for i in range(0, len(stream), 20))
    with qmigtool.open(data) as opened:
        assert any("members of less than" in str(problem) for problem in opened.problems)


def test_a_dictionary_is_refused_unless_it_is_allowed() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 300 << 20}]
    data = lzma.compress(samplefiles.read("pc-7.2"), filters=filters)
    with pytest.raises(BudgetError, match="--max-memory"):
        qmigtool.open(data)
    with limited(Limits(memory=400 << 20)), qmigtool.open(data) as stream:
        assert stream.complete


def test_what_is_unpacked_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmigtool.stream.unwrapped.GRACE", 0)
    monkeypatch.setattr("qmigtool.stream.probe.PROBED", 1 << 20)
    stream = samplefiles.read("pc-7.2")[:3000] + b"\x55" * (16 << 20)
    with qmigtool.open(gzip.compress(stream)) as opened:
        assert any("decompressing stops here" in str(problem) for problem in opened.problems)
        assert len(opened.source.whole) < 8 << 20  # type: ignore[attr-defined]


def test_honest_files_stay_under_the_limits_many_times(tmp_path: Path) -> None:
    file = tmp_path / "pc.gz"
    file.write_bytes(gzip.compress(samplefiles.read("pc-7.2")))
    assert run(["--max-seconds", "60", "--max-objects", "50k", "--max-spool", "20M", "--max-memory", "4M",
                "check", str(file)]) in (0, 1)  # fmt: skip


# -- names ------------------------------------------------------------------------------------------------------------

EVIL = [
    "::error::x", "  ::error::x", "\u00a0::error::x", "\t::error::x", "##[error]x", "x##vso[task.complete]y",
    "###vso[task.complete]y", "##teamcity[x]", "\x1b]0;x\x07", "\u202egnp", "a\nb", "a\r::error::b", "\u2028::x::",
]  # fmt: skip
COMMAND = re.compile(r"^\s*::|##[\w.]*\[", re.MULTILINE)


@pytest.mark.parametrize("name", EVIL)
def test_a_printed_name_is_no_command(name: str) -> None:
    for text in (printable(name), csv_text(name), json_text(name)):
        assert text.isprintable()
        assert COMMAND.search(text) is None
        assert len(text.splitlines()) == 1
    assert json.loads(json_text(name)) == name


@pytest.mark.parametrize("cell", ["=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(1)", " =1", "\t=1", "\uff1d1", "-", "+x"])
def test_a_cell_is_no_formula(cell: str) -> None:
    assert csv_text(cell).lstrip()[0] not in "=+-@\uff1d\t"


@pytest.mark.parametrize("cell", ["-1", "+5", "1.5", "cpu@0/env.xcr0", "a=b"])
def test_what_is_no_formula_stays(cell: str) -> None:
    assert csv_text(cell) == cell


@pytest.mark.parametrize("name", ["inj1.mig", "inj2.mig", "inj3.mig"])
@pytest.mark.parametrize(
    "command",
    ["info F", "info F --json", "sections F", "sections F --csv", "show F", "show F --json", "show F --csv", "check F",
     "check F --format sarif", "check F --format junit", "check F --format codequality", "diff F F", "analyze F",
     "ram F", "xsave table F", "show F nothing"],
)  # fmt: skip
def test_names_in_every_output(name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = casefiles.put("hostile", name, tmp_path)
    run([file if word == "F" else word for word in command.split()])
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert COMMAND.search(text) is None
        assert re.search(r"[^\n -~]", text) is None or all(c.isprintable() or c == "\n" for c in text)
    if "--csv" in command:
        assert not [cell for line in said.out.splitlines() for cell in line.split(",") if cell.startswith(tuple("=+@"))]


LINE_START = re.compile(r"^\s*(?:::|##)", re.MULTILINE)
BROKEN_OFF = [
    "a ::error::b",
    "dir/::notice::x",
    "aaaa aaaaa ##vso[b]",
    "a ##[error]b c",
    "::a ::b::c",
    "x/ ::y",
    "a/##b",
]


@pytest.mark.parametrize("width", range(20, 81))
def test_no_line_of_a_folded_table_begins_as_a_command(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for filler in ("", "a" * 9, "word " * 5, "b" * (width - 3)):
        names = [printable(f"{filler} {name}") for name in BROKEN_OFF]
        print_cells(["name", "what"], [[name, name] for name in names], [False, False])
        print_cells(["n", "what", "more"], [["1", name, name] for name in names], [True, False, False], keys=2)
        for name in names:
            say(f"the name is {name}")
    assert LINE_START.search(capsys.readouterr().out) is None


@pytest.mark.parametrize("width", [20, 26, 33, 47, 60, 80])
@pytest.mark.parametrize(
    "command",
    ["info F", "info F G", "sections F", "show F", "show F --all", "check F", "check --policy P F", "diff F G",
     "diff -r D E", "diff --base G F G", "ram F", "xsave table F G", "preflight F --target tcg", "rewrite F --dry-run",
     "schema diff F G"],
)  # fmt: skip
def test_no_line_of_a_folded_output_begins_as_a_command(
    command: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    plain = samplefiles.read("pc-7.2")
    evil = plain
    for old, new in ((b"0000:00:01.3/piix4_pm", b"a/::error::x b ::c::d"), (b"pc-i440fx-7.2", b"a ::notice::x"),
                     (b"pc.bios", b"a ::b::"), (b"0000:00:02.0/vga", b"abcd ##vso[x]y/z")):  # fmt: skip
        assert len(old) == len(new)
        evil = evil.replace(old, new)
    for folder, contents in (("D", evil), ("E", plain)):
        (tmp_path / folder / "aaaaaaaaaaaaaaaaaaaaa ").mkdir(parents=True)
        (tmp_path / folder / "aaaaaaaaaaaaaaaaaaaaa " / "::error::b ::c::.mig").write_bytes(contents)
    name = "aaaaaaaaaaaaaaaaaaaaa /::error::b ::c::.mig"
    (tmp_path / "P").write_text('schema = 1\n[rules.accelerator]\naccelerator = "mshv"\n')
    where = {"F": f"D/{name}", "G": f"E/{name}", "D": "D", "E": "E", "P": "P"}
    assert run([where.get(word, word) for word in command.split()]) != 70
    said = capsys.readouterr()
    assert LINE_START.search(said.out) is None
    assert LINE_START.search(said.err) is None


def test_errors_about_file_names_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("no\n::error::such", "\r##vso[x]", "\x1b[31m"):
        for arguments in (
            ["info", str(tmp_path / name)],
            ["--nothing" + name],
            [name],
            ["check", str(tmp_path / name)],
        ):
            assert run(arguments) == 2
            said = capsys.readouterr()
            assert COMMAND.search(said.out + said.err) is None
            assert "\x1b" not in said.out + said.err


# -- short names -------------------------------------------------------------------------------------------------------


def test_short_names_where_they_are_unique() -> None:
    with qmigtool.open(samplefiles.path("q35-7.2")) as stream:
        assert stream.field("cpu@0/xcr0").name == "env.xcr0"
        assert stream.device("virtio-net").name.endswith("/virtio-net")
        with pytest.raises(UsageError, match=r"one of env\.cr\[0\], env\.cr\[2\]"):
            stream.field("cpu@0/env.cr")
        assert stream.device("cpu@0").get("xcr0") is None  # what judges asks by whole names


def test_candidates_are_listed() -> None:
    devices = [Vmsd(f"0000:00:0{i}.0/nic", 1, [num("v", "uint8", 1)]) for i in range(2)]
    with (
        qmigtool.open(machine(*devices)) as stream,
        pytest.raises(UsageError, match=r"0000:00:00\.0/nic@0, 0000:00:01\.0/nic@0"),
    ):
        stream.field("nic/v")


# -- long buffers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [bytes(range(256)) * 700, bytes(100_000)], ids=["bytes", "zeros"])
def test_long_buffers_are_shown_in_pieces(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "long.mig"
    file.write_bytes(machine(Vmsd("a", 1, [raw("b", data)])))
    shown = data.hex() if any(data) else f"{len(data)} zero bytes"
    for arguments, wanted in ((["show", str(file), "a/b"], shown), (["show", str(file), "a"], f"b = {shown}")):
        assert run(arguments) == 0
        assert capsys.readouterr().out == wanted + "\n"
    assert run(["show", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["devices"][0]["fields"] == {"b": data.hex()}
    assert run(["analyze", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["a (2)"] == {"b": data.hex(" ")}


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--csv"]])
def test_long_buffers_that_differ(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are kept with the difference: what that takes is charged before it is taken."""
    data = bytes(range(256)) * 40_000
    for name, raw_ in (("a", data), ("b", data[:-1] + b"x")):
        (tmp_path / name).write_bytes(machine(Vmsd("a", 1, [raw("b", raw_)])))
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert run(["--max-memory", "30M", "diff", *files, *arguments]) == 63
    assert "--max-memory" in capsys.readouterr().err
    assert run(["--max-memory", "30M", "diff", files[0], files[0], *arguments]) == 0
    capsys.readouterr()
    assert run(["diff", *files, *arguments]) == 1
    said = capsys.readouterr().out
    if arguments == ["--json"]:
        (one,) = json.loads(said)["differences"]
        assert (one["a"], one["b"]) == (data.hex(), (data[:-1] + b"x").hex())


def test_vcpus_of_a_draft_are_made_once() -> None:
    """Each knows its XSAVE state: rules that ask for it again and again do not decode it again."""
    with qmigtool.open(machine(x86_cpu())) as stream:
        draft = Rewriter(stream).draft
        (section,) = draft.x86_cpus()
        before = draft.vcpu(section)
        assert draft.vcpu(section) is before
        assign(draft, section, "env.xcr0", 3)
        assert (before.xcr0, draft.vcpu(section).xcr0) == (7, 3)


def test_the_longest_name_that_fits_is_the_field() -> None:
    fields = [num("v", "uint8", 1), num("v/w", "uint8", 2), nums("v[0]", "uint8", [3, 4]), num("v", "uint8", 5)]
    with qmigtool.open(machine(Vmsd("a", 1, fields))) as stream:
        device = stream.device("a")
        assert [device.number(path) for path in ("v", "v/w", "v[0][1]", "v[1]")] == [1, 2, 4, None]
        assert device.field("v").value == 1
