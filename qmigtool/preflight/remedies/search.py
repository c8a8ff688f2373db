"""The command that fixes a stream for a target: fix and predict again, until the stream loads.

Each step gets a fix of the first refusal from :mod:`.fixes`, makes all edits so far on the original stream, reads the
result and predicts again. Nothing is written except a temporary file.
"""

from __future__ import annotations

import io
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qmigtool.errors import LiveStateError, QmigError
from qmigtool.findings import Severity
from qmigtool.parsers.source import FileSource
from qmigtool.preflight.losses.accelerator import CONVERSION
from qmigtool.preflight.losses.find import MISSING_PAGES, MISSING_VCPU, Losses, find_losses
from qmigtool.preflight.remedies.bodyfields import fields
from qmigtool.preflight.remedies.fix import Fix, edit
from qmigtool.preflight.remedies.fixes import PLANNERS
from qmigtool.preflight.remedies.sections import device_of
from qmigtool.preflight.target.vcpus import vcpus_of
from qmigtool.rewrite import Rewriter
from qmigtool.rewrite.accelerators import TARGETS
from qmigtool.rewrite.edits import Edit, apply
from qmigtool.stream.opening import open_stream
from qmigtool.util.budget import portion
from qmigtool.x86.traits import TRAITS, traits_of

if TYPE_CHECKING:
    from typing import Self

    from qmigtool.findings import Finding
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["Remedy", "find_remedy"]

MAX_STEPS = 24
IN_MEMORY = 64 << 20  # bytes of a stream that is edited in memory; a larger one is written to a temporary file
MAX_TRIAL = 1 << 30  # the edits of a larger stream are not tried

NOT_TRIED = "the stream is large, so the edits were not tried: run preflight again on the result"

UNDECLARED = "undeclared-state"
KVM_COMPONENTS = frozenset({"kvm-xsave", "kvm-xcr0", "kvm-msr"})
COMPONENTS = frozenset({"xcr0-not-in-target", "component-not-in-target", "kvm-drops-registers", "undeclared-mxcsr"})


Predict = Callable[["Stream", "Target"], "Verdict"]


@dataclass(frozen=True, slots=True)
class Remedy:
    """The fix of a stream for a target.

    ``words`` are the words of a command, none if no edit is known (or needed). ``options`` are options of the target's
    QEMU, or actions on the target, that replace edits; ``needed`` are those without which the stream does not load.
    ``loses`` lists what the command loses, ``guesses`` the assumptions that nothing in the stream confirms.
    ``verdict`` and ``losses`` are predicted for the result, None if it was not tried; ``why`` is what remains, or why
    no fix is proposed.
    """

    words: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    options: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()
    verdict: Verdict | None = None
    losses: Losses | None = None
    why: str = ""

    @property
    def command(self) -> str | None:
        """The command, quoted for a shell, or None."""
        return shlex.join(self.words) if self.words else None

    @property
    def saved_by(self) -> str | None:
        """The accelerator that the command's output is for; later commands may not be able to detect it."""
        names = [str(one.parameters["name"]) for one in self.edits if one.op == "to-accelerator"]
        return names[-1] if names else None


def find_remedy(stream: Stream, target: Target, verdict: Verdict, losses: Losses, predict: Predict) -> Remedy | None:
    """Return the fix of a stream, or None if there is nothing to fix.

    ``verdict`` and ``losses`` are those of the unedited stream, ``predict`` is the function that returned ``verdict``.
    """
    lost = any(one.severity is not Severity.NOTE for one in losses.findings)
    if verdict.loads is not False and not lost:
        return None
    if stream.problems:
        return Remedy(why="the stream is broken and cannot be edited")  # the caller reports its problems
    with _Search(stream, target, predict) as search:
        search.convert(verdict, losses.findings)
        return search.run(verdict, losses)


