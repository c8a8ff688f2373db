"""Limits on the work of one command: seconds of processor time, memory held, bytes spooled, values created.

The file decides how much work it takes to read, so all work is limited: decompressing, reading sections, fitting
schemas, decoding fields, printing. There is one :class:`Budget` at a time, that of the command (or, in Python, of the
``with`` block of :func:`limited`); code that does such work gets it from :func:`current` and charges it. Outside such a
block every operation has its own budget with the default :class:`Limits`.

The defaults grow with the inputs: a file of some GB that QEMU wrote in a minute may take a while to read. An input
counts by the space it occupies on disk, because a hole costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import NoReturn

from qmigtool.errors import BudgetError

__all__ = ["FIELD_BYTES", "Budget", "Limits", "current", "ensured", "limited", "portion"]

FREE = 16 << 20
"""Input bytes within which the limits are those of :class:`Limits`; they grow with larger inputs."""

BYTES_PER_SECOND = 1 << 20  # of input beyond FREE: a compressed file of zeros takes 1.7 s for each MiB
BYTES_PER_OBJECT = 12  # of input beyond FREE: a vCPU with AMX has 1000 values in 20 KiB, and JSON prints all
BYTES_PER_HELD = 8  # of input beyond FREE: where zero and other pages alternate, 448 are held for 4 KiB of input
SPOOL_RATIO = 16  # bytes of a stream for each compressed byte; zeros are holes, and not counted
STEPS = 2  # steps of fitting schemas for each allowed value: about half of their time
VCPU_BYTES_PER_SECOND = 1 << 18  # of vCPUs: 1024 have 2 to 12 MB, and cost 3 s to be checked
VCPU_BYTES_PER_OBJECT = 5  # of vCPUs; as with seconds, at most as much again: more than 1024 are a large input
FIELD_BYTES = 256
"""The memory of a decoded field, including its name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an operation.

    ``seconds`` of processor time; ``memory`` in bytes: kept while it runs, or needed by a decompressor at once;
    ``spool`` in bytes of temporary files, holes not counted; ``objects``: values that are decoded, printed or compared
    one by one (16 elements of an array of numbers are one), and the items of a stream: 40 for each section with a
    header, 2 for any other; what fits schemas to bodies is bounded with them. With ``grow`` all limits are larger
    for large inputs.
    """

    seconds: float = 6.0
    memory: int = 160 << 20
    spool: int = 2 << 30
    objects: int = 600_000
    grow: bool = True


OPTIONS = {one.name: f"--max-{one.name}" for one in fields(Limits)} | {"steps": "--max-objects"}
WORDS = {
    "seconds": "{:g} seconds of processor time",
    "memory": "{} bytes of memory",
    "spool": "{} bytes of temporary files",
    "objects": "{} values",
    "steps": "{} steps",
}


class Budget:
    """The remainder of some :class:`Limits`; every method raises :class:`~qmigtool.errors.BudgetError` beyond them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.exceeded: BudgetError | None = None
        self._input = 0  # bytes
        self._vcpus = 0  # bytes
        self._spent = {"memory": 0, "spool": 0, "objects": 0, "steps": 0}
        self._seconds = 0.0
        # Processor time is that of the thread: other threads do not count.
        self._thread = threading.get_ident()
        self._since = time.thread_time()

    def admit(self, size: int) -> None:
        """Record an input of ``size`` bytes: large ones raise the limits."""
        self._input += size

    def earn(self, size: int) -> None:
        """Record the vCPUs of a stream, of ``size`` bytes in all: they need more decoding, comparing and checking."""
        self._vcpus += size

    def limit(self, what: str) -> float:
        """Return the limit of ``seconds``, ``memory``, ``spool``, ``objects`` or ``steps`` for the inputs so far."""
        if what == "steps":
            return STEPS * self.limit("objects")
        base: float = getattr(self.limits, what)
        if not self.limits.grow:
            return base
        more = max(0, self._input - FREE)
        growth = {
            "seconds": more / BYTES_PER_SECOND + min(base, self._vcpus / VCPU_BYTES_PER_SECOND),
            "memory": more // BYTES_PER_HELD,
            "objects": more // BYTES_PER_OBJECT + min(base, self._vcpus // VCPU_BYTES_PER_OBJECT),
            "spool": more * SPOOL_RATIO,
        }
        return base + growth.get(what, 0)

    @property
    def seconds(self) -> float:
        """The processor time used so far."""
        thread, now = threading.get_ident(), time.thread_time()
        if thread == self._thread:
            self._seconds += now - self._since
        self._thread, self._since = thread, now
        return self._seconds

    def tick(self, offset: int | None = None, section: str | None = None) -> None:
        """Check that there is time left; costs less than a microsecond."""
        if self.seconds > self.limit("seconds"):
            self.refuse("seconds", "reading it takes more than", offset, section)

    def charge(self, what: str, amount: int, offset: int | None = None, section: str | None = None) -> None:
        """Charge some ``memory``, ``spool``, ``objects`` or ``steps``."""
        self._spent[what] += amount
        if self._spent[what] > self.limit(what):
            self.refuse(what, "reading it takes more than", offset, section)

    def release(self, what: str, amount: int) -> None:
        """Return what was charged."""
        self._spent[what] -= amount

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Return the memory charged in the block if it fails: then its objects are not kept."""
        before = self._spent["memory"]
        try:
            yield
        except BaseException:
            self._spent["memory"] = before
            raise

    def ask(self, what: str, amount: int, words: str, offset: int | None = None, section: str | None = None) -> None:
        """Check in advance whether one operation may cost this much; ``words``: "it has 5 values"."""
        if amount > self.limit(what):
            self.refuse(what, f"{words}, which is more than", offset, section)

    def refuse(self, what: str, words: str, offset: int | None = None, section: str | None = None) -> NoReturn:
        """Raise the error for an exceeded limit: ``words`` and the limit form the sentence."""
        limit = self.limit(what)
        most = WORDS[what].format(limit if what == "seconds" else int(limit))
        self.exceeded = BudgetError(what, f"{words} {most}", option=OPTIONS[what], offset=offset, section=section)
        raise self.exceeded


_CURRENT: ContextVar[Budget | None] = ContextVar("qmigtool.util.budget", default=None)


def current() -> Budget:
    """Return the current budget; outside of :func:`limited` and :func:`ensured` a new one."""
    return _CURRENT.get() or Budget()


@contextmanager
def limited(limits: Limits | None = None) -> Iterator[Budget]:
    """Limit all work in the block by these limits, in place of the current budget."""
    token = _CURRENT.set(Budget(limits))
    try:
        yield current()
    finally:
        _CURRENT.reset(token)


@contextmanager
def portion() -> Iterator[Budget]:
    """Limit the work in the block by a fresh budget with the current limits: for one of many files or trials.

    The outer budget is not charged meanwhile, and records a refusal.
    """
    around = _CURRENT.get()
    if around is None:
        with limited() as budget:
            yield budget
        return
    before = around.seconds
    with limited(around.limits) as budget:
        try:
            yield budget
        finally:
            _ = around.seconds  # so far
            around._seconds = before
            around.exceeded = around.exceeded or budget.exceeded


@contextmanager
def ensured(size: int = 0) -> Iterator[Budget]:
    """Return the current budget, or a new one for this block, with an input of ``size`` bytes."""
    budget = _CURRENT.get()
    if budget is not None:
        yield budget
        return
    with limited() as budget:
        budget.admit(size)
        yield budget
