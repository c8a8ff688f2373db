"""Progress of long work: the code that does it reports it, and a :class:`Reporter`, if there is one, shows it.

Code announces a :func:`task` and then reports what is done (:func:`advance`, :func:`reach`). Without a reporter, as in
Python, that is cheap and shows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Reporter", "Task", "advance", "reach", "reporter", "reporting", "task"]


@dataclass(slots=True)
class Task:
    """A piece of work: ``done`` of ``total`` (None: not known), in bytes, or in ``unit``."""

    name: str
    total: int | None
    unit: str | None
    done: int = 0


class Reporter(Protocol):
    """Shows tasks; nested tasks come last."""

    tasks: list[Task]

    def update(self) -> None:
        """Show the tasks, if it is time to."""

    def clear(self) -> None:
        """Clear the display: other output follows, or the work is done."""

    def stop(self) -> None:
        """Stop showing: another program has the terminal."""


_REPORTER: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Have ``reporter`` show the tasks of the block."""
    token = _REPORTER.set(reporter)
    try:
        yield
    finally:
        _REPORTER.reset(token)
        reporter.clear()


def reporter() -> Reporter | None:
    """Return the current reporter."""
    return _REPORTER.get()


@contextmanager
def task(name: str, total: int | None = None, unit: str | None = None) -> Iterator[None]:
    """Announce a task for the block: ``name`` as in "reading", ``total`` bytes, or units (``unit``: files)."""
    shown = _REPORTER.get()
    if shown is None:
        yield
        return
    one = Task(name, total, unit)
    shown.tasks.append(one)
    shown.update()
    try:
        yield
    finally:
        shown.tasks.remove(one)
        if not shown.tasks:
            shown.clear()


def advance(amount: int) -> None:
    """Report that this much more of the task is done."""
    shown = _REPORTER.get()
    if shown is not None and shown.tasks:
        shown.tasks[-1].done += amount
        shown.update()


def reach(done: int) -> None:
    """Report how much of the task is done."""
    shown = _REPORTER.get()
    if shown is not None and shown.tasks:
        shown.tasks[-1].done = done
        shown.update()