class _Search:
    """Fixes found so far, and the target with the options among them."""

    def __init__(self, stream: Stream, target: Target, predict: Predict) -> None:
        self.stream, self.target, self.predict = stream, target, predict
        self.fixes: list[Fix] = []
        self.extra: tuple[str, ...] = ()
        self.lossy = False
        self.rewriter_losses: tuple[str, ...] = ()
        self._made = ExitStack()  # closes the edited stream
        self._edited: Stream | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._made.close()

    # -- one fix for all requirements of an accelerator --------------------------------------------------------------

    def convert(self, verdict: Verdict, findings: Sequence[Finding]) -> None:
        """Convert the state to the target's accelerator if something is lost or refused without the conversion."""
        name, source = self.target.accelerator, self.stream.accelerator.name
        if any(one.rule == UNDECLARED for one in findings) and (source not in TRAITS or TRAITS[source].declares):
            self.fixes = [edit("repair", "xstate-bv", what="xstate-bv")]  # the conversion declares what TCG does not
        if name not in TARGETS or source not in TRAITS:
            return
        rules = {one.rule for one in findings} & CONVERSION
        foreign = verdict.rule == "unknown-section" and verdict.section in TRAITS[source].sections
        parts = verdict.rule in KVM_COMPONENTS or any(one.rule in COMPONENTS for one in findings)
        if not parts and (source == name or not (rules or foreign)):
            return
        self.extra = () if self.target.xcr0 is None else ("--xcr0", f"{self.target.xcr0:#x}")
        parameters = {"name": name} | ({} if self.target.xcr0 is None else {"xcr0": f"{self.target.xcr0:#x}"})
        fix = Fix(("--to-accelerator", name), (Edit("to-accelerator", parameters),))
        # Drop what the target cannot hold: between accelerators, or where KVM would otherwise refuse more than that.
        for lossy in (False, True) if source != name or traits_of(name).kernel else (False,):
            rewriter = Rewriter(self.stream, lossy=lossy)
            try:
                apply(rewriter, fix.edits[0])
            except LiveStateError:
                continue
            except QmigError:
                break
            if rewriter.changes:
                self.fixes, self.lossy = [*self.fixes, fix], lossy
                self.rewriter_losses = tuple(rewriter.losses)
            return
        self.extra = ()

    # -- one after the other -----------------------------------------------------------------------------------------

    def run(self, verdict: Verdict, losses: Losses) -> Remedy:
        """Add fixes until the result loads, or no more fix is known."""
        why = "" if self._tries else NOT_TRIED
        if self.fixes and not why:
            verdict, losses, why = self._again(verdict, losses)
        while verdict.loads is False and len(self.fixes) < MAX_STEPS and (not why or not self.fixes):
            fix, reason = self._plan(verdict)
            if fix is None or fix in self.fixes:
                why = reason or f"no known edit fixes this: {_words(verdict)}"
                break
            self.fixes.append(fix)
            if not fix.edits and fix.target is None:
                why = "the target with these options is unknown: run preflight again with it"
                break
            self.target = fix.target or self.target
            if self._tries:
                verdict, losses, why = self._again(verdict, losses)
                if why:
                    self.fixes.pop()
                    break
        return self._remedy(verdict, losses, why)

    @property
    def _tries(self) -> bool:
        return (self.stream.size or 0) <= MAX_TRIAL

    def _plan(self, verdict: Verdict) -> tuple[Fix | None, str]:
        """Return the fix of a refusal, or why there is none."""
        stream, planner = self._edited or self.stream, PLANNERS.get(verdict.rule or "")
        try:
            fix = None if planner is None else planner(stream, self.target, verdict)
            if fix is None:
                # A body with one field more or less than the target expects is misread from there on.
                device = device_of(stream, verdict)
                fix = None if device is None else fields(stream, self.target, device)
            return fix, ""
        except QmigError as error:
            return None, str(error)

    def _again(self, verdict: Verdict, losses: Losses) -> tuple[Verdict, Losses, str]:
        """Make the edits and predict for the result; each try has the time and memory budget of a command."""
        with portion():
            return self._try(verdict, losses)

    def _try(self, verdict: Verdict, losses: Losses) -> tuple[Verdict, Losses, str]:
        self._made.close()
        self._edited = None
        try:
            self._edited = self._made.enter_context(self._edit())
            found = find_losses(self._edited, self.target)
            if not any(one.rule == MISSING_PAGES for one in losses.findings):
                # A block was made larger: the guest never had the pages beyond its old end.
                found = found._replace(findings=tuple(one for one in found.findings if one.rule != MISSING_PAGES))
            return self.predict(self._edited, self.target), found, ""
        except QmigError as error:
            return verdict, losses, f"the edits cannot be made: {error}"
        except OSError as error:
            return verdict, losses, f"the edits were not tried: {error.strerror or error}"  # such as no space

    @property
    def _edits(self) -> list[Edit]:
        return [one for fix in self.fixes for one in fix.edits]

    @contextmanager
    def _edit(self) -> Iterator[Stream]:
        """Open the stream with all edits so far."""
        if not self._edits:
            yield self.stream
            return
        rewriter = Rewriter(self.stream, lossy=self.lossy)
        for one in self._edits:
            apply(rewriter, one)
        splices = rewriter.splices()
        accelerator = rewriter.draft.accelerator
        known = accelerator if accelerator in TRAITS else None
        schema = self.stream.schema if self.stream.schema_name else None
        if (self.stream.size or 0) <= IN_MEMORY:
            memory = io.BytesIO()
            rewriter.write(memory, splices)
            with open_stream(memory.getvalue(), accelerator=known, schema=schema) as stream:
                yield stream
            return
        with tempfile.TemporaryFile(prefix="qmigtool-preflight-") as file:
            rewriter.write(file, splices)
            file.flush()
            with open_stream(FileSource.of_open_file(file.fileno()), accelerator=known, schema=schema) as stream:
                yield stream

    def _remedy(self, verdict: Verdict, losses: Losses, why: str) -> Remedy:
        words = [word for fix in self.fixes for word in fix.words]
        edits = self._edits
        given = dict.fromkeys(option for fix in self.fixes for option in fix.options)
        if any(one.rule == MISSING_VCPU for one in losses.findings):
            given[f"-smp {len(vcpus_of(self.stream))}"] = None
        needed = dict.fromkeys(option for fix in self.fixes if not fix.edits for option in fix.options)
        loses = (*self.rewriter_losses, *(loss for fix in self.fixes for loss in fix.loses))
        command: tuple[str, ...] = ()
        if words and (why in ("", NOT_TRIED) or verdict.loads is not False):
            more = (*self.extra, *(["--lossy"] if self.lossy else []))
            if self.stream.accelerator.given and any(one.op == "to-accelerator" for one in edits):
                more = (*more, "--accelerator", self.stream.accelerator.name)
            command = ("qmigtool", "rewrite", _file(self.stream), *words, *more, "-o", "OUT")
        tried = bool(self.fixes) and not why
        return Remedy(
            words=command,
            edits=tuple(edits) if command else (),
            options=tuple(option for option in given if option not in needed),
            needed=tuple(needed),
            loses=loses if command else (),
            guesses=tuple(dict.fromkeys(guess for fix in self.fixes for guess in fix.guesses)),
            verdict=verdict if tried else None,
            losses=losses if tried else None,
            why=why or _remaining(verdict, losses, bool(self.fixes)),
        )


def _words(verdict: Verdict) -> str:
    """Return QEMU's error message, or the rule."""
    return verdict.errors[0] if verdict.errors else str(verdict.rule)


def _remaining(verdict: Verdict, losses: Losses, fixed: bool) -> str:
    if verdict.loads is False:
        return f"it would still not load: {_words(verdict)}"
    said = ["whether the result loads cannot be decided"] if verdict.loads is None else []
    grave = ", ".join(dict.fromkeys(one.rule for one in losses.findings if one.severity is not Severity.NOTE))
    if grave:
        said.append(f"no edit fixes the rest: {grave}" if fixed else f"no edit fixes this: {grave}")
    return "; ".join(said)


def _file(stream: Stream) -> str:
    """Return the name of the input as a command accepts it."""
    name = stream.input
    if name.startswith(("<", "/dev/fd/")):
        return "FILE"
    return f"./{name}" if name.startswith("-") else name
