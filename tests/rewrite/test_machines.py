"""From one version of a machine type to another: the name, and exactly what goes with it."""

from functools import partial

import pytest

import qmigtool
from qmigtool.errors import UsageError
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import assert_true, bodies, rewritten, sample, writer
from tests.support.streamwriter import Vmsd, num, raw, struct_

Q35 = "q35-7.2"
XHCI = next(name for name, _ in bodies(sample(Q35)) if name.endswith("/xhci"))


def xhci_devcap():
    """Where the stream has byte 0xa4 of the xhci's configuration space: DevCap of its PCI Express capability."""
    with qmigtool.open(sample(Q35)) as stream:
        device = stream.device(XHCI)
        config = next(f for f in walk(device.fields) if f.type == "pci config")
        assert config.raw[0xA0] == 0x10  # the capability's id
        return config.offset + 0xA4, config.raw[0xA4]


def walk(fields):
    for field in fields:
        yield field
        if str(field.kind) == "struct":
            yield from walk(field.children)


@pytest.mark.parametrize("target", ["pc-q35-9.2", "pc-q35-10.0", "pc-q35-11.1", "pc-q35-123.45"])
def test_a_real_q35_goes_up(target):
    source = sample(Q35).read_bytes()
    at, byte = xhci_devcap()
    assert not byte & 0x20
    wanted = bytearray(source)
    wanted[at] = byte | 0x20
    head = b"\x07\0\0\0\x0apc-q35-7.2"
    assert source[8 : 8 + len(head)] == head
    wanted[8 : 8 + len(head)] = b"\x07\0\0\0" + bytes([len(target)]) + target.encode()
    done = rewritten(sample(Q35), lambda r: r.upgrade_machine(target))
    assert done.data == wanted
    assert_true(done.data)
    tag = [c for c in done.changes if "byte 0xa4" in c.where]
    assert [(c.edit, c.offset, c.old, c.new) for c in tag] == [("upgrade-machine", at, byte, byte | 0x20)]
    assert "9.2" in tag[0].reason
    assert [c.where for c in done.changes if c not in tag] == ["configuration/machine"]
    # And back again.
    back = rewritten(done.data, lambda r: r.upgrade_machine("pc-q35-7.2"))
    assert back.data == source


@pytest.mark.parametrize("target", ["pc-q35-7.2", "pc-q35-8.0", "pc-q35-9.1", "pc-q35-6.0"])
def test_versions_without_a_difference(target):
    done = rewritten(sample(Q35), lambda r: r.upgrade_machine(target))
    assert done.data == sample(Q35).read_bytes().replace(b"\x0apc-q35-7.2", b"\x0a" + target.encode(), 1)
    assert len(done.changes) == (target != "pc-q35-7.2")


@pytest.mark.parametrize("name", ["pc-7.2", "kvm-avx512-7.2", "plain-7.2"])
def test_a_pc_has_no_express_devices(name):
    done = rewritten(sample(name), lambda r: r.upgrade_machine("pc-i440fx-9.2"))
    assert done.data == sample(name).read_bytes().replace(b"pc-i440fx-7.2", b"pc-i440fx-9.2", 1)


def test_a_command_that_older_versions_do_not_know():
    """QEMU 10.0 and later send SWITCHOVER_START: be16 11, be16 0 behind the byte 08."""
    command = b"\x08\0\x0b\0\0"
    with qmigtool.open(sample("pc-11.1")) as stream:
        (section,) = (s for s in stream.sections if s.name == "SWITCHOVER_START")
    source = sample("pc-11.1").read_bytes()
    assert source[section.offset : section.end] == command
    done = rewritten(sample("pc-11.1"), lambda r: r.upgrade_machine("pc-i440fx-9.2"))
    with qmigtool.open(done.data) as stream:
        assert stream.complete
        assert all(s.type != "command" for s in stream.sections)
        assert stream.machine == "pc-i440fx-9.2"
    assert bodies(done.data) == bodies(source)
    assert_true(done.data)
    done = rewritten(sample("pc-11.1"), lambda r: r.upgrade_machine("pc-i440fx-10.0"))
    with qmigtool.open(done.data) as stream:
        assert sum(s.name == "SWITCHOVER_START" for s in stream.sections) == 1


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (Q35, "pc-i440fx-9.2"),
        (Q35, "q35-9.2"),
        (Q35, "pc-q35"),
        (Q35, "pc-q35-"),
        (Q35, "pc-q35-9"),
        (Q35, "pc-q35-9.2 "),
        (Q35, "pc-q35-9.2.1"),
        (Q35, "pc-q35-9999.2"),
        (Q35, ""),
        ("pc-7.2", "pc-q35-9.2"),
        ("microvm-10.0", "microvm-11.0"),
        ("noconfig-7.2", "pc-i440fx-9.2"),
        ("arm-7.2", "pc-q35-9.2"),
    ],
)
def test_another_family(name, target):
    with qmigtool.open(sample(name)) as stream:
        rewriter = Rewriter(stream)
        with pytest.raises(UsageError):
            rewriter.upgrade_machine(target)
        assert (rewriter.changes, rewriter.splices()) == ([], [])


