"""The document that ``preflight --json`` prints, without its ``schema``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from qmigtool.stream.info import problems_document
from qmigtool.util.text import hexadecimal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.outcome import Preflight
    from qmigtool.preflight.remedies.search import Remedy
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["preflight_document", "verifying"]


def preflight_document(
    result: Preflight, target: Target, stream: Stream | None = None, again: str | None = None
) -> dict[str, Any]:
    """Return the document, with the problems of ``stream``, or of the input that could not be opened as one.

    ``again`` is the command that checks the output of the remedy, where one is needed: :func:`verifying`.
    """
    problems: dict[str, Any] = {} if stream is None else problems_document(stream)
    if result.error is not None:
        problems = {"problems": [result.error.as_dict()]}
    return {
        "target": _target(target),
        **_verdict(result.verdict),
        "losses": [one.as_dict() for one in result.losses],
        "remedy": None if result.remedy is None else _remedy(result.remedy) | {"preflight": again},
        "unknown": [one.as_dict() for one in result.unknown],
        "doubts": [one.as_dict() for one in result.doubts],
        "notes": [one.as_dict() for one in result.verdict.notes],
        **problems,
    }


def verifying(result: Preflight, targets: Sequence[str]) -> str | None:
    """Return the command that checks the remedy's output, if it needs to know the accelerator that saved it.

    ``targets`` are the words from which the target was read.
    """
    remedy = result.remedy
    if remedy is None or remedy.saved_by is None or remedy.command is None:
        return None
    named = [word for target in targets for word in ("--target", target)]
    return shlex.join(["qmigtool", "preflight", "OUT", *named, "--accelerator", remedy.saved_by])


def _target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "qemu": None if target.qemu is None else ".".join(map(str, target.qemu)),
        "machine": target.machine,
        "accelerator": target.accelerator,
        "vcpus": target.vcpus,
        "xcr0": hexadecimal(target.xcr0),
        "xss": hexadecimal(target.xss),
        "sections": None if target.sections is None else len(target.sections),
        "evidence": dict(target.evidence),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "loads": verdict.loads,
        "rule": verdict.rule,
        "section": verdict.section,
        "offset": verdict.offset,
        "refusal": None if verdict.loads is not False else _refusal(verdict),
        "errors": list(verdict.errors),
        "warnings": list(verdict.warnings),
    }


def _refusal(verdict: Verdict) -> dict[str, Any]:
    return {
        "words": list(verdict.errors),
        "device": verdict.section,
        "offset": verdict.offset,
        "other_versions": [{"versions": who, "words": list(lines)} for who, lines in verdict.otherwise],
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "command": remedy.command,
        "words": list(remedy.words),
        "edits": [{"op": one.op, **one.parameters} for one in remedy.edits],
        "needed": list(remedy.needed),
        "options": list(remedy.options),
        "gives_up": list(remedy.loses),
        "guesses": list(remedy.guesses),
        "then": None if remedy.verdict is None else _verdict(remedy.verdict),
        "then_lost": None if remedy.losses is None else [one.as_dict() for one in remedy.losses.findings],
        "why": remedy.why or None,
    }
