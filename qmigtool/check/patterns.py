"""Regular expressions in policies, and the versions in machine types."""

from __future__ import annotations

import re
import time

from qmigtool.devices.machinetypes import machine_type
from qmigtool.errors import UsageError

__all__ = ["Expression", "version_of"]

MAX_SECONDS = 2.0  # for all values that an expression is applied to
MAX_PATTERN = 4096  # characters
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.[0-9]{1,4})?")


class Expression:
    """A regular expression of a policy, with a limit for the total time: ``(a+)+$`` practically never ends.

    The package ``regex`` has the syntax of Python's ``re`` and stops a search that takes too long, in any thread.
    Raises :class:`~qmigtool.errors.UsageError` for an invalid regular expression.
    """

    def __init__(self, pattern: str, seconds: float | None = None) -> None:
        # Imported here: it costs 20 ms, and few policies have expressions.
        import regex

        self.pattern = pattern
        if len(pattern) > MAX_PATTERN:
            raise UsageError(f"a regular expression of {len(pattern)} characters", expected=f"at most {MAX_PATTERN}")
        try:
            self._compiled = regex.compile(pattern)
        # Too deep nesting and too many repetitions raise other exceptions.
        except (regex.error, OverflowError, RecursionError, ValueError, MemoryError) as error:
            raise UsageError(f"{pattern[:60]!r} is not a regular expression: {error}") from None
        self._left = MAX_SECONDS if seconds is None else seconds

    def found_in(self, text: str) -> bool:
        """Return whether it is found in ``text``; raises :class:`~qmigtool.errors.UsageError` after its time limit."""
        started = time.monotonic()
        try:
            if self._left <= 0:
                raise TimeoutError
            return self._compiled.search(text, timeout=self._left, concurrent=True) is not None
        except TimeoutError:
            raise UsageError(
                f"the regular expression {self.pattern[:60]!r} takes too long",
                expected="one without nested repetitions such as (a+)+",
            ) from None
        finally:
            self._left -= time.monotonic() - started


def version_of(machine: str) -> tuple[int, int] | None:
    """Return the version at the end of a machine type (``pc-q35-7.2``) or of a text that is one, or None."""
    named = machine_type(machine)
    if named is not None and not named.vendor:
        return named.release
    found = _VERSION.fullmatch(machine)
    return None if found is None else (int(found[1]), int(found[2]))
