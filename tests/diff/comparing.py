"""What the tests of comparisons share: two streams of which one was edited, and what is found."""

from collections.abc import Callable
from pathlib import Path

import qmigtool
from qmigtool.diff import Comparison, Noise, compare
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import rewritten, sample

Edits = Callable[[Rewriter], None]


def compared(
    a: Path | bytes | str, b: Path | bytes | str, *, noise: Noise | None = None, accelerator: str | None = None
) -> Comparison:
    """Compare two streams; a string is a sample's name."""
    one, other = (sample(side) if isinstance(side, str) else side for side in (a, b))
    with (
        qmigtool.open(one, accelerator=accelerator) as first,
        qmigtool.open(other, accelerator=accelerator) as second,
    ):
        return compare(first, second, noise=noise)


def edited(name: str, *edits: Edits, lossy: bool = False) -> bytes:
    """Return a sample with edits made to it."""
    return rewritten(sample(name), *edits, lossy=lossy).data


def places(found: Comparison) -> list[str]:
    """Return where the differences are that count."""
    return [difference.where for difference in found.differences]
