"""What the program answers to names: none, former ones, those of other programs, misspelled ones."""

import click
import pytest

from qmigtool.cli.main import cli, run
from qmigtool.cli.shared.lazy import LazyGroup
from qmigtool.cli.shared.othernames import OTHER_NAMES, RENAMED
from tests.support import samplefiles

PC = str(samplefiles.path("pc-7.2"))


def paths(command: click.Command, words: tuple[str, ...] = ()) -> set[str]:
    """Every command that can be run, by the words that name it."""
    if not isinstance(command, click.Group):
        return {" ".join(words)}
    context = click.Context(command)
    children = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {" ".join(words)}.union(*(paths(child, (*words, name)) for name, child in children.items()))


COMMANDS = paths(cli) - {""}
GROUPS = {one for one in COMMANDS if any(other.startswith(f"{one} ") for other in COMMANDS)}


@pytest.mark.parametrize("group", ["", *sorted(GROUPS)])
def test_a_group_alone_prints_help_on_stdout(group, capsys):
    assert run(group.split()) == 0
    alone = capsys.readouterr()
    assert run([*group.split(), "--help"]) == 0
    assert alone == capsys.readouterr()
    assert alone.out.startswith(f"Usage: qmigtool {group}".rstrip())
    assert alone.err == ""


def test_options_without_a_command_are_wrong_usage(capsys):
    assert run(["--max-objects", "5M"]) == 2
    assert "Missing command" in capsys.readouterr().err


def test_version(capsys):
    assert run(["-V"]) == 0
    short = capsys.readouterr().out
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == short


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["compat", PC], "is now called: qmigtool analyze"),
        (["rewrite", PC, "--for", "amd-zen4", "--dry-run"], "--for is now called --layout"),
        (["rewrite", PC, "--for"], "--for is now called --layout"),
        (["xsave", "check", PC, "--for", "MSHV"], "--for is now called --consumer"),
        (["compare", PC, PC], "did you mean: qmigtool diff"),
        (["convert"], "did you mean: qmigtool xsave convert, qmigtool rewrite"),
        (["dump", PC], "did you mean: qmigtool show"),
        (["registers", PC], "did you mean: qmigtool show FILE cpu"),
        (["prefligth", PC], "did you mean: qmigtool preflight"),
        (["layuots"], "did you mean: qmigtool xsave layouts"),
        (["xsave", "tabel", PC], "did you mean: qmigtool xsave table"),
        (["xsave", "dump", PC], "did you mean: qmigtool xsave export"),
        (["schema", "compare"], "did you mean: qmigtool schema diff"),
        (["xyzzy"], "no such command 'xyzzy'\n"),
    ],
)
def test_names_that_are_not_commands(given, named, capsys):
    assert run(given) == 2
    out, err = capsys.readouterr()
    assert named in err
    assert out == ""


def test_former_names_are_not_offered(capsys):
    for words in (["rewrite"], ["xsave", "check"]):
        assert run([*words, "--help"]) == 0
        assert "--for" not in capsys.readouterr().out.split()


def test_every_name_that_is_offered_exists():
    targets = {*RENAMED.values(), *(one for several in OTHER_NAMES.values() for one in several)}
    assert {one.partition(" FILE")[0] for one in targets} <= COMMANDS
    assert not COMMANDS & {*OTHER_NAMES, *RENAMED}


def test_commands_in_groups_are_found_from_the_top():
    for command in COMMANDS - GROUPS:
        group, _, name = command.rpartition(" ")
        if group and name not in COMMANDS:
            assert command in OTHER_NAMES[name]


def test_every_group_is_lazy():
    assert all(isinstance(one, LazyGroup) for one in (cli, *(cli.get_command(click.Context(cli), g) for g in GROUPS)))
