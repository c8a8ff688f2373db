"""Shell completion by click's mechanism: what each parameter offers, and bash words that hold ``@`` and ``:``.

Nothing of a command is imported to complete names, and what opens streams only to complete what is in one.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

from qmigtool.errors import UsageError

__all__ = ["complete", "describe", "parse_line", "quoted", "register"]

SECONDS = 1.0  # of processor time for what is in a file: a user waits
MOST = 2000  # paths that are looked at in one device

# bash breaks words at @ and : (COMP_WORDBREAKS), of which our paths are full: the words come from the line itself, and
# of an answer bash gets what follows the last break. What is in COMPREPLY goes into the command line as it is.
SOURCE = r"""
%(complete_func)s() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case "${line%%%%,*}" in
            file) compopt -o default ;;
            part) compopt -o nospace; COMPREPLY+=("${line#*,}") ;;
            plain) COMPREPLY+=("${line#*,}") ;;
        esac
    done < <(env QMIGTOOL_LINE="${COMP_LINE:0:COMP_POINT}" QMIGTOOL_BREAKS="$COMP_WORDBREAKS" \
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Careful(ShellComplete):
    """Completion that offers no name which a shell or a terminal could take for something else."""

    def complete(self) -> str:
        """Return what the shell function reads.

        Raises :class:`~qmigtool.errors.UsageError` without the variables that it sets.
        """
        try:
            self.get_completion_args()
        except (LookupError, ValueError):
            raise UsageError(
                f"{self.complete_var} is set, but not the variables that the completion of {self.name} needs",
                expected=f"a call by the shell function of {self.complete_var}={self.name}_source qmigtool",
            ) from None
        return super().complete()

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return what may follow; names with line breaks, controls or bytes that are not UTF-8 are left out."""
        return [one for one in super().get_completions(args, incomplete) if self.harmless(one)]

    def harmless(self, item: CompletionItem) -> bool:
        """Say whether the shell function and the shell can take the item."""
        return str(item.value).isprintable()


class Bash(Careful, BashComplete):
    """Completion for bash."""

    source_template = SOURCE

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words in front of the cursor, and the one that is typed."""
        line = _line()
        return line.words, line.typed

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line for the shell function."""
        if item.type != "plain":
            return f"{item.type},"
        line, value = _line(), str(item.value)
        option, equals, _ = line.typed.partition("=")
        if equals and option.startswith("-") and not value.startswith(f"{option}="):
            value = f"{option}={value}"  # click leaves it out
        kind = "part" if value.endswith(("/", "=")) else "plain"
        return f"{kind},{quoted(value[line.behind :], line.quote)}"


class Fish(Careful, FishComplete):
    """Completion for fish, which quotes what it inserts."""

    # A name with a comma is one name.
    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')


class Zsh(Careful, ZshComplete):
    """Completion for zsh, whose ``compadd`` quotes what it inserts."""


class Line(NamedTuple):
    """A command line up to the cursor: the words of it without their quotes, and how far bash keeps the last one."""

    words: list[str]
    typed: str
    behind: int
    """Characters of ``typed`` in front of what bash replaces."""
    quote: str
    """The quotation mark that is open at the cursor."""


def _line() -> Line:
    return parse_line(os.environ["QMIGTOOL_LINE"], os.environ.get("QMIGTOOL_BREAKS", "@:="))


def parse_line(line: str, breaks: str) -> Line:
    """Take a command line apart as bash does; ``breaks`` are COMP_WORDBREAKS."""
    words: list[str] = []
    typed, behind, before, quote, begun = "", 0, 0, "", False
    characters = iter(line)
    for c in characters:
        if c == "\\" and quote != "'":
            escaped = next(characters, "")
            typed += escaped if not quote or escaped in '"$`\\' else c + escaped
        elif c == quote:
            quote, behind = "", before
        elif not quote and c in "'\"":
            quote, before, behind = c, behind, len(typed)
        elif not quote and c.isspace():
            words += [typed] if begun else []
            typed, behind, begun = "", 0, False
            continue
        else:
            typed += c
            behind = len(typed) if not quote and c in breaks else behind
        begun = True
    return Line(words[1:], typed, behind, quote)


def quoted(text: str, quote: str = "") -> str:
    """Quote text for bash; ``quote`` is the mark that is open in front of it.

    With backslashes: whatever is in front of them, and even if only a part is inserted, bash expands nothing.
    """
    if quote == "'":
        return text.replace("'", r"'\''")
    if quote == '"':
        return _IN_QUOTES.sub(r"\\\g<0>", text).replace("!", '"\\!"')
    return _SPECIAL.sub(r"\\\g<0>", text)


_IN_QUOTES = re.compile(r'["$`\\]')
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")


def register() -> None:
    """Have click use these completions."""
    for one in (Bash, Fish, Zsh):
        add_completion_class(one)
    other = get_completion_class("powershell")  # newer versions of click have it
    if other is not None:
        add_completion_class(type("PowerShell", (_PlainNames, other), {}))


class _PlainNames(Careful):
    """Completion for a shell that inserts names as they are: only those are offered that need no quotes."""

    def harmless(self, item: CompletionItem) -> bool:
        return super().harmless(item) and _SPECIAL.search(str(item.value)) is None


def complete(parameter: click.Parameter) -> Callable[[click.Context, str], list[CompletionItem]] | None:
    """Return what completes the value of a parameter; None leaves it to its type."""
    if isinstance(parameter.type, click.Choice) or (isinstance(parameter, click.Option) and parameter.is_flag):
        return None
    name = parameter.opts[0] if isinstance(parameter, click.Argument) else max(parameter.opts, key=len)
    values = BY_NAME.get(name) or BY_METAVAR.get(parameter.metavar or "")
    if values is None:
        return None

    def found(context: click.Context, incomplete: str) -> list[CompletionItem]:
        try:
            items = [CompletionItem(one) for one in values(context, incomplete) if one.startswith(incomplete)]
        except Exception:  # a file that cannot be read offers nothing; its errors are for the command to tell
            items = []
        return items or ([CompletionItem(incomplete, type="file")] if name not in NO_FILES else [])

    return found


Values = Callable[[click.Context, str], Iterable[str]]


def _files(_context: click.Context, _incomplete: str) -> Iterable[str]:
    return ()


def _accelerators(_context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.x86.traits import NAMES

    return NAMES


def _targets(_context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.x86.traits import TARGETS

    return TARGETS


def _layouts(_context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.xsave import layout_names

    return layout_names()


def _consumers(_context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.xsave.check import CONSUMERS

    return CONSUMERS


def _noise(_context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.diff import default_noise

    rules = default_noise().rules
    return dict.fromkeys([*(rule.id for rule in rules), *(rule.topic for rule in rules)])


def _file_of(context: click.Context) -> str:
    """Return the file that is typed already: parsed, or after what is not, an option that lacks its value."""
    given = [context.params.get(name) for name in ("file", "files", "a")]
    words = [*(word for one in given for word in (one if isinstance(one, tuple) else (one,))), *context.args]
    return next(word for word in words if isinstance(word, str) and Path(word).is_file())


def _snapshots(context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.errors import SnapshotsError
    from qmigtool.stream.opening import open_stream
    from qmigtool.util.budget import Limits, limited

    try:
        with limited(Limits(seconds=SECONDS)), open_stream(_file_of(context)) as stream:
            return [str(stream.container.details["snapshot"])]
    except SnapshotsError as several:
        return [str(one["name"] or one["id"]) for one in several.snapshots]


def _migrations(context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.errors import MigrationsError
    from qmigtool.stream.opening import open_stream
    from qmigtool.util.budget import Limits, limited

    try:
        with limited(Limits(seconds=SECONDS)), open_stream(_file_of(context)) as stream:
            return [str(stream.container.details["migration"])]
    except MigrationsError as several:
        return [str(one["migration"]) for one in several.migrations]


def _paths(context: click.Context, incomplete: str) -> Iterable[str]:
    """Give devices, and what follows in the paths of a device that is typed."""
    from qmigtool.parsers.vmstate import leaves
    from qmigtool.stream.opening import open_stream
    from qmigtool.util.budget import Limits, limited

    with limited(Limits(seconds=SECONDS)), open_stream(_file_of(context)) as stream:
        devices = {device.label: device for device in stream.devices}
        inside = [label for label in devices if incomplete.startswith(f"{label}/")]
        if not inside:
            near = [label for label in devices if label.startswith(incomplete)]
            return [f"{near[0]}/"] if len(near) == 1 else near
        device = max(inside, key=len)
        typed = incomplete[len(device) + 1 :]
        found = (path for path, _ in leaves(devices[device].fields))
        return [f"{device}/{one}" for one in _next(itertools.islice(found, MOST), typed)]


def _next(paths: Iterable[str], typed: str) -> Iterator[str]:
    """Give what may follow ``typed``, up to the next slash."""
    seen = set()
    for path in paths:
        if path.startswith(typed):
            end = path.find("/", len(typed))
            one = path if end < 0 else path[: end + 1]
            if one not in seen:
                seen.add(one)
                yield one


def _assignments(context: click.Context, incomplete: str) -> Iterable[str]:
    return (one if one.endswith("/") else f"{one}=" for one in _paths(context, incomplete))


def _sections(context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.stream.opening import open_stream
    from qmigtool.util.budget import Limits, limited

    with limited(Limits(seconds=SECONDS)), open_stream(_file_of(context)) as stream:
        return [device.label for device in stream.devices]


def _blocks(context: click.Context, _incomplete: str) -> Iterable[str]:
    from qmigtool.stream.opening import open_stream
    from qmigtool.util.budget import Limits, limited

    with limited(Limits(seconds=SECONDS)), open_stream(_file_of(context)) as stream:
        return [block.idstr for block in stream.ram_blocks]


def _targets_of_preflight(context: click.Context, incomplete: str) -> Iterable[str]:
    return [*_accelerators(context, incomplete), *_layouts(context, incomplete)]


BY_NAME: dict[str, Values] = {
    "path": _paths,
    "--accelerator": _accelerators,
    "--accelerator-a": _accelerators,
    "--accelerator-b": _accelerators,
    "--consumer": _consumers,
    "--count": _noise,
    "--drop-block": _blocks,
    "--drop-field": _paths,
    "--drop-section": _sections,
    "--drop-subsection": _paths,
    "--migration": _migrations,
    "--migration-a": _migrations,
    "--rename-block": _blocks,
    "--rename-section": _sections,
    "--rename-subsection": _paths,
    "--resize-block": _blocks,
    "--scrub-block": _blocks,
    "--section": _sections,
    "--set": _assignments,
    "--set-version": _paths,
    "--snapshot": _snapshots,
    "--target": _targets_of_preflight,
    "--to-accelerator": _targets,
}
NO_FILES = frozenset(BY_NAME) - {"--target"}
BY_METAVAR: dict[str, Values] = {
    **dict.fromkeys(
        ("A", "AREA", "B", "DIR", "FILE", "FILE...", "IN", "OLD", "OUT", "PATCH", "TOML", "OUT.mig"), _files
    ),
    "LAYOUT": _layouts,
    "[NAME]": _layouts,
}


def describe(items: Iterable[tuple[str, str]], incomplete: str) -> list[Any]:
    """Return commands as completions."""
    return [CompletionItem(name, help=text) for name, text in items if name.startswith(incomplete)]
