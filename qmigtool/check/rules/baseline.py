"""The rule that compares a stream with an older one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qmigtool.check.rule import Context, Options, at, finding, rule
from qmigtool.diff.model import DifferenceKind as Side
from qmigtool.errors import UsageError
from qmigtool.findings import Finding
from qmigtool.util.text import text_value

if TYPE_CHECKING:
    from qmigtool.diff import Difference

__all__ = ["RULES"]

MAX_SHOWN = 80  # characters of a value
SIZES = ("section", "bytes")  # types of a difference of a whole section: its values are numbers of bytes


@rule(
    "baseline",
    "The stream does not differ from the baseline",
    "The baseline is a stream known to be good (--baseline). Clocks and other state that differs between saves are "
    "excused; `qmigtool diff` shows them, too.",
    severity="error",
)
def baseline(context: Context, _: Options) -> Iterator[Finding]:
    if context.baseline is None:
        return
    from qmigtool.diff import compare

    found = compare(context.baseline, context.stream)
    for difference in found.differences:
        yield _finding(context, difference)
    # State that could not be compared may differ: silence would pass it.
    for words in found.undecided:
        yield finding(f"cannot be compared with the baseline: {words}")


def _finding(context: Context, difference: Difference) -> Finding:
    old, new = (_shown(difference.type, value) for value in (difference.a, difference.b))
    text = {
        Side.CHANGED: f"was {old}, is {new}",
        Side.ONLY_A: f"is missing (was {old})" if difference.a is not None else "is missing",
        Side.ONLY_B: f"is new ({new})" if difference.b is not None else "is new",
    }[difference.kind]
    # For a whole section, the text is complete.
    whole = not difference.path and difference.kind is not Side.CHANGED
    meaning = "" if whole else difference.described("the baseline", "the stream")
    message = f"{text}: {meaning}" if meaning else text
    if difference.device is not None and difference.path:
        try:
            found = at(context.stream.device(difference.device), difference.path, message)
        except UsageError:
            pass  # it is in the baseline only, or a register that no single field holds
        else:
            if found.path:
                return found
    return finding(message, difference.device, difference.path, difference.offset_b)


def _shown(type_: str, value: Any) -> str:
    if type_ in SIZES and isinstance(value, int):
        return f"{value} byte{'' if value == 1 else 's'}"
    text = text_value(type_, value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


RULES = (baseline,)
