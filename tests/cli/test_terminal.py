"""Output for a terminal: tables folded to its width, colours, the pager."""

import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmigtool.cli.main import run
from qmigtool.cli.shared import folding
from qmigtool.cli.shared.folding import folded, wrapped
from tests.support import samplefiles
from tests.support.paths import ROOT

PC, KVM = ("samples/pc-7.2.mig", "samples/kvm-avx512-7.2.mig")
KVM_TWIN, TCG_TWIN = ("samples/twin-kvm-10.0.mig", "samples/twin-tcg-10.0.mig")
TARGET = "samples/target.toml"
TABLES = [
    ["diff", KVM_TWIN, TCG_TWIN],
    ["diff", "--list-noise"],
    ["preflight", TCG_TWIN, "--target", TARGET],
    ["check", PC, "--policy", "samples/policy.toml"],
    ["check", "--list-rules"],
    ["sections", PC],
    ["show", PC],
    ["info", PC, KVM],
    ["info", KVM],
    ["ram", PC],
    ["xsave", "table", PC],
    ["xsave", "table", PC, KVM, "--layout", "amd-zen4"],
    ["xsave", "layouts"],
    ["xsave", "check", "samples/areas/zen4-avx512.compacted.bin", "--layout", "amd-zen4"],
    ["xsave", "check", "samples/areas/zen4-avx512.compacted.bin", "--layout", "amd-zen4", "--xcr0", "7"],
    ["xsave", "layouts", "intel-spr"],
    ["schema", "diff", PC, "samples/pc-11.1.mig"],
    ["rewrite", PC, "--set", "cpu@0/env.mxcsr=0x1fa0", "--dry-run"],
]
COLOURED = [TABLES[0], TABLES[2], TABLES[3], TABLES[8], TABLES[10]]
CELLS = st.text("ab/. -_0", max_size=30).map(str.strip)


def names(arguments):
    return " ".join(arguments[:2])


@pytest.fixture(autouse=True)
def in_the_tree(monkeypatch):
    monkeypatch.chdir(ROOT)


def printed(capsys, *arguments):
    run([*arguments])
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", TABLES, ids=names)
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(arguments, width, capsys, monkeypatch):
    plain = printed(capsys, *arguments)
    monkeypatch.setenv("COLUMNS", str(width))
    found = printed(capsys, *arguments)
    words = set(re.split(r"[\s/.,:;=@_-]+", plain))
    for line in found.splitlines():
        if line.startswith(
            ("  qmigtool ", "  to verify: qmigtool ", "qemu-system")
        ):  # a command to copy, QEMU's own message
            continue
        assert len(line) <= width
        assert set(re.split(r"[\s/.,:;=@_-]+", line)) <= words, line


def test_without_a_terminal_nothing_is_folded(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert max(map(len, printed(capsys, "diff", KVM_TWIN, TCG_TWIN).splitlines())) > 100


def text(table):
    return [(" " * line.indent + "  ".join(line.cells)).rstrip() for row in table for line in row]


def test_a_cell_is_folded_in_its_column():
    (table,) = folded(
        ["where", "about"],
        [["cpu@0/cpu/msr_smi_count/env.msr_smi_count", "first at +0x72"], ["a", "b"]],
        [False, False],
        42,
    )
    assert text(table) == [
        "where                     about",
        "cpu@0/cpu/msr_smi_count/  first at +0x72",
        " env.msr_smi_count",
        "a                         b",
    ]


def test_a_table_that_is_too_wide_is_stacked_and_names_stay_whole():
    head = ["file", "size", "machine", "complete"]
    cells = [["samples/libvirt-gzip.save.xz", "7", "pc-i440fx-7.2", "yes"], ["b", "1024", "", ""]]
    (table,) = folded(head, cells, [False, True, False, False], 36)
    assert text(table) == [
        "file                          size",
        "  machine        complete",
        "samples/libvirt-gzip.save.xz     7",
        "  pc-i440fx-7.2  yes",
        "b                             1024",
    ]


def test_a_table_is_stacked_where_that_takes_fewer_lines():
    cells = [["k" * 20, "r" * 15, "words that take several lines"]] * 2
    assert len(text(*folded(["key", "rule", "words"], cells, [False] * 3, 50))) == 6  # 9, folded
    assert len(text(*folded(["key", "rule", "words"], cells, [False] * 3, 60))) == 5


def test_a_table_that_is_read_downwards_is_split():
    tables = folded(["key", "one", "two"], [["k" * 9, "o" * 9, "t" * 9]], [False] * 3, 22, 1)
    assert [[*table[0][0].columns] for table in tables] == [[0, 1], [0, 2]]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("i440fx-7.2 -81661", 10, ["i440fx-7.2", "-81661"]),
        ("a/bc/d", 4, ["a/", "bc/d"]),
        ("unbreakable", 4, ["unbreakable"]),
        ("env.tsc_khz", 8, ["env.", "tsc_khz"]),
        ("env.poll_control", 9, ["env.poll_", "control"]),
        ("0x0000000000000007fedcba9876543210", 20, ["0x0000000000000007", "fedcba9876543210"]),
        ("0x4000000000000007", 9, ["0x4000000000000007"]),
        ("amd-bulldozer 15h", 14, ["amd-bulldozer", "15h"]),
        ("one two  three four  five", 20, ["one two  three four", "five"]),
        ("run `qmigtool show` now", 18, ["run", "`qmigtool show`", "now"]),
        ("", 4, [""]),
    ],
)
def test_wrapped(text, width, lines):
    assert wrapped(text, width) == lines


