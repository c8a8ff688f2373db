"""Streams and channels that several tests of memory read."""

import functools

import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import UnsupportedError
from qmigtool.parsers.ram import RamBody
from qmigtool.parsers.ramstate import RamState
from qmigtool.parsers.window import Window
from tests.support import naiveram
from tests.support.packedsamples import packed
from tests.support.ramwriter import (
    ZLIB,
    Deflate,
    device_state,
    discard,
    filled,
    greeting,
    named_page,
    packet,
    sync,
)
from tests.support.streamwriter import PAGE, StreamWriter, eos, mem_size, page, zero

MIB = 1 << 20


def opened(name):
    sample = packed(name)
    return qmigtool.open(sample.path, channels=sample.channels)


@functools.cache
def naive(name):
    sample = packed(name)
    with opened(name) as stream:
        return naiveram.memory(stream, sample.path, sample.channels)


def ram_of(data, *channels, **options):
    return qmigtool.open(data, channels=channels, **options)


TIB = 1 << 40


def huge():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("huge", TIB)]) + eos())
    w.end(1, zero(0, "huge") + page(TIB - PAGE, filled(1)) + eos())
    return w.finish()


DELTA = bytes.fromhex("a302 02 070c")  # the record that stream.md shows: skip 291, two bytes


HOSTILE = {
    "short greeting": greeting()[:50],
    "cut header": greeting() + packet([0], filled(1))[:1000],
    "cut payload": greeting() + packet([0], filled(1))[:-1],
    "magic": greeting() + packet([0], filled(1), magic=0x11223345),
    "version": greeting() + packet([0], filled(1), version=2),
    "pages": greeting() + packet([0], filled(1), count=129),
    "pages and zeros": greeting() + packet([0], filled(1), zeros=128),
    "billions": greeting() + packet([0], filled(1), count=0xFFFFFFFF, zeros=0xFFFFFFFF),
    "size": greeting() + packet([0], filled(1), size=0xFFFFFFFF),
    "less than pages": greeting() + packet([0], filled(1)[:-8]),
    "large payload": greeting() + packet([0], bytes(2 << 20), flags=ZLIB),
    "block": greeting() + packet([0], filled(1), block="no such"),
    "beyond the block": greeting() + packet([8 * PAGE], filled(1)),
    "far beyond": greeting() + packet([(1 << 64) - PAGE], filled(1)),
    "zero beyond": greeting() + packet([], zero=[1 << 40]),
    "unaligned": greeting() + packet([5], filled(1)),
    "device state": greeting() + device_state("x", b"", size=0xFFFFFFFF),
    "two compressions": greeting() + packet([0], Deflate()(filled(1)), flags=ZLIB) + packet([0], filled(1)),
    "no compression": greeting() + packet([0], filled(1), flags=0x3E),
}


def postcopy(*ranges, after=b"", pages=8, first=None):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", pages * PAGE)]) + eos())
    w.part(1, (first or b"".join(named_page(i, i + 1) for i in range(pages))) + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", discard("r", *ranges))
    w.part(1, after + eos())
    w.end(1, eos())
    return w


def whole(*numbers, base=1):
    """PAGE records of ``r``, from page 0 on."""
    return b"".join(named_page(i, base + i) for i in numbers)


def multifd_channel(number, pages, *, epochs=3, **options):
    """A channel that says all ``pages`` in the epoch behind START, and has as many epochs as multifd_main(1, ...)."""
    payload = b"".join(filled(100 + p) for p in pages)
    return greeting(number, **options) + sync() + packet([p * PAGE for p in pages], payload) + sync() * (epochs - 1)


def refused(action):
    with pytest.raises(UnsupportedError) as caught:
        action()
    assert caught.value.feature == "pages that are in none of the given channels"
    return str(caught.value)


def run(capsys, *arguments):
    code = main.run([str(one) for one in arguments])
    return (code, *capsys.readouterr())


def walked(*bodies, blocks=(("r", 8 * PAGE),), commands=()):
    """A state that walked START and then ``bodies``; (place, command) are DISCARDs between them."""
    state = RamState(PAGE)
    for i, data in enumerate((mem_size(blocks) + eos(), *bodies)):
        for place, payload in commands:
            if place == i:
                state.discard(payload, 0)
        pos, ended = 0, False
        body = RamBody(state)
        while not ended:
            pos, ended = body.advance(Window(data, final=True), pos)
    return state
