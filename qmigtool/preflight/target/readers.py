"""Targets from files of every kind, recognised by their contents: see :func:`read_target`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from qmigtool.errors import LimitError, QmigError, SnapshotsError, StreamError, UsageError
from qmigtool.parsers.source import FileSource
from qmigtool.parsers.vmstatedump import MACHINE_KEY
from qmigtool.preflight.target.builds import live_sections, target_from_version
from qmigtool.preflight.target.cpuidflags import features_of_dump
from qmigtool.preflight.target.cpumodel import target_from_expansion
from qmigtool.preflight.target.dump import target_from_dump
from qmigtool.preflight.target.machines import is_machine, is_x86, resolve
from qmigtool.preflight.target.masks import properties_of_table, properties_of_text, target_from_properties
from qmigtool.preflight.target.model import Target
from qmigtool.preflight.target.reference import merge, target_from_stream
from qmigtool.preflight.target.targetfile import KEYS, parse_version, target_from_layout, target_from_table
from qmigtool.preflight.target.vcpus import with_vcpus
from qmigtool.preflight.target.versions import version_text
from qmigtool.stream.opening import open_stream
from qmigtool.stream.textinput import HEAD, is_stream, text_of
from qmigtool.util.documents import make_room
from qmigtool.util.toml import parse_toml
from qmigtool.x86.traits import NAMES
from qmigtool.xsave import is_layout_name, layout_names, parse_cpuid_dump
from qmigtool.xsave import layout as find_layout
from qmigtool.xsave.catalog import without_xsave
from qmigtool.xsave.components import LEGACY_MASK
from qmigtool.xsave.cpuid import no_xsave, parse_cpuid_rows, split_choice
from qmigtool.xsave.cputext.nameonly import name_only

__all__ = ["read_target", "read_targets", "template"]

MAX_TEXT = 16 << 20  # bytes; -dump-vmstate has 0.9 MB, a CPUID dump of 192 CPUs 2.6 MB
MAX_FILES = 64  # of one command, including those in TOML files
MAX_DOCUMENTS = 10_000
KINDS = (
    "a TOML file, a migration stream saved by the target, -dump-vmstate JSON, a QMP reply, a CPUID dump, "
    "partition properties of MSHV, a built-in layout, a version of QEMU (7.2), a machine type or an accelerator"
)
TEMPLATE = "template.toml"


def read_targets(specs: list[str], note: Callable[[str], None] = lambda path: None) -> Target:
    """Read the arguments of ``--target`` and join them; a later one overrides, see :func:`~.reference.merge`.

    What follows from the version is added where nothing better is known. ``note`` is called with each file read.
    """
    if not specs:
        raise UsageError("no target (--target T)", expected=KINDS)
    reader = _Reader(note)
    joined = merge(*(reader.read(spec, Path()) for spec in specs))
    if joined.machine is not None:
        joined = replace(joined, machine=resolve(joined.machine, joined.qemu, reader.machines))
    if joined.qemu is not None and is_x86(joined) is not False:
        joined = replace(merge(target_from_version(joined.qemu), joined), name=joined.name)
    if joined.sections is not None:
        joined = replace(joined, sections={**live_sections(joined.qemu), **joined.sections})
    return _without_absent(with_vcpus(joined))


def template() -> str:
    """Return a TOML file that has every key, with its meaning."""
    return resources.files("qmigtool.preflight.target").joinpath(TEMPLATE).read_text(encoding="utf-8")


def _without_absent(target: Target) -> Target:
    """Remove the sections that are declared absent."""
    if not target.absent:
        return target
    if target.sections is None:
        raise UsageError(
            "absent names sections, but the sections of the target are not known", expected="a reference stream"
        )
    for name, instance in target.absent:
        if (name, instance) not in target.sections:
            near = difflib.get_close_matches(name, {key[0] for key in target.sections}, n=4)
            raise UsageError(
                f"absent has {name[:64]!r}@{instance}, which the target does not have", expected=", ".join(near) or None
            )
    left = {key: section for key, section in target.sections.items() if key not in target.absent}
    return replace(target, sections=left, absent=())


def read_target(spec: str, note: Callable[[str], None] = lambda path: None) -> Target:
    """Read one target: a file or a word of any of the kinds in :data:`KINDS`.

    Raises :class:`~qmigtool.errors.UsageError` for any other input, the errors of the reader of its kind for broken
    input, and :class:`OSError`.
    """
    return read_targets([spec], note)


class _Reader:
    """Reads files and counts them: a TOML file may name others, within limits."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._left = MAX_FILES
        self._open: list[Path] = []
        self.machines: list[str] = []
        """The machine types found in streams and dumps."""

    def read(self, spec: str, folder: Path) -> Target:
        if "\0" in spec:
            raise UsageError("a file name has a NUL byte")
        path, choice = folder / spec, None
        if not path.exists():
            file, choice = split_choice(spec)
            path = folder / file
        if not path.exists():
            named = _named(spec)
            if named is not None:
                return named
            if "/" not in spec and ("." not in spec or folder == Path()):
                words = (*layout_names(), *NAMES, "pc", "q35", "microvm")
                close = difflib.get_close_matches(spec.lower(), words, n=4, cutoff=0.6)
                near = f" (close to it: {', '.join(close)})" if close else ""
                raise UsageError(f"neither a file nor another kind of target: {spec[:64]!r}{near}", expected=KINDS)
        self._left -= 1
        if self._left < 0:
            raise UsageError(f"the targets name more than {MAX_FILES} files")
        self._note(str(path))
        try:
            return self._file(path, choice)
        except QmigError as error:
            error.file = error.file or str(path)
            raise

    def _named_by(self, toml: Path, spec: str) -> Target:
        """Read a file that a TOML file names; an error in it names both files."""
        try:
            return self.read(spec, toml.parent)
        except OSError as error:
            raise UsageError(
                f"files: {spec[:200]}: {error.strerror or error}", expected="a file in the same folder"
            ) from None
        except QmigError as error:
            error.file = f"{toml}: files: {error.file or spec[:200]}"
            raise

    def _file(self, path: Path, choice: str | None = None) -> Target:
        with FileSource(path) as file:
            raw, sure = text_of(file, MAX_TEXT), is_stream(bytes(file.whole[:HEAD]))
        if raw is None:
            return self._stream(path, choice, sure=sure)
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UsageError("neither text nor a migration stream", expected=KINDS) from None
        if choice is not None:
            return _from_cpuid(text, path.name, choice)
        return self._text(text, path)

    def _stream(self, path: Path, snapshot: str | None = None, *, sure: bool) -> Target:
        """Read a reference stream; ``snapshot`` names a snapshot of a qcow2 image."""
        try:
            with open_stream(path, snapshot=snapshot) as stream:
                return self._seen(target_from_stream(stream, path.name))
        except SnapshotsError as error:
            named = ", ".join(f"{path.name}#{one['name'] or one['id']}" for one in error.snapshots[:4])
            raise UsageError(error.message, expected=f"one of {named}") from None
        except StreamError:
            if sure:
                raise
            raise UsageError("neither text nor a migration stream", expected=KINDS) from None

    def _text(self, text: str, path: Path) -> Target:
        name = path.name
        if text.lstrip().startswith(("{", "[")) and not parse_cpuid_rows(text):
            documents = _documents(text)
            if documents is not None:
                return self._seen(_from_json(documents, name))
        if parse_cpuid_rows(text, name=name):
            return _from_cpuid(text, name)
        properties = properties_of_text(text)
        try:
            table = parse_toml(text, "it")
        except UsageError as error:
            if properties:
                return target_from_properties(properties, name)
            if path.suffix != ".toml":
                instead = name_only(text)
                if instead is not None:
                    raise UsageError(
                        f"it does not describe a target: {instead.what}", expected=instead.give or KINDS
                    ) from None
                error.expected = KINDS
            raise
        if properties and not table.keys() & KEYS.keys():
            return target_from_properties(properties, name)
        if not table:
            raise UsageError("it does not describe a target", expected=KINDS)
        if path.resolve() in self._open:
            raise UsageError("it names itself", expected="other files")
        self._open.append(path.resolve())
        try:
            return target_from_table(table, name, lambda file: self._named_by(path, file))
        finally:
            self._open.pop()

    def _seen(self, target: Target) -> Target:
        if target.machine is not None:
            self.machines.append(target.machine)
        return target