def test_a_long_number_is_looked_at_in_linear_time():
    matched = [pattern.pattern.count("{16})+") for pattern in folding.TIERS]
    assert not any(matched)  # a group without a limit is tried again from every digit
    digits = "5" * 100_000
    assert "".join(wrapped(f"0x{digits}", 80)) == f"0x{digits}"


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=4), st.integers(5, 70), st.sampled_from([None, 1]))
def test_folding_loses_nothing(cells, width, keys):
    for table in folded(["a", "b", "c"], cells, [False, False, True], width, keys):
        for row, lines in zip([["a", "b", "c"], *cells], table, strict=True):
            for column in {column for line in table[0] for column in line.columns}:
                parts = [line.cells[[*line.columns].index(column)] for line in lines if column in line.columns]
                assert "".join(parts).replace(" ", "") == row[column].replace(" ", "")


@pytest.mark.parametrize("arguments", COLOURED, ids=names)
def test_colours(arguments, capsys, monkeypatch):
    plain = printed(capsys, *arguments)
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    found = printed(capsys, *arguments)
    assert re.sub(r"\x1b\[\d+m", "", found) == plain
    if arguments[0] != "info":  # nothing is wrong with it
        assert re.search(r"\x1b\[3[1-6]m", found)
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(capsys, *arguments) == plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "0")
    assert printed(capsys, *arguments) == plain


def on_a_terminal(*arguments, **environment):
    """Run the program with a terminal of 24 lines and 80 columns: (what it shows, exit status)."""
    leader, follower = pty.openpty()
    shown = b""
    environment = {
        **os.environ,
        "LINES": "24",
        "PAGER": "cat",
        "TERM": "xterm",
        "NO_COLOR": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "qmigtool", *arguments]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        while True:
            try:
                part = os.read(leader, 1 << 16)
            except OSError:  # the end, on Linux
                break
            if not part:
                break
            shown += part
    os.close(leader)
    return shown.decode().replace("\r\n", "\n"), process.returncode


PAGER = "sed 's/^/paged: /'"


def test_long_output_goes_through_the_pager():
    shown, status = on_a_terminal("show", PC, PAGER=PAGER)
    assert status == 0
    assert len(shown.splitlines()) > 24
    assert all(line.startswith("paged: ") for line in shown.splitlines())


@pytest.mark.parametrize(
    ("arguments", "pager"),
    [(["xsave", "table", PC], PAGER), (["--no-pager", "show", PC], PAGER), (["show", PC], "cat"), (["show", PC], ""),
     (["show", PC], "/no/such/program")],
)  # fmt: skip
def test_output_that_is_not_paged(arguments, pager):
    shown, status = on_a_terminal(*arguments, PAGER=pager)
    assert status == 0
    assert "paged" not in shown
    assert shown


def test_messages_go_through_the_pager_too_and_the_status_stays(tmp_path):
    cut = tmp_path / "cut.mig"
    cut.write_bytes(samplefiles.read("pc-7.2")[:-100])
    shown, status = on_a_terminal("show", str(cut), PAGER=PAGER)
    assert status == 3
    assert "paged: qmigtool: " in shown


@pytest.mark.parametrize("pager", [PAGER, "cat"])
def test_messages_keep_their_place(pager):
    shown, status = on_a_terminal("show", PC, "cpu@0/env.xcr0", PAGER=pager)
    assert (shown.splitlines(), status) == (["0x21f", "XCR0: x87 SSE AVX BNDREGS BNDCSR PKRU"], 0)


def test_a_message_is_folded_on_a_terminal_alone(capfd):
    shown, status = on_a_terminal("show", PC, "cpu@9/env.xcr0")
    assert status == 2
    assert len(shown.splitlines()) > 1
    assert all(len(line) <= 80 for line in shown.splitlines())
    run(["show", PC, "cpu@9/env.xcr0"])
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_pager_that_is_left_is_no_error():
    shown, status = on_a_terminal("show", PC, "--json", PAGER="head -n 2")
    assert status in (0, 2)
    assert "Traceback" not in shown
    assert "Error" not in shown
