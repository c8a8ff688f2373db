"""The DataFrame of tables, which pandas can concatenate and write in any format.

Two properties of a plain DataFrame do not suit tables of streams. :func:`pandas.concat` makes objects of columns with
different categories, and the names in two files always differ; and a column of values has integers, texts and bytes,
which no writer with typed columns (Parquet, Feather) accepts. Both are fixed here, so that pandas' own calls work.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

__all__ = ["Frame", "encodable", "in_order"]

ORDER = "qmigtool.order"
"""In ``attrs`` of a frame: which column gives the categories of which other column their order."""


class Frame(pd.DataFrame):
    """A DataFrame that keeps its categories in :func:`pandas.concat`, and writes mixed columns as text."""

    @property
    def _constructor(self) -> Any:
        return Frame

    def __finalize__(self, other: Any, method: str | None = None, **more: Any) -> Frame:
        """Finish a new frame as pandas requires: after ``concat``, give columns the categories of all frames."""
        made: Frame = super().__finalize__(other, method=method, **more)  # type: ignore[misc] # not in the stubs
        if method == "concat":
            # pandas 3 calls them input_objs, pandas 2 objs.
            frames = getattr(other, "input_objs", None) or getattr(other, "objs", [])
            _unite(made, [one for one in frames if isinstance(one, pd.DataFrame)])
        return made

    def plain(self) -> pd.DataFrame:
        """Return a plain DataFrame without columns of mixed types: their values are text.

        Numbers are decimal, bytes hexadecimal digits; missing values stay missing.
        """
        mixed = {
            name: pd.Series(list(map(_text, self[name])), self.index, pd.StringDtype("python"))
            for name in self.columns
            if self[name].dtype == object
        }
        return pd.DataFrame(self).assign(**mixed)

    def to_parquet(self, *args: Any, **more: Any) -> Any:
        """Write a Parquet file, as :meth:`pandas.DataFrame.to_parquet` does; mixed columns as in :meth:`plain`."""
        return self.plain().to_parquet(*args, **more)

    def to_feather(self, *args: Any, **more: Any) -> None:
        """Write a Feather file, as :meth:`pandas.DataFrame.to_feather` does; mixed columns as in :meth:`plain`."""
        self.plain().to_feather(*args, **more)


def in_order(frame: Frame, order: dict[str, str]) -> Frame:
    """Order the categories of columns by the values of other columns, and have the frame remember that.

    ``order`` maps names of columns: ``{"name": "bit"}``.
    """
    for name, by in order.items():
        ranks: dict[Any, Any] = {}
        for one, rank in zip(frame[name], frame[by], strict=True):
            if not pd.isna(one):
                ranks.setdefault(one, rank)
        dtype: Any = frame[name].dtype
        names = pd.Index(sorted(ranks, key=lambda one: ranks[one]), dtype=dtype.categories.dtype)
        frame[name] = frame[name].astype(pd.CategoricalDtype(names, ordered=True))
    if order:
        frame.attrs[ORDER] = order
    return frame


def encodable(text: str) -> str:
    """Return a name for frames: bytes that are not UTF-8 are escaped (``\\xff``), for any writer."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    return None if value is pd.NA or value != value else str(value)


def _unite(made: pd.DataFrame, frames: list[pd.DataFrame]) -> None:
    """Restore the categories of columns that were categories in every frame that has them."""
    if not all(one.columns.is_unique for one in (made, *frames)):
        return
    for name in made.columns:
        had = [one[name].dtype for one in frames if name in one.columns]
        kinds = [kind for kind in had if isinstance(kind, pd.CategoricalDtype)]
        if kinds and len(kinds) == len(had) and not isinstance(made[name].dtype, pd.CategoricalDtype):
            every = list(dict.fromkeys(one for kind in kinds for one in kind.categories))
            made[name] = made[name].astype(pd.CategoricalDtype(pd.Index(every, dtype=kinds[0].categories.dtype)))
    orders = [one.attrs.get(ORDER) for one in frames]
    if orders and orders[0] is not None and all(one == orders[0] for one in orders):
        known = {name: by for name, by in orders[0].items() if {name, by} <= set(made.columns)}
        if isinstance(made, Frame):
            in_order(
                made, {name: by for name, by in known.items() if isinstance(made[name].dtype, pd.CategoricalDtype)}
            )