def _from_cpuid(text: str, name: str, cpu: str | None = None) -> Target:
    how = f"{name}, a CPUID dump"
    reason = no_xsave(text, name)
    if reason is not None:
        how = f"{name}, a CPU without XSAVE ({reason})"
        target = _without_xsave(name, how)
    else:
        target = target_from_layout(parse_cpuid_dump(text, name, cpu=cpu), how)
    flags = features_of_dump(text, cpu)
    if flags is None:
        return target
    return replace(target, cpuid_flags=flags, evidence={**target.evidence, "cpuid_flags": how})


def _without_xsave(name: str, how: str) -> Target:
    """Return a target that can hold only the components of FXSAVE."""
    return Target(name=name, xcr0=LEGACY_MASK, xss=0, evidence=dict.fromkeys(("xcr0", "xss"), how))


def _named(spec: str) -> Target | None:
    """Return the target that a name alone denotes, or None."""
    version = parse_version(spec)
    if version is not None:
        return Target(name=f"QEMU {spec}", qemu=version, evidence={"qemu": "given"})
    if without_xsave(spec):
        return _without_xsave(spec, f"QEMU's CPU model {spec}")
    if is_layout_name(spec):
        return target_from_layout(find_layout(spec), "a built-in layout")
    if spec in NAMES:
        return Target(name=spec, accelerator=spec, evidence={"accelerator": "given"})
    if is_machine(spec):
        return Target(name=spec, machine=spec, evidence={"machine": "given"})
    return None


