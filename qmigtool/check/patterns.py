"""Regular expressions, and numbers, as a policy may write them."""

from __future__ import annotations

import re
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from qmigtool.errors import UsageError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Expression", "number", "size", "version_of"]

MAX_SECONDS = 2.0  # of processor time, for all values that an expression is held against
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,20})\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_VERSION = re.compile(r"(?:^|-)(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?$")


class _ExpiredError(Exception):
    """The time of an expression is over."""


class Expression:
    """A regular expression that a policy holds against values, for so long altogether: ``(a+)+$`` hardly ever ends.

    A search looks for signals now and then, so a timer of processor time (SIGVTALRM) can end it. Python handles signals
    in the main thread only: elsewhere nothing ends a search.
    """

    def __init__(self, pattern: str, seconds: float | None = None) -> None:
        self.pattern = pattern
        self._compiled = re.compile(pattern)
        self._left = MAX_SECONDS if seconds is None else seconds

    def found_in(self, text: str) -> bool:
        """Say whether it is found in ``text``; raises :class:`~qmigtool.errors.UsageError` when its time is over."""
        if threading.current_thread() is not threading.main_thread():
            return self._compiled.search(text) is not None
        started = time.process_time()
        try:
            if self._left <= 0:  # a timer of the system is no finer than some milliseconds
                raise _ExpiredError
            before = signal.signal(signal.SIGVTALRM, _expire)
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, max(self._left, 0.001))  # 0 would be for ever
                return self._compiled.search(text) is not None
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)
                self._left -= time.process_time() - started
        except _ExpiredError:
            raise UsageError(
                f"the regular expression {self.pattern[:60]!r} takes too long",
                expected="one that does not repeat what is repeated already, as (a+)+ does",
            ) from None


def _expire(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _ExpiredError


def number(value: Any, what: str) -> int:
    """Read a number: 743, or ``"0x2e7"``; raises :class:`~qmigtool.errors.UsageError`."""
    if isinstance(value, str):
        try:
            return int(value.replace("_", ""), 0)
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise UsageError(f"{what} is {value!r:.60}", expected='a number, such as 743 or "0x2e7"')


def size(value: Any, what: str) -> int:
    """Read a number of bytes: 65536, or ``"64K"``; raises :class:`~qmigtool.errors.UsageError`."""
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())) is not None:
        return int(found[1]) * _UNITS[found[2].upper()]
    return number(value, what)


def version_of(machine: str) -> tuple[int, int] | None:
    """Return the version at the end of a machine type (``pc-q35-7.2``) or of a text that is one, or None."""
    found = _VERSION.search(machine)
    return None if found is None else (int(found[1]), int(found[2]))
