"""What the tests of fields and their values share: a device with a field of every type."""

import pytest

import qmigtool
from qmigtool.errors import UsageError
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import rewritten, stream_of
from tests.support.streamwriter import Vmsd, gtree, num, nums, qtailq, raw, struct_, structs, tmp, uncollapsed

UNSIGNED = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "uint8 equal": 8, "uint16 equal": 16}
UNSIGNED |= {"uint32 equal": 32, "uint64 equal": 64, "int64 equal": 64, "CPU_Double_U": 64, "nullptr": 8}


SIGNED = {"int8": 8, "int16": 16, "int32": 32, "int64": 64, "int32 equal": 32, "int32 le": 32, "timer": 64}


def point(x=0x1111, y=-2, *subsections):
    return Vmsd("point", 1, [num("x", "uint16", x), num("y", "int32", y)], subsections)


def sub(z=5, flag=0):
    return Vmsd("dev/sub", 2, [num("z", "uint64", z), num("flag", "bool", flag)])


def dev(**changed):
    """One of everything; ``changed`` fields have another value."""
    fields = {
        **{name: num(name, name, 3) for name in UNSIGNED | SIGNED},
        "flag": num("flag", "bool", 0),
        "odd": num("odd", "bool", 7),
        "list": nums("list", "int32", [1, -2, 3]),
        "flags": nums("flags", "bool", [0, 1, 0]),
        "buffer": raw("buffer", b"buffer"),
        "bitmap": raw("bitmap", b"\1\2\3\4", "bitmap"),
        "struct": struct_("struct", point()),
        "array": structs("array", [point(1, 1), point(2, 2), point(3, 3)]),
        "indexed": uncollapsed("indexed", [point(1, 1), point(2, 2, sub())]),
        "hidden": tmp("hidden", point()),
        "queue": qtailq("queue", [point(1, 1), point(2, 2)]),
        "tree": gtree("tree", [(7, point(1, 1)), (8, point(2, 2))]),
        "sub": sub(),
        "name/with/slashes": num("name/with/slashes", "uint8", 4),
        "twice[0]": num("twice[0]", "uint8", 5),
        "twice[1]": num("twice[1]", "uint8", 6),
    }
    fields |= {name.replace("_", "/") if name == "name_with_slashes" else name: one for name, one in changed.items()}
    return Vmsd("dev", 1, [one for one in fields.values() if not isinstance(one, Vmsd)], [fields["sub"]])


BEFORE, AFTER = ("other", 0, Vmsd("other", 1, [num("n", "uint32", 1)])), ("dev", 2, dev())


def stream(**changed):
    return stream_of(BEFORE, ("dev", 1, dev(**changed)), AFTER)


def check(path, value, changed):
    wanted = stream(**changed)
    done = rewritten(stream(), lambda r: r.set(f"dev@1/{path}", value))
    assert done.data == wanted
    return done


def refused(path, value, error=UsageError):
    """It raises, says nothing was changed, and the draft is what it was."""
    with qmigtool.open(stream()) as opened:
        rewriter = Rewriter(opened)
        with pytest.raises(error) as caught:
            rewriter.set(f"dev@1/{path}", value)
        assert rewriter.changes == []
        assert rewriter.splices() == []
        return str(caught.value)
