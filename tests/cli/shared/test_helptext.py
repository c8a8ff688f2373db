"""`--help`: its first lines, its examples (each is run), headings, and that it imports no command."""

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from qmigtool.cli.main import cli
from qmigtool.cli.shared.command import ToolCommand
from tests.cli.shared.test_othernames import COMMANDS, GROUPS
from tests.support.paths import ROOT

MANY = 15  # options that a command may have without headings


def find(path: str) -> click.Command:
    found: click.Command = cli
    for word in path.split():
        assert isinstance(found, click.Group)
        child = found.get_command(click.Context(found), word)
        assert child is not None
        found = child
    return found


LEAVES = sorted(COMMANDS - GROUPS)


def text(path: str, columns: int = 80) -> str:
    result = CliRunner().invoke(
        cli, [*path.split(), "--help"], prog_name="qmigtool", terminal_width=columns, max_content_width=columns
    )
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("path", ["", *sorted(COMMANDS)])
def test_the_first_line_stands_alone_and_fits(path):
    command = find(path)
    first, _, rest = (command.help or "").partition("\n")
    assert len(first) <= 78 or not path
    assert first.endswith(".")
    if path not in GROUPS and rest:
        assert rest.startswith("\n"), "a blank line follows the first"
    if path:
        assert command.short_help == first


@pytest.mark.parametrize("path", ["", *sorted(GROUPS)])
def test_the_list_of_commands_is_not_cut(path):
    listed = text(path).split("Commands:\n")[1].splitlines()
    group = find(path)
    assert [line.split()[0] for line in listed] == group.list_commands(click.Context(group))
    for line in listed:
        assert len(line) <= 80
        assert "..." not in line


@pytest.mark.parametrize("path", LEAVES)
def test_no_line_but_a_command_is_wider_than_the_terminal(path):
    for line in text(path).splitlines():
        assert len(line) <= 80 or line.startswith("  qmigtool ")


@pytest.mark.parametrize("path", LEAVES)
def test_no_line_ends_inside_a_name_or_a_quoted_command(path):
    for line in text(path).splitlines():
        assert not line.endswith("-")
        assert line.count("`") % 2 == 0


@pytest.mark.parametrize("path", LEAVES)
def test_the_usage_has_what_the_command_requires(path):
    usage = text(path, 200).splitlines()[0]
    for parameter in find(path).params:
        if isinstance(parameter, click.Option) and parameter.required:
            assert f" {min(parameter.opts, key=len)} " in usage
    assert ("(--dry-run | -o OUT)" in usage) is ("--dry-run" in text(path))


@pytest.mark.parametrize(
    ("words", "path"),
    [("help", ""), ("help rewrite", "rewrite"), ("help xsave", "xsave"), ("xsave help table", "xsave table"),
     ("help xsave table", "xsave table")],
)  # fmt: skip
def test_help_as_a_command(words, path):
    result = CliRunner().invoke(cli, words.split(), prog_name="qmigtool", terminal_width=80, max_content_width=80)
    assert (result.exit_code, result.output) == (0, text(path))


@pytest.mark.parametrize("path", LEAVES)
def test_examples_work(path, tmp_path):
    command = find(path)
    assert isinstance(command, ToolCommand)
    assert command.examples
    assert any(f"qmigtool {path} " in f"{line} " for line in command.examples)
    for line in command.examples:
        assert f"  {line}\n" in text(path)
        assert line.startswith("qmigtool ")
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    program = tmp_path / "qmigtool"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m qmigtool "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    for line in command.examples:
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1), (line, done.stderr)
        assert "Usage:" not in done.stderr
        assert done.stdout or done.stderr


@pytest.mark.parametrize("path", LEAVES)
def test_many_options_have_headings(path):
    command = find(path)
    context = click.Context(command, info_name=path)
    by_heading = command.options_by_heading(context)
    options = {
        name for parameter in command.params if not getattr(parameter, "hidden", False) for name in parameter.opts
    }
    for names in command.headings.values():
        assert {*names} <= options
    if len([p for p in command.params if isinstance(p, click.Option) and not p.hidden]) > MANY:
        assert len(by_heading) > 2
        ((name, _),) = by_heading["Options"]
        assert name.endswith("--help")


def test_help_imports_no_command():
    program = (
        "import sys; from qmigtool.cli.main import run; run(['--help']); run(['xsave', '--help']);"
        "print([m for m in sys.modules if m.startswith('qmigtool.') and m.split('.')[-1] in "
        "('rewriter', 'engine', 'predict', 'table', 'compare')])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"^\[\]$", done.stdout, re.MULTILINE), done.stdout[-300:]
