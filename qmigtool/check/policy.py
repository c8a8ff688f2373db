"""Policies: the rules that run, their severities and their options.

::

    extends = "default"             # the default policy (also if left out), "nothing", or another policy's file

    [rules.components]              # a rule by its name: see `qmigtool check --list-rules`
    severity = "error"              # error, warning, note or off
    forbidden = ["amx"]             # its options

    [[field]]                       # a rule over a field: see qmigtool.check.fieldrule
    path = "cpu@*/env.xcr0"
    equals = "0xe7"

A policy inherits the other settings from the one that it extends. ``[[field]]`` tables are added to those of it.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qmigtool.check.fieldrule import KEYS, FieldRule, read_field_rule
from qmigtool.check.rules import RULES, SUBJECTS
from qmigtool.errors import UsageError
from qmigtool.findings import Rule, Severity
from qmigtool.util.toml import load_toml, parse_toml

if TYPE_CHECKING:
    from qmigtool.check.rule import CheckRule

__all__ = ["OFF", "Policy", "Setting", "default_policy", "default_text", "load_policy", "read_policy"]

MAX_CHAIN = 8  # policies that extend one another
MAX_FIELDS = 1024
OFF = "off"
DEFAULT, NOTHING = "default", "nothing"
ALWAYS = "stream-readable"
HEAD = """\
# The default policy of `qmigtool check`: every rule, and its severity.
#
# error    no QEMU loads it, or the guest is broken
# warning  it loads, but state is lost or does not belong to the guest; or no QEMU writes it
# note     worth knowing; `check` does not fail for it
# off      for policies that enable it
#
# Rules whose options give the required values find nothing until a policy sets them; `qmigtool check --list-rules`
# lists them with their options. Another policy (--policy FILE) needs to contain only what differs:
#
#   [rules.machine-type]
#   allowed = ["pc-q35-*"]
#
#   [[field]]                   # a rule over any field that `qmigtool show` prints; it must exist
#   path = "cpu@*/env.xcr0"
#   within = "x87,sse,avx"      # or equals, one_of, minimum, maximum, mask, has, same, matches, absent,
#                               # required = false
#
# It adds to this one (extends = "default"), unless it starts from nothing, as here:
extends = "nothing"

"""
SEVERITIES = (*(severity.value for severity in Severity), OFF)


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings of one rule: ``severity`` (a severity, or ``off``) and the values of all of its options."""

    severity: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that run. ``files``: the files it was read from."""

    name: str
    settings: Mapping[str, Setting]
    fields: tuple[FieldRule, ...] = ()
    files: tuple[str, ...] = field(default=())

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that are not off and have something to check, in that order, with their severities."""
        own = [
            Rule(id_, Severity(self.settings[id_].severity), rule.title, rule.reason)
            for id_, rule in RULES.items()
            if self.settings[id_].severity != OFF and rule.asks(self.settings[id_].options)
        ]
        mine = [
            Rule(one.id, Severity(one.severity), one.title, one.why or "The policy requires it.")
            for one in self.fields
            if one.severity != OFF
        ]
        return (*own, *mine)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``check --list-rules --json`` prints, without its ``schema``."""
        own = [
            {
                "id": id_,
                "severity": self.settings[id_].severity,
                "title": rule.title,
                "reason": rule.reason,
                "options": {name: option.meaning for name, option in rule.options.items()},
            }
            for id_, rule in RULES.items()
        ]
        mine = [
            {"id": one.id, "severity": one.severity, "title": one.title, "reason": one.why, "options": {}}
            for one in self.fields
        ]
        return {"policy": self.name, "rules": [*own, *mine]}


def default_policy() -> Policy:
    """Return the default policy: every rule with its own severity and the defaults of its options."""
    return Policy(DEFAULT, {id_: Setting(rule.severity, _defaults(rule)) for id_, rule in RULES.items()})


def default_text() -> str:
    """Return the TOML of the default policy, with comments: rules by subject, those of other distributions last."""
    built_in = {rule.id for rules in SUBJECTS.values() for rule in rules}
    others = tuple(rule for rule in RULES.values() if rule.id not in built_in)
    parts = [HEAD]
    for subject, rules in {**SUBJECTS, "other distributions": others}.items():
        if rules:
            parts.append(f"# -- {subject}\n\n")
            parts += [f"{_row(rule)}\n" for rule in rules]
    return "".join(parts).rstrip("\n") + "\n"


def _row(rule: CheckRule) -> str:
    line = f'severity = "{rule.severity}"'
    lines = [f"[rules.{rule.id}]", f"{line:28}# {rule.because}" if rule.because else line]
    if not rule.by_policy:
        plain = (bool, int, float, str)  # whose JSON is also TOML
        lines += [f"{key} = {json.dumps(value)}" for key, value in _defaults(rule).items() if isinstance(value, plain)]
    return "\n".join(lines) + "\n"


def _defaults(rule: CheckRule) -> dict[str, Any]:
    return {name: option.default for name, option in rule.options.items()}


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy file, and those that it extends; ``default`` and ``nothing`` have their meaning in ``extends``.

    Raises :class:`~qmigtool.errors.UsageError` for an invalid policy, and :class:`OSError`.
    """
    return (_shipped(path) if isinstance(path, str) else None) or _load(Path(path), [])


