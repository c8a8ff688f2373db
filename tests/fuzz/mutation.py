"""Random changes of bytes, for the test suite and if atheris is not installed."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random, changes: int) -> bytes:
    """Return ``data`` with this many changes: bits, numbers, pieces removed, added, repeated, or from another."""
    out = bytearray(data)
    for _ in range(changes):
        at = rng.randrange(len(out) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 16, 64, 300)), len(out) - at)
        kind = rng.randrange(7)
        if kind == 0 and length:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            code = rng.choice("BHIQ")
            number = struct.pack(f">{code}", rng.choice(NUMBERS) & (1 << 8 * struct.calcsize(code)) - 1)
            out[at : at + len(number)] = number
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = rng.randbytes(length)
        elif kind == 4:
            out[at:at] = out[at : at + length] * rng.choice((1, 2, 20))
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[at : at + length] = other[start : start + rng.choice((1, 8, 64, 1000))]
        else:
            del out[at + length * 8 :]
    return bytes(out[: 1 << 16])
