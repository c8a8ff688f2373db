"""Streams with some records replaced by random ones of the same kind (scapy's ``fuzz``), for the other targets.

A change of bytes seldom gives a record that a reader takes; these are records with right lengths and wrong contents.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any

from scapy.packet import fuzz

from qmigtool.errors import QmigError
from qmigtool.layers.packets import RawBytes, stacked
from qmigtool.layers.reading import QmigReader

__all__ = ["dissect", "fuzzed"]


def fuzzed(data: bytes, rng: random.Random, changes: int) -> bytes:
    """Return a stream with this many of its records replaced; input that is no stream is returned as it is."""
    random.seed(rng.getrandbits(64))  # scapy draws from this one
    try:
        with QmigReader(data) as reader:
            packets = [one for one in reader if one.source == "main"]
    except QmigError:
        return data
    chosen = {rng.randrange(len(packets)) for _ in range(changes)}
    return b"".join(_changed(one, rng) if i in chosen else one.original for i, one in enumerate(packets))


def _changed(packet: Any, rng: random.Random) -> bytes:
    layers = stacked(packet)
    which = rng.randrange(len(layers))
    if isinstance(layers[which], RawBytes):
        return rng.randbytes(rng.randrange(200))
    return b"".join(bytes(fuzz(type(one)())) if i == which else one.self_build() for i, one in enumerate(layers))


def dissect(data: bytes) -> None:
    """Take it apart, show every packet, and build each again from its fields."""
    with contextlib.suppress(QmigError), QmigReader(data) as reader:
        for packet in reader:
            packet.show(dump=True)
            packet.clear_cache()
            if bytes(packet) != packet.original:
                raise AssertionError(f"{packet!r} is not built as it was read")
