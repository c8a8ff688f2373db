"""Real QEMU loads a stream that scapy built, and has what was changed in it."""

from pathlib import Path

import pytest

from qmigtool.layers import known
from qmigtool.layers.reading import rdqmig, wrqmig
from tests.support.qemu.machine import Machine, Qemu

ADDRESS = 0x9000  # conventional memory that the firmware does not use
PAGE = b"built by scapy".ljust(4096, b"\x5a")


@pytest.mark.qemu
def test_qemu_loads_what_scapy_built(tmp_path: Path) -> None:
    saved, built = tmp_path / "saved.mig", tmp_path / "built.mig"
    with Qemu(Machine()) as qemu:
        qemu.migrate_to_file(saved)
    packets = rdqmig(saved)
    names = {name: getattr(known, name) for name in known.__all__}
    made = [eval(one.command(), dict(names)) for one in packets]  # noqa: S307 - scapy's own text
    assert b"".join(map(bytes, made)) == saved.read_bytes()
    block = None
    for place, packet in enumerate(packets):
        if known.RamRecord in packet:
            block = packet.idstr or block
            if block == b"pc.ram" and packet.addr == ADDRESS and packet.flags & 0x0A:
                word = "PAGE" if packet.idstr else "PAGE+CONTINUE"
                made[place] = known.RamRecord(addr=ADDRESS, flags=word, idstr=packet.idstr or b"", page=PAGE)
    wrqmig(built, made)
    assert built.read_bytes() != saved.read_bytes()
    with Qemu(Machine(), incoming=True) as qemu:
        qemu.load(built)
        assert qemu.pmemsave(ADDRESS, 4096) == PAGE
