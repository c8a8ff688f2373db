"""The initial inputs of fuzzing: small streams and containers, in `tests/data/fuzz`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct

from tests.support.paths import DATA
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    Vmsd,
    eos,
    mem_size,
    num,
    nums,
    page,
    raw,
    struct_,
    structs,
    x86_cpu,
    xbzrle,
    zero,
)

FOLDER = DATA / "fuzz"


def load() -> dict[str, bytes]:
    """Return the corpus: name -> bytes."""
    return {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir())}


def make() -> dict[str, bytes]:
    """Make the corpus."""
    streams = {"cpu": _cpu(), "devices": _devices(), "bare": _bare()}
    small = streams["bare"]
    return {
        **{f"{name}.mig": data for name, data in streams.items()},
        "gzip.mig.gz": gzip.compress(small, mtime=0),
        "bzip2.mig.bz2": bz2.compress(small),
        "xz.mig.xz": lzma.compress(small, preset=0),
        "libvirt.save": _libvirt(small),
        "image.qcow2": _qcow2(small),
        "tcp.pcap": _pcap(small),
    }


def _cpu() -> bytes:
    segment = Vmsd("segment", 1, [num("selector", "uint32", 8), num("flags", "uint32", 0x8900)])
    w = StreamWriter("pc-i440fx-7.2")
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", 4 * PAGE), ("rom", PAGE)]) + eos())
    w.part(1, page(0, bytes([7]) * PAGE, "pc.ram") + zero(PAGE) + eos())
    w.end(1, xbzrle(0, b"\x02\x02\xaa\xbb", "pc.ram") + zero(0, "rom") + eos())
    beside = [Vmsd("cpu/xss", 1, [num("env.xss", "uint64", 0x1800)])]
    extra = [struct_("env.tr", segment), num("env.tsc", "uint64", 5), num("env.mp_state", "uint32", 0)]
    w.device(2, "cpu", 0, x86_cpu(xmm=[(1, 2)], xstate_bv=0, xcr0=7, extra=extra, subsections=beside))
    w.device(3, "cpu_common", 0, Vmsd("cpu_common", 1, [num("halted", "uint32", 1)]))
    w.device(
        4, "timer", 0, Vmsd("timer", 2, [num("cpu_ticks_offset", "int64", 5), num("cpu_clock_offset", "int64", 6)])
    )
    return w.finish()


def _devices() -> bytes:
    inner = Vmsd("inner", 1, [num("a", "uint8", 1), num("b", "bool", 1)])
    w = StreamWriter("none")
    w.device(1, "dev", 0, Vmsd("dev", 3, [nums("n", "uint16", [1, 2, 3]), structs("s", [inner] * 3), raw("r", b"abc")]))
    w.device(2, "0000:00:01.0/PIIX3", 1, Vmsd("PIIX3", 3, [raw("config", bytes(64))]))
    w.device(
        3,
        "globalstate",
        0,
        Vmsd("globalstate", 1, [num("size", "uint32", 8), raw("runstate", b"running".ljust(100, b"\0"))]),
    )
    return w.finish()


def _bare() -> bytes:
    w = StreamWriter()
    w.device(1, "d", 0, Vmsd("d", 1, [num("x", "uint32", 9)], [Vmsd("d/s", 1, [num("y", "uint8", 1)])]))
    return w.finish()


def _libvirt(stream: bytes) -> bytes:
    """virQEMUSaveHeader (libvirt's qemu_saveimage.h): magic, version, length of the XML, running, format."""
    xml = b"<domain type='kvm'><name>x</name></domain>\0"
    return struct.pack("<16s5I56x", b"LibvirtQemudSave", 2, len(xml), 1, 0, 0) + xml + stream


def _qcow2(stream: bytes) -> bytes:
    """One snapshot in clusters of 512 bytes (docs/interop/qcow2.txt)."""
    size = 512
    count = -(-len(stream) // size)
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, 9, size, 0, 1, 3 * size, size, 1, 1, 4 * size, 0, 0, 0, 4, 104),
    )
    entry = struct.pack(">QIHHIIQII", 5 * size, 2, 1, 1, 0, 0, 0, len(stream), 24)
    entry += struct.pack(">QQQ", len(stream), size, 0) + b"1a"
    l1 = struct.pack(">QQ", 0, 6 * size)
    l2 = struct.pack(f">{count}Q", *((7 + i) * size for i in range(count)))
    parts = (head, b"", b"", b"", entry, l1, l2)
    return b"".join(part.ljust(size, b"\0") for part in parts) + stream.ljust(count * size, b"\0")


def _pcap(stream: bytes) -> bytes:
    """One TCP segment in an Ethernet frame."""
    tcp = struct.pack(">HHIIBBHHH", 40000, 4444, 1, 0, 0x50, 0x18, 1024, 0, 0) + stream
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2") + tcp
    frame = bytes(12) + b"\x08\0" + ip
    return (
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        + struct.pack("<IIII", 0, 0, len(frame), len(frame))
        + frame
    )


def write() -> None:
    """Write the corpus into the tree."""
    FOLDER.mkdir(exist_ok=True)
    for name, data in make().items():
        (FOLDER / name).write_bytes(data)
