"""How much one command may cost: seconds of processor time, memory held, bytes spooled, values made.

A file decides how much work reading it is, so the work is bounded, whoever does it: unpacking, reading sections,
fitting schemas, decoding fields, printing. There is one :class:`Budget` at a time, that of the command (or, in Python,
of the ``with`` block of :func:`limited`); who works asks :func:`current` for it and charges it. Outside such a block
every operation gets a budget of its own with the default :class:`Limits`.

The defaults grow with the inputs: a file of some GB that took QEMU a minute to write may take a while to read. What is
counted of an input is what it occupies on disk, because a hole costs nobody anything.
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

__all__ = ["FIELD_BYTES", "Budget", "Limits", "current", "ensured", "limited"]

FREE = 32 << 20
"""Bytes of the inputs for which the limits are what :class:`Limits` says; they grow with what is more."""

BYTES_PER_SECOND = 1 << 20  # of input beyond FREE: a packed file of zeros takes 1.7 s for each MiB
BYTES_PER_OBJECT = 64  # of input beyond FREE
SPOOL_RATIO = 16  # bytes of a stream for each byte of its packed form; zeros are holes, and not counted
FIELD_BYTES = 256
"""What a decoded field holds in memory, its name included."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operation may cost.

    ``seconds`` of processor time; ``memory`` in bytes: what is kept while it runs, and what unpacking asks for at once;
    ``spool`` in bytes of temporary files, holes not counted; ``objects``: values that are decoded, printed or compared
    one by one (16 elements of an array of numbers are one), and sections of device state. With ``grow`` the limits of
    seconds, objects and spool are larger for large inputs.
    """

    seconds: float = 7.0
    memory: int = 160 << 20
    spool: int = 2 << 30
    objects: int = 1_000_000
    grow: bool = True


OPTIONS = {one.name: f"--max-{one.name}" for one in fields(Limits)}
WORDS = {
    "seconds": "{:g} seconds of processor time",
    "memory": "{} bytes of memory",
    "spool": "{} bytes of temporary files",
    "objects": "{} values",
}


class Budget:
    """What is left of some :class:`Limits`; every method raises :class:`~qmigtool.errors.BudgetError` beyond them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.exceeded: BudgetError | None = None
        self._input = 0  # bytes
        self._spent = {"memory": 0, "spool": 0, "objects": 0}
        self._seconds = 0.0
        # Processor time is the thread's: what other threads do is theirs.
        self._thread = threading.get_ident()
        self._since = time.thread_time()

    def admit(self, size: int) -> None:
        """Take note of an input of ``size`` bytes: large ones may cost more."""
        self._input += size

    def limit(self, what: str) -> float:
        """Return the limit of ``seconds``, ``memory``, ``spool`` or ``objects`` for the inputs so far."""
        base: float = getattr(self.limits, what)
        if not self.limits.grow:
            return base
        more = max(0, self._input - FREE)
        growth = {"seconds": more / BYTES_PER_SECOND, "objects": more // BYTES_PER_OBJECT, "spool": more * SPOOL_RATIO}
        return base + growth.get(what, 0)

    @property
    def seconds(self) -> float:
        """The processor time so far."""
        thread, now = threading.get_ident(), time.thread_time()
        if thread == self._thread:
            self._seconds += now - self._since
        self._thread, self._since = thread, now
        return self._seconds

    def share(self) -> float:
        """Return which part of the processor time is spent: 1 is all of it."""
        return self.seconds / self.limit("seconds")

    def tick(self, offset: int | None = None, section: str | None = None) -> None:
        """Ask whether there is time left; costs less than a microsecond."""
        if self.seconds > self.limit("seconds"):
            self.refuse("seconds", "reading it takes more than", offset, section)

    def charge(self, what: str, amount: int, offset: int | None = None, section: str | None = None) -> None:
        """Spend some ``memory``, ``spool`` or ``objects``."""
        self._spent[what] += amount
        if self._spent[what] > self.limit(what):
            self.refuse(what, "reading it takes more than", offset, section)

    def release(self, what: str, amount: int) -> None:
        """Give back what was spent."""
        self._spent[what] -= amount

    def ask(self, what: str, amount: int, words: str, offset: int | None = None, section: str | None = None) -> None:
        """Ask beforehand whether one thing may cost so much; ``words``: "it has 5 values"."""
        if amount > self.limit(what):
            self.refuse(what, f"{words}, which is more than", offset, section)

    def refuse(self, what: str, words: str, offset: int | None = None, section: str | None = None) -> NoReturn:
        """Say that it is more than is allowed: ``words`` and the limit make the sentence."""
        limit = self.limit(what)
        most = WORDS[what].format(limit if what == "seconds" else int(limit))
        self.exceeded = BudgetError(what, f"{words} {most}", option=OPTIONS[what], offset=offset, section=section)
        raise self.exceeded


_CURRENT: ContextVar[Budget | None] = ContextVar("qmigtool.budget", default=None)


def current() -> Budget:
    """Return the budget that counts here; outside of :func:`limited` and :func:`ensured` a new one."""
    return _CURRENT.get() or Budget()


@contextmanager
def limited(limits: Limits | None = None) -> Iterator[Budget]:
    """Bound what is done in the block, altogether, instead of any budget that counted before."""
    token = _CURRENT.set(Budget(limits))
    try:
        yield current()
    finally:
        _CURRENT.reset(token)


@contextmanager
def ensured(size: int = 0) -> Iterator[Budget]:
    """Give the budget that counts here, or one for this block, with an input of ``size`` bytes."""
    budget = _CURRENT.get()
    if budget is not None:
        yield budget
        return
    with limited() as budget:
        budget.admit(size)
        yield budget