def read_policy(text: str, name: str = "the policy") -> Policy:
    """Read a policy that extends no file; raises :class:`~qmigtool.errors.UsageError`."""
    document = _parse(text, name)
    return _merge(_base(document, name, None, []), document, name)


def _load(path: Path, above: list[Path]) -> Policy:
    if len(above) >= MAX_CHAIN:
        raise UsageError(f"{above[0]} extends a chain of policies", expected=f"at most {MAX_CHAIN}")
    name = str(path)
    document = _checked(load_toml(path), name)
    base = _base(document, name, path.parent, [*above, path])
    return _merge(base, document, name, (name, *base.files))


def _parse(text: str, name: str) -> dict[str, Any]:
    return _checked(parse_toml(text, name), name)


def _checked(document: dict[str, Any], name: str) -> dict[str, Any]:
    _known(document, ("extends", "rules", "field"), name)
    return document


def _base(document: Mapping[str, Any], name: str, folder: Path | None, above: list[Path]) -> Policy:
    """Return the policy that a document extends."""
    wanted = document.get("extends", DEFAULT)
    if not isinstance(wanted, str):
        raise UsageError(f"extends of {name} is {wanted!r:.60}", expected='"default", "nothing" or a file')
    shipped = _shipped(wanted)
    if shipped is not None:
        return shipped
    if folder is None:
        raise UsageError(f"{name} extends {wanted!r}", expected='"default" or "nothing": it is not a file itself')
    return _load(folder / wanted, above)


def _shipped(name: str) -> Policy | None:
    """Return a policy that has a name, not a file."""
    if name == DEFAULT:
        return default_policy()
    return _nothing() if name == NOTHING else None


def _nothing() -> Policy:
    """Return the policy that checks only whether the stream can be read."""
    always = {ALWAYS: "error", "stream-supported": "warning"}
    return Policy(
        NOTHING,
        {id_: Setting(always.get(id_, OFF), _defaults(rule)) for id_, rule in RULES.items()},
    )


def _merge(base: Policy, document: Mapping[str, Any], name: str, files: tuple[str, ...] = ()) -> Policy:
    tables = document.get("rules", {})
    if not isinstance(tables, Mapping):
        raise UsageError(f"rules of {name} is {tables!r:.60}", expected="tables: [rules.NAME]")
    _known(tables, RULES, f"rules of {name}")
    settings = {id_: _setting(id_, old, tables.get(id_, {}), name) for id_, old in base.settings.items()}
    return Policy(name, settings, (*base.fields, *_fields(document, base.fields, name)), files)


def _setting(id_: str, old: Setting, table: Any, name: str) -> Setting:
    what = f"[rules.{id_}] of {name}"
    if not isinstance(table, Mapping):
        raise UsageError(f"{what} is {table!r:.60}", expected='a table: severity = "note"')
    rule = RULES[id_]
    _known(table, ("severity", *rule.options), what)
    options = {
        key: rule.option(key).read(value, f"{key} of {what}") for key, value in table.items() if key != "severity"
    }
    word = table.get("severity")
    severity = old.severity if word is None else _severity(word, f"severity of {what}")
    if id_ == ALWAYS and severity == OFF:
        raise UsageError(f"{what} cannot be off", expected="a severity: a broken stream is never ignored")
    if options and word is None and severity == OFF:
        raise UsageError(f"{what} sets options of a rule that is off", expected='severity = "error", too')
    return Setting(severity, {**old.options, **options})


def _severity(value: Any, what: str) -> str:
    if value not in SEVERITIES:
        raise UsageError(f"{what} is {value!r:.60}", expected="one of " + ", ".join(SEVERITIES))
    return str(value)


def _fields(document: Mapping[str, Any], before: Iterable[FieldRule], name: str) -> list[FieldRule]:
    tables = document.get("field", [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise UsageError(f"field of {name} is {tables!r:.60}", expected="tables: [[field]]")
    if len(tables) > MAX_FIELDS:
        raise UsageError(f"{name} has {len(tables)} [[field]] tables", expected=f"at most {MAX_FIELDS}")
    taken = {*RULES, *(rule.id for rule in before)}
    made = []
    for number, table in enumerate(tables, start=1):
        _known(table, KEYS, f"[[field]] {number} of {name}")
        rule = read_field_rule(table, _severity)
        if rule.id in taken and "id" in table:
            raise UsageError(f"[[field]] {number} of {name} has the id {rule.id!r}, which another rule has")
        rule = _with_free_id(rule, taken)
        taken.add(rule.id)
        made.append(rule)
    return made


def _with_free_id(rule: FieldRule, taken: set[str]) -> FieldRule:
    """Number the rules of one path that have no name."""
    number, id_ = 1, rule.id
    while id_ in taken:
        number += 1
        id_ = f"{rule.id}-{number}"
    return replace(rule, id=id_)


def _known(table: Mapping[str, Any], keys: Iterable[str], what: str) -> None:
    """Check that a table has no other keys; raises :class:`~qmigtool.errors.UsageError` with similar ones."""
    known = list(keys)
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            like = f"one like {', '.join(near)}" if near else "one of " + ", ".join(known)
            raise UsageError(f"{what} cannot have {key!r:.60}", expected=like)
