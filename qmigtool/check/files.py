"""Check files: a report for each, and one result with the meaning of the exit status of ``qmigtool check``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qmigtool.check.engine import report, unreadable
from qmigtool.check.folder import streams_in
from qmigtool.check.policy import Policy, default_policy, load_policy
from qmigtool.check.rules.container import SUPPORTED
from qmigtool.errors import QmigError, StreamError, UsageError
from qmigtool.findings import Finding, Report, Severity
from qmigtool.findings.report import RANK, count
from qmigtool.stream.opening import open_stream
from qmigtool.util.budget import portion
from qmigtool.util.progress import advance, task

if TYPE_CHECKING:
    from qmigtool.devices.schema import Schema
    from qmigtool.stream.model import Stream

__all__ = ["CheckResult", "CheckStatus", "Opening", "baselines_of", "check_files", "files_of", "run"]

Opening: TypeAlias = Callable[[str], AbstractContextManager["Stream"]]
SHOWN = 8  # names of baselines that are missing


class CheckStatus(IntEnum):
    """The meaning of the exit status of ``qmigtool check``; the value is that status."""

    FINE = 0
    """Every file was read to its end, and no finding reached the threshold."""
    FOUND = 1
    """A finding reached the threshold."""
    NOT_OPENED = 2
    """A file could not be opened, so no rule was applied to it."""
    BROKEN = 3
    """A file, or the baseline, is broken; the rest of it was checked."""
    UNSUPPORTED = 63
    """An unsupported part was not checked; nothing else was found."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The reports about all files. ``fail_on`` is the lowest severity that makes :attr:`status` FOUND.

    ``skipped`` are the files of folders that are not streams.
    """

    reports: tuple[Report, ...]
    fail_on: Severity = Severity.WARNING
    baseline_broken: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def status(self) -> CheckStatus:
        """What the exit status of ``qmigtool check`` would be."""
        if not all(one.opened for one in self.reports):
            return CheckStatus.NOT_OPENED
        if self.baseline_broken or any(one.broken for one in self.reports):
            return CheckStatus.BROKEN
        weights = [RANK[one.severity] for one in self.findings if one.rule != SUPPORTED.id]
        if any(weight >= RANK[self.fail_on] for weight in weights):
            return CheckStatus.FOUND
        # An unsupported part was not checked, so the result cannot be FINE.
        unsupported = any(one.rule == SUPPORTED.id for one in self.findings)
        return CheckStatus.UNSUPPORTED if unsupported else CheckStatus.FINE

    @property
    def ok(self) -> bool:
        """Whether :attr:`status` is FINE."""
        return self.status is CheckStatus.FINE

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all files."""
        return tuple(finding for one in self.reports for finding in one.findings)

    def _repr_html_(self) -> str:
        from qmigtool.util.html import html_table

        parts = [one._repr_html_() for one in self.reports]
        return "\n".join([html_table(f"{self.status.name} ({self.status.value})", (), ()), *parts])

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints, without its ``schema``."""
        return {
            "files": [
                {
                    "file": one.file,
                    "opened": one.opened,
                    "broken": one.broken,
                    "rules": [rule.id for rule in one.rules],
                    "findings": [finding.as_dict() for finding in one.findings],
                }
                for one in self.reports
            ],
            "summary": {severity.value: number for severity, number in count(self.reports).items()},
        }


def run(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    policy: Policy | str | os.PathLike[str] | None = None,
    *,
    baseline: str | os.PathLike[str] | None = None,
    fail_on: Severity | str = Severity.WARNING,
    accelerator: str | None = None,
    schema: Schema | None = None,
    channels: Sequence[str | os.PathLike[str]] = (),
    snapshot: str | None = None,
    baseline_snapshot: str | None = None,
) -> CheckResult:
    """Check files as ``qmigtool check`` does; a folder means the streams in it.

    ``policy`` is a :class:`~qmigtool.check.policy.Policy` or its file (default: the default policy). ``baseline`` is a
    correct stream, or a folder with one for each file. The other options are those of :func:`qmigtool.open`, for every
    file. A file that is broken or cannot be opened is reported, not raised. Raises
    :class:`~qmigtool.errors.UsageError` for wrong options, a wrong policy, a folder without streams, a missing
    baseline, and :class:`OSError` for a policy, a baseline or a channel that cannot be opened.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files: list[str] = []
    skipped: list[str] = []
    for one in given:
        streams, others = files_of(os.fspath(one))
        files += streams
        skipped += others
    if not files:
        raise UsageError("no file to check", expected="paths of files or folders")
    if channels and len(files) > 1:
        raise UsageError("channels belong to one file", expected="one path")
    asked = default_policy() if policy is None else policy if isinstance(policy, Policy) else load_policy(policy)
    how = partial(open_stream, accelerator=accelerator, schema=schema)
    return check_files(
        files,
        asked,
        partial(how, channels=channels, snapshot=snapshot, keep_runs=True),
        baselines=baselines_of(None if baseline is None else os.fspath(baseline), files),
        opening_baseline=partial(how, snapshot=baseline_snapshot),
        fail_on=Severity(fail_on),
        skipped=skipped,
    )


