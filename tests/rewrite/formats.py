"""What the tests of memory formats share: streams of every kind, and their pages before and after."""

import functools
import hashlib

from tests.rewrite.memories import look, saved
from tests.support.packedsamples import NAMES, RAM, packed
from tests.support.streamwriter import (
    PAGE,
)

HOLE = range(0xA0, 0x100)  # pages where pmemsave reads devices


SIZES = {"arm-vexpress-a9-7.2": 1024, "avr-mega-7.2": 256, "sparc64-sun4u-10.0": 8192, "tricore-10.0": 16384}


MAPPED = tuple(name for name in NAMES if "mapped" in name)


BARE = ("i440fx-2.1-7.2",)  # without a configuration there is no place for a capability


LIVE = {"OPEN_RETURN_PATH", "PING", "PACKAGED", "POSTCOPY_ADVISE", "POSTCOPY_LISTEN", "POSTCOPY_RUN"} | {
    *("POSTCOPY_RAM_DISCARD", "POSTCOPY_RESUME", "RECV_BITMAP")
}


@functools.cache
def source(name):
    sample = packed(name)
    return look(sample.path, sample.channels)


def before(name):
    return source(name).memory


def loadable(name):
    """What has to be in a stream of another format: all but what only a live migration has use for."""
    memory, devices, commands = source(name)
    return memory, devices, [command for command in commands if command not in LIVE]


def converted(name, target, form, *more):
    sample = packed(name)
    return saved(sample.path, target, lambda r: r.ram(form), *more, channels=sample.channels)


def check_hash(name, pages):
    """What pmemsave wrote of the same guest."""
    data = b"".join(bytes(PAGE) if i in HOLE else pages.content.get(("pc.ram", i), bytes(PAGE)) for i in range(4096))
    assert hashlib.sha256(data).hexdigest() == RAM[name]["sha256"]
