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

__all__ = ["FIELD_BYTES", "Budget", "Limits", "current", "ensured", "limited", "portion"]

FREE = 16 << 20
"""Bytes of the inputs for which the limits are what :class:`Limits` says; they grow with what is more."""

BYTES_PER_SECOND = 1 << 20  # of input beyond FREE: a packed file of zeros takes 1.7 s for each MiB
BYTES_PER_OBJECT = 12  # of input beyond FREE: a vCPU with AMX has 1000 values in 20 KiB, and JSON tells all
BYTES_PER_HELD = 8  # of input beyond FREE: where zero and other pages take turns, 448 are held for 4 KiB of input
SPOOL_RATIO = 16  # bytes of a stream for each byte of its packed form; zeros are holes, and not counted
STEPS = 2  # steps of fitting schemas for each of the values that are allowed: about half of their time
VCPU_SECONDS, MAX_EARNING = 0.04, 256  # more for each vCPU, and of how many: 255 of them cost 4 s on a slow machine
FIELD_BYTES = 256
"""What a decoded field holds in memory, its name included."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operation may cost.

    ``seconds`` of processor time; ``memory`` in bytes: what is kept while it runs, and what unpacking asks for at once;
    ``spool`` in bytes of temporary files, holes not counted; ``objects``: values that are decoded, printed or compared
    one by one (16 elements of an array of numbers are one), and the items of a stream: 40 for each section with a
    header, 8 for any other; what fits schemas to bodies is bounded with them. With ``grow`` all limits are larger
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
    """What is left of some :class:`Limits`; every method raises :class:`~qmigtool.errors.BudgetError` beyond them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.exceeded: BudgetError | None = None
        self._input = 0  # bytes
        self._vcpus = 0
        self._spent = {"memory": 0, "spool": 0, "objects": 0, "steps": 0}
        self._seconds = 0.0
        # Processor time is the thread's: what other threads do is theirs.
        self._thread = threading.get_ident()
        self._since = time.thread_time()

    def admit(self, size: int) -> None:
        """Take note of an input of ``size`` bytes: large ones may cost more."""
        self._input += size

    def earn(self, vcpus: int) -> None:
        """Take note of whole vCPUs: there is more to decode, compare and judge in them than their bytes tell."""
        self._vcpus += min(vcpus, MAX_EARNING)

    def limit(self, what: str) -> float:
        """Return the limit of ``seconds``, ``memory``, ``spool``, ``objects`` or ``steps`` for the inputs so far."""
        if what == "steps":
            return STEPS * self.limit("objects")
        base: float = getattr(self.limits, what)
        if not self.limits.grow:
            return base
        more = max(0, self._input - FREE)
        seconds = more / BYTES_PER_SECOND + self._vcpus * VCPU_SECONDS
        growth = {
            "seconds": seconds,
            "memory": more // BYTES_PER_HELD,
            "objects": more // BYTES_PER_OBJECT,
            "spool": more * SPOOL_RATIO,
        }
        return base + growth.get(what, 0)

    @property
    def seconds(self) -> float:
        """The processor time so far."""
        thread, now = threading.get_ident(), time.thread_time()
        if thread == self._thread:
            self._seconds += now - self._since
        self._thread, self._since = thread, now
        return self._seconds

    def tick(self, offset: int | None = None, section: str | None = None) -> None:
        """Ask whether there is time left; costs less than a microsecond."""
        if self.seconds > self.limit("seconds"):
            self.refuse("seconds", "reading it takes more than", offset, section)

    def charge(self, what: str, amount: int, offset: int | None = None, section: str | None = None) -> None:
        """Spend some ``memory``, ``spool``, ``objects`` or ``steps``."""
        self._spent[what] += amount
        if self._spent[what] > self.limit(what):
            self.refuse(what, "reading it takes more than", offset, section)

    def release(self, what: str, amount: int) -> None:
        """Give back what was spent."""
        self._spent[what] -= amount

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Give back the memory that is spent in the block if it fails: nobody then keeps what it was spent for."""
        before = self._spent["memory"]
        try:
            yield
        except BaseException:
            self._spent["memory"] = before
            raise

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


_CURRENT: ContextVar[Budget | None] = ContextVar("qmigtool.util.budget", default=None)


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
def portion() -> Iterator[Budget]:
    """Bound what is done in the block by the limits that count here, but anew: one of many files, or of many trials.

    The budget around it spends nothing meanwhile, and remembers if something was refused.
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
            _ = around.seconds  # up to now
            around._seconds = before
            around.exceeded = around.exceeded or budget.exceeded


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