@pytest.mark.parametrize(
    ("start", "target", "unknown"),
    [
        ("7.2", "11.1", []),
        ("7.2", "5.2", []),
        ("7.2", "11.2", ["11.2"]),
        ("7.2", "12.0", ["12.0"]),
        ("12.0", "7.2", ["12.0"]),
        ("12.0", "12.1", ["12.0", "12.1"]),
        ("5.1", "5.2", ["5.1"]),
    ],
)
def test_versions_that_nothing_is_known_of_are_told(start, target, unknown):
    source = rewritten(sample("pc-7.2"), lambda r: r.machine_type(f"pc-i440fx-{start}")).data
    done = rewritten(source, lambda r: r.upgrade_machine(f"pc-i440fx-{target}"))
    told = [note for note in done.notes if "qmigtool does not know" in note]
    assert [note.removesuffix(" (known: 5.2 to 11.1)").split()[-1] for note in told] == unknown
    with qmigtool.open(done.data) as stream:
        assert stream.machine == f"pc-i440fx-{target}"


# -- e1000e -----------------------------------------------------------------------------------------------------------


def e1000e(timadj=None, name="0000:00:02.0/e1000e"):
    fields = [num("core.rx", "uint32", 1), struct_("core", Vmsd("core", 1, [num("x", "uint8", 2)]))]
    if timadj is not None:
        fields.append(num("core.timadj", "int64", timadj))
    sub = Vmsd("e1000e/sub", 1, [num("s", "uint8", 3)])
    return name, 0, Vmsd("e1000e", 1, fields, [sub])


def q35(version, *devices, style):
    w = writer(("first", 0, Vmsd("first", 1, [num("f", "uint8", 1)])), *devices, machine=f"pc-q35-{version}")
    return w.finish(**style)


@pytest.mark.parametrize("style", [{}, {"spaced": True}])
def test_the_time_adjustment_of_e1000e(style):
    build = partial(q35, style=style)
    two = e1000e(name="0000:00:03.0/e1000e")
    source = build("7.2", e1000e(), two)
    up = rewritten(source, lambda r: r.upgrade_machine("pc-q35-8.0"))
    assert up.data == build("8.0", e1000e(0), e1000e(0, name="0000:00:03.0/e1000e"))
    assert_true(up.data)
    assert [(c.where, c.old, c.new) for c in up.changes[1:]] == [
        ("0000:00:02.0/e1000e@0/core.timadj", None, 0),
        ("0000:00:03.0/e1000e@0/core.timadj", None, 0),
    ]
    # What a later one has is lost on the way back, and said.
    later = build("8.0", e1000e(-5))
    done = rewritten(later, lambda r: r.set("first/f", 1), lambda r: r.upgrade_machine("pc-q35-7.2"))
    assert done.data == build("7.2", e1000e())
    (change,) = (c for c in done.changes if "timadj" in c.where)
    assert (change.offset, change.old, change.new) == (later.index(b"\xff" * 7 + b"\xfb"), -5, None)
    # The same offset when the section was edited before.
    done = rewritten(
        later, lambda r: r.set("0000:00:02.0/e1000e/core.rx", 9), lambda r: r.upgrade_machine("pc-q35-7.2")
    )
    assert next(c for c in done.changes if "timadj" in c.where).offset == change.offset
    # Where it is already, or was never.
    assert rewritten(build("7.2", e1000e(7)), lambda r: r.upgrade_machine("pc-q35-8.0")).data == build("8.0", e1000e(7))
    other = e1000e(name="0000:00:02.0/e1000")
    assert rewritten(build("7.2", other), lambda r: r.upgrade_machine("pc-q35-8.0")).data == build("8.0", other)


# -- configuration spaces ---------------------------------------------------------------------------------------------


