"""A comparison as rows, and as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.tables import Column, table

if TYPE_CHECKING:
    from qmigtool.diff.model import Comparison
    from qmigtool.tables import Row

__all__ = ["differences"]


@table(
    Column("device", "category", "idstr@instance; missing for properties of the whole stream"),
    Column("path", "string", "path inside the device; in brackets a name that is not a field"),
    Column("kind", "category", "changed, only in A, only in B"),
    Column("a", "object", "value in A, missing where it has none"),
    Column("b", "object", "value in B"),
    Column("offset_a", "UInt64", "byte of A where the field starts"),
    Column("offset_b", "UInt64", "byte of B where the field starts"),
    Column("meaning", "string", "description of the difference"),
    Column("topic", "category", "topic of the noise rule that matches: clock, PIT, accelerator ..."),
    Column("rule", "category", "that noise rule"),
    Column("excused", "boolean", "by the rule it does not count"),
)
def differences(comparison: Comparison) -> Iterator[Row]:
    """Every difference between two streams, those that a noise rule excuses included."""
    for d in (*comparison.differences, *comparison.excused):
        yield (
            d.device, d.path, d.kind.value, d.a, d.b, d.offset, d.offset_b,
            d.meaning, d.topic, d.rule or None, d.excused,
        )  # fmt: skip