# -- JSON ------------------------------------------------------------------------------------------------------------


def _refuse(token: str) -> Any:
    raise ValueError(f"a number {token[:32]!r}")


def _documents(text: str) -> list[Any] | None:
    """Return the JSON documents of a text, such as the output of a QMP session; None if it is not JSON."""
    make_room(text)
    decoder = json.JSONDecoder(parse_constant=_refuse)
    found: list[Any] = []
    at = 0
    try:
        while at < len(text):
            while at < len(text) and text[at].isspace():
                at += 1
            if at < len(text):
                document, at = decoder.raw_decode(text, at)
                found.append(document)
            if len(found) > MAX_DOCUMENTS:
                raise LimitError("too many JSON documents", expected=f"at most {MAX_DOCUMENTS}")
    except (ValueError, RecursionError):
        return None
    return found


def _from_json(documents: list[Any], name: str) -> Target:
    parts = [part for document in documents for part in _from_document(document, name)]
    if not parts:
        raise StreamError(
            "JSON that does not describe a target",
            expected="-dump-vmstate, replies to query-cpu-model-expansion, query-version or "
            "query-migrate-capabilities, or partition properties",
        )
    return replace(merge(*parts), name=name)


def _from_document(document: Any, name: str) -> Iterator[Target]:
    """Yield the targets of one document; a greeting, an event or the reply to another command has none."""
    if isinstance(document, dict):
        if MACHINE_KEY in document:
            yield target_from_dump(document, name)
            return
        if "QMP" in document:
            document = document["QMP"].get("version") if isinstance(document["QMP"], dict) else None
        elif "return" in document:
            document = document["return"]
    if isinstance(document, list):
        switches = _switches(document)
        if switches:
            evidence = {"capabilities": f"{name}, query-migrate-capabilities"}
            yield Target(name=name, capabilities=switches, evidence=evidence)
    if not isinstance(document, dict):
        return
    if isinstance(document.get("model"), dict):
        yield target_from_expansion(document, name)
    version = document.get("qemu")
    if isinstance(version, dict):
        yield _from_qmp_version(version, name)
    properties = properties_of_table(document)
    if properties:
        yield target_from_properties(properties, name)


def _from_qmp_version(version: dict[str, Any], name: str) -> Target:
    numbers = [version.get(part) for part in ("major", "minor", "micro")]
    if not all(type(number) is int and 0 <= number < 1000 for number in numbers):
        raise StreamError(f"the version is {str(version)[:60]}", expected='"major", "minor" and "micro"')
    found = tuple(number for number in numbers if isinstance(number, int))
    return Target(name=name, qemu=found, evidence={"qemu": f"{name}, QMP's version {version_text(found)}"})


def _switches(reply: list[Any]) -> dict[str, bool]:
    return {
        one["capability"]: one["state"]
        for one in reply
        if isinstance(one, dict) and isinstance(one.get("capability"), str) and type(one.get("state")) is bool
    }
