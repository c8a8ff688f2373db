"""What the tests of opening streams share: small streams, and everything that a stream says."""

from qmigtool.parsers.vmstate import Kind
from tests.parsers.reading import as_spans
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    Vmsd,
    eos,
    mem_size,
    num,
    page,
    x86_cpu,
    zero,
)

TIMER = Vmsd("timer", 2, [num("ticks", "int64", 1), num("clock", "int64", 2)])


def values(field):
    if field.kind is Kind.LEAF:
        return field.value
    return [(child.name, values(child)) for child in field.children]


def everything(stream):
    """Devices with all of their values; two strategies must agree on this."""
    return [
        (
            device.name,
            device.instance_id,
            device.version_id,
            device.section.body_offset,
            device.section.body_length,
            [(field.name, field.type, field.offset, field.length, values(field)) for field in device.fields]
            if device.description is not None
            else None,
        )
        for device in stream.devices
    ]


def frames(stream):
    """Sections without the word on how they were measured, which may differ."""
    return as_spans(stream.sections)


def small(*, tail=b"", footers=True, machine="pc-i440fx-7.2", before=None, vmdesc=True, data=bytes(PAGE)):
    w = StreamWriter(machine, footers=footers)
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", 64 * PAGE), ("rom", PAGE)]) + eos())
    if before:
        before(w)
    w.part(1, page(0, data, "pc.ram") + b"".join(zero(n * PAGE) for n in range(1, 64)) + eos())
    w.end(1, zero(0, "rom") + eos())
    w.device(2, "timer", 0, TIMER)
    w.device(3, "cpu", 0, x86_cpu(xmm=[(1, 2), (3, 4)]))
    w.device(4, "cpu", 1, x86_cpu(xcr0=1, xstate_bv=0))
    w.old_style(0, "slirp", 0, 4, bytes(range(131)))
    w.finish(vmdesc=vmdesc, tail=tail)
    return w


def look(stream):
    return everything(stream), frames(stream), stream.complete, stream.size, [str(p) for p in stream.problems]