def files_of(given: str) -> tuple[list[str], list[str]]:
    """Return the files of a path, and the files of a folder that are not streams.

    Raises :class:`~qmigtool.errors.UsageError` for a folder without streams.
    """
    if not Path(given).is_dir():
        return [given], []
    streams, others = streams_in(given)
    if not streams:
        raise UsageError(f"no migration stream in the folder {given!r}", expected="a folder with streams")
    return streams, others


def baselines_of(baseline: str | None, files: Sequence[str]) -> list[str | None]:
    """Return the baseline of each file: the one stream that is given, or that of its name in a folder.

    Raises :class:`~qmigtool.errors.UsageError` where the folder lacks one.
    """
    if baseline is None or not Path(baseline).is_dir():
        return [baseline] * len(files)
    found = [f"{baseline.rstrip('/')}/{Path(file).name}" for file in files]
    missing = [Path(one).name for one in found if not Path(one).is_file()]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        names = ", ".join(missing[:SHOWN])
        raise UsageError(f"no baseline in {baseline!r} for {names}{more}", expected="one of each name")
    return list(found)


def check_files(
    files: Sequence[str],
    policy: Policy,
    opening: Opening,
    *,
    baselines: Sequence[str | None],
    opening_baseline: Opening,
    fail_on: Severity = Severity.WARNING,
    skipped: Sequence[str] = (),
    told: Callable[[QmigError], None] | None = None,
) -> CheckResult:
    """Check files that ``opening`` opens, each with its baseline; ``told`` is called for one that cannot be opened.

    Each file has its share of the budget. Raises what opening a baseline raises, and
    :class:`~qmigtool.errors.UsageError` if the only file cannot be opened as the options require.
    """
    reports = []
    broken = False
    counted = task("checking", len(files), "files") if len(files) > 1 else nullcontext()
    with counted, ExitStack() as stack:
        old, opened_one = None, None
        for file, one in zip(files, baselines, strict=True):
            if one != opened_one:  # one stream for all files, or one for each
                stack.pop_all().close()
                opened_one = one
                old = None
                if one is not None:
                    with portion():
                        old = stack.enter_context(opening_baseline(one))
            reports.append(_checked(file, policy, old, opening, told, alone=len(files) == 1))
            broken = broken or (old is not None and any(isinstance(error, StreamError) for error in old.problems))
            if len(files) > 1:
                advance(1)
    return CheckResult(tuple(reports), fail_on, broken, tuple(skipped))


def _checked(
    file: str,
    policy: Policy,
    baseline: Stream | None,
    opening: Opening,
    told: Callable[[QmigError], None] | None,
    *,
    alone: bool,
) -> Report:
    """Check one file; ``alone``: it is the only one."""
    stream = None
    try:
        # A folder of any number of files costs none of them its share.
        with portion(), opening(file) as stream:
            return report(file, stream, policy, baseline=baseline)
    except UsageError as error:
        if alone or stream is not None:  # the error is about the options or the policy
            raise
        problem: QmigError = error
    except QmigError as error:  # it is not a migration stream, or of an unsupported kind
        return unreadable(file, error, policy)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) != Path(file):
            raise  # a channel or a schema
        problem = UsageError(error.strerror or str(error))
    problem.file = file
    if told is not None:
        told(problem)
    return unreadable(file, problem, policy)