def config(*capabilities, status=0x10, first=None, size=256, extended=()):
    """A configuration space with a chain of (offset, id, bytes behind the head)."""
    space = bytearray(size)
    space[6] = status
    space[0x34] = capabilities[0][0] if first is None else first
    for number, (at, kind, body) in enumerate(capabilities):
        space[at] = kind
        space[at + 1] = capabilities[number + 1][0] if number + 1 < len(capabilities) else 0
        space[at + 2 : at + 2 + len(body)] = body
    for at, head, mask in extended:
        space[at : at + 4] = head.to_bytes(4, "little")
        space[at + 8 : at + 12] = mask.to_bytes(4, "little")
    return bytes(space)


def pci(space, type_="pci config", before=b""):
    device = Vmsd("PCIDevice", 2, [raw("config", before + space, type_)])
    return "0000:00:05.0/x", 0, Vmsd("x", 1, [struct_("dev", device)])


EXP = (0x40, 0x10, b"\2\0\0\x80\0\0")  # version 2, DevCap 0x8000
TAGGED = (0x40, 0x10, b"\2\0\x20\x80\0\0")
MSI = (0x80, 0x05, b"")
LOOP = bytearray(config(MSI))
LOOP[0x81] = 0x80
SPACES = {
    "express": (config(EXP), config(TAGGED)),
    "behind another": (config(MSI, EXP), config(MSI, TAGGED)),
    "of 4 KiB": (config(EXP, size=4096), config(TAGGED, size=4096)),
    "tagged already": (config(TAGGED), config(TAGGED)),
    "none": (config(MSI), config(MSI)),
    "no list": (config(EXP, status=0), config(EXP, status=0)),
    "a loop": (bytes(LOOP), bytes(LOOP)),
    "a list that starts in the header": (config(EXP, first=0x10), config(EXP, first=0x10)),
    "low bits are reserved": (config(EXP, first=0x43), config(TAGGED, first=0x43)),
    "at the very end": (config((0xFC, 0x10, b"\1\1")), config((0xFC, 0x10, b"\1\1"))),
    "nothing at all": (bytes(256), bytes(256)),
    "ones": (b"\xff" * 256, b"\xff" * 256),
}


@pytest.mark.parametrize("name", SPACES)
def test_extended_tags(name):
    before, after = SPACES[name]
    for kind, head in (("pci config", b""), ("virtio", b"\0\0\0\2")):
        tail = b"more" if head else b""
        old, new = (q35("9.1", pci(s + tail, kind, head), style={}) for s in (before, after))
        done = rewritten(old, lambda r: r.upgrade_machine("pc-q35-9.2"))
        assert done.data == new.replace(b"pc-q35-9.1", b"pc-q35-9.2", 1)
        down = rewritten(done.data, lambda r: r.upgrade_machine("pc-q35-9.1"))
        plain = config(EXP) if name == "tagged already" else before
        assert down.data == q35("9.1", pci(plain + tail, kind, head), style={})


def test_what_only_looks_like_a_configuration_space():
    for kind, head in (("buffer", b""), ("virtio", b"\0\0\0\1"), ("virtio", b"")):
        source = q35("9.1", pci(config(EXP), kind, head), style={})
        done = rewritten(source, lambda r: r.upgrade_machine("pc-q35-9.2"))
        assert done.data == source.replace(b"pc-q35-9.1", b"pc-q35-9.2", 1)


MASK = 1 << 22 | 1 << 25 | 1 << 4
MASKS = {
    "first": [[(0x100, 0x0001_0001, MASK)], [(0x100, 0x0001_0001, 1 << 4)]],
    "behind another": [
        [(0x100, 0x148_1_0003, 0), (0x148, 0x0001_0001, MASK)],
        [(0x100, 0x148_1_0003, 0), (0x148, 0x0001_0001, 1 << 4)],
    ],
    "one of them": [[(0x100, 0x0001_0001, 1 << 25)], [(0x100, 0x0001_0001, 0)]],
    "another capability": [[(0x100, 0x0001_0003, MASK)]] * 2,
    "a loop": [[(0x100, 0x100_1_0003, MASK)]] * 2,
    "a list that leaves": [[(0x100, 0xFFC_1_0003, MASK)]] * 2,
}


@pytest.mark.parametrize("name", MASKS)
def test_masked_errors(name):
    """Bits 22 and 25 of the mask of uncorrectable errors, which 8.1 sets: cleared on the way down only."""
    old, new = (config(EXP, size=4096, extended=one) for one in MASKS[name])
    source, wanted = q35("8.1", pci(old), style={}), q35("8.0", pci(new), style={})
    assert rewritten(source, lambda r: r.upgrade_machine("pc-q35-8.0")).data == wanted
    up = rewritten(q35("8.0", pci(old), style={}), lambda r: r.upgrade_machine("pc-q35-8.1"))
    assert up.data == source
