"""Names with ``*`` and ``?``, as in a shell; brackets are literal, since names contain brackets.

Names come from files: so a match takes time in proportion to the name, whatever the pattern.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["matches"]


def matches(pattern: str, name: str) -> bool:
    """Return whether ``name`` matches ``pattern``: ``*`` is any string, ``?`` any one character."""
    first, *rest = _pieces(pattern)
    if not rest:
        return len(first) == len(name) and _at(first, name, 0)
    last = rest[-1]
    at, end = len(first), len(name) - len(last)
    if end < at or not _at(first, name, 0) or not _at(last, name, end):
        return False
    # The first position where a piece fits is as good as any other, so there is no backtracking.
    for piece in rest[:-1]:
        found = _find(piece, name, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


@lru_cache(maxsize=4096)
def _pieces(pattern: str) -> tuple[str, ...]:
    """Return the parts between the stars."""
    return tuple(pattern.split("*"))


def _at(piece: str, name: str, place: int) -> bool:
    if "?" not in piece:
        return name.startswith(piece, place)
    return len(name) - place >= len(piece) and all(c in ("?", name[i]) for i, c in enumerate(piece, place))


def _find(piece: str, name: str, start: int, end: int) -> int:
    if "?" not in piece:
        return name.find(piece, start, end)
    return next((at for at in range(start, end - len(piece) + 1) if _at(piece, name, at)), -1)
