"""A cache that keeps the most recent values only."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(dict[K, V]):
    """A dictionary of at most ``size`` keys: setting one more drops the one that was set first.

    It bounds what is derived for each item of a file, when the file has any number of items.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def __setitem__(self, key: K, value: V) -> None:
        if key not in self and len(self) >= self._size:
            del self[next(iter(self))]
        super().__setitem__(key, value)
