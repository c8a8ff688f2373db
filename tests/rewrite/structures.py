"""What the tests of sections and subsections share: devices, their subsections, and a stream around them."""

from tests.rewrite.editing import (
    assert_true,
    rewritten,
    stream_of,
)
from tests.support.streamwriter import (
    Vmsd,
    num,
    nums,
    raw,
    struct_,
    tmp,
    uncollapsed,
)

RATE = Vmsd("fdrive/media_rate", 1, [num("media_rate", "uint8", 3)])


DEEP = Vmsd("dev/more/deep", 5, [num("d", "uint32", 0xDEEE)])


MORE = Vmsd("dev/more", 4, [num("m", "uint64", 77)], [DEEP])


LATE = Vmsd("dev/late", 1, [num("l", "uint8", 9)])


OTHER = Vmsd("other", 2, [num("x", "uint32", 1), nums("list", "uint16", [1, 2, 3])])


def drive(track, *subsections):
    return Vmsd("fdrive", 1, [num("track", "uint8", track), num("head", "uint8", 0xAA)], subsections)


def dev(drives=None, subsections=(MORE, LATE), unit=()):
    return Vmsd(
        "dev",
        3,
        [
            num("first", "uint32", 0x01020304),
            drives or uncollapsed("drives", [drive(1, RATE), drive(2, RATE)]),
            struct_("unit", Vmsd("unit", 1, [num("u", "uint16", 0xBEEF)], unit)),
            tmp("hidden", Vmsd("hidden", 1, [num("h", "uint16", 0xCAFE)], unit)),
            raw("last", b"the last field"),
        ],
        subsections,
    )


def around(one):
    return [("before", 0, OTHER), ("dev", 1, one), ("after", 7, OTHER)]


STYLES = {
    "modern": {},
    "no footers": {"footers": False},
    "5.2": {"spaced": True},
    "5.2, no footers": {"spaced": True, "footers": False},
}


def check(style, before, edit, after):
    """The edited stream is the one that would have been written in the first place, to the last byte."""
    source, wanted = stream_of(*before, **style), stream_of(*after, **style)
    done = rewritten(source, edit)
    assert done.data == wanted
    assert done.data != source
    assert_true(done.data)
    return done


def added(number, name, instance, version, data):
    return number, name, instance, Vmsd(name.rsplit("/", 1)[-1], version, [raw("data", data)] if data else [])
