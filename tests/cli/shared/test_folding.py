"""Tables folded to the width of the terminal."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmigtool.cli.shared import folding
from qmigtool.cli.shared.folding import folded, wrapped
from tests.cli.shared.terminals import KVM_TWIN, TABLES, TCG_TWIN, names, printed

CELLS = st.text("ab/. -_0", max_size=30).map(str.strip)


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
