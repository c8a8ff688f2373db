"""What virtio-mem has not plugged is not missing: neither where memory is read, nor where it is compared or written."""

from pathlib import Path

import numpy as np
import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.diff.ram import compare_ram
from qmigtool.errors import UnsupportedError
from qmigtool.ram import usage
from qmigtool.ram.cover import common, without
from tests.conftest import QemuStreamFactory
from tests.support import casefiles
from tests.support.qemu.machine import Machine
from tests.support.qemu.reloaded import load
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, be32, be64, eos, mem_size, num, page, raw, tmp, zero

UNIT = 4 * PAGE
UNITS = 70  # more than one word
SIZE = UNITS * UNIT
PLUGGED = {0, 1, 5, 63, 64, 69}
DATA = bytes(range(1, 129)) * 32


def bitmap(plugged):
    words = [sum(1 << bit for bit in range(64) if 64 * word + bit in plugged) for word in range(2)]
    return b"".join(map(be64, words))


def early(name="d/virtio-mem-device-early", plugged=frozenset(PLUGGED)):
    constants = Vmsd(
        "virtio-mem-device-constants",
        1,
        [
            num("addr", "uint64", 1 << 32),
            num("region_size", "uint64", SIZE),
            num("block_size", "uint64", UNIT),
            num("node", "uint32", 0),
        ],
    )
    fields = [
        tmp("tmp", constants),
        num("size", "uint64", len(plugged) * UNIT),
        raw("bitmap", bitmap(plugged), "bitmap"),
    ]
    return name, 0, Vmsd("virtio-mem-device-early", 1, fields)


def body(plugged=frozenset(PLUGGED), size=None):
    """Inside the body of virtio-mem, where no vmdesc describes it."""
    numbers = be64(1 << 32) + be64(SIZE) + be64(UNIT) + be32(0) + be64(SIZE)
    numbers += be64(len(plugged) * UNIT if size is None else size) + be64(SIZE)
    data = b"\xff" * 300 + be64(SIZE) * 3 + numbers + bitmap(plugged) + b"\x05rest"
    return "d/virtio-mem", 0, Vmsd("virtio-mem", 1, [raw("virtio", data, "virtio")])


def stream(*devices, missing=(), sent=PLUGGED, block="d/m"):
    w = StreamWriter("pc-q35-10.0")
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", PAGE), (block, SIZE)]) + eos())
    records = page(0, DATA, "pc.ram")
    name = block
    for unit in sorted(sent):
        for at in range(unit * UNIT, (unit + 1) * UNIT, PAGE):
            if at // PAGE not in missing:
                records += page(at, DATA, name) if at % UNIT else zero(at, name)
                name = None
    w.part(1, records + eos())
    w.end(1, eos())
    for number, device in enumerate(devices, start=2):
        w.device(number, *device)
    return w.finish()


WAYS = {"early": early, "body": body}


@pytest.mark.parametrize("way", WAYS)
def test_not_missing(way):
    with qmigtool.open(stream(WAYS[way]())) as opened:
        ram = opened.ram
        assert ram.absent("d/m") == 0
        stretches = [(a // UNIT, b // UNIT) for a, b in (ram.unplugged("d/m") * PAGE).tolist()]
        assert [unit for a, b in stretches for unit in range(a, b)] == [u for u in range(UNITS) if u not in PLUGGED]
        assert ram.page("d/m", 2 * UNIT) == bytes(PAGE)
        assert ram.page("d/m", PAGE) == DATA
        held, total = opened.pages_held
        assert held == total == 1 + len(PLUGGED) * 4
        assert [one["absent"] for one in usage.blocks(ram)] == [0, 0]


@pytest.mark.parametrize("way", WAYS)
def test_a_page_that_is_plugged_and_was_not_sent_is_missing(way):
    lost = {4 * 5 + 1, 4 * 69 + 3}
    with qmigtool.open(stream(WAYS[way](), missing=lost)) as opened:
        ram = opened.ram
        assert [a for a, _ in ram.gaps("d/m").tolist()] == sorted(lost)
        assert ram.page("d/m", 2 * UNIT) == bytes(PAGE)
        with pytest.raises(UnsupportedError):
            ram.page("d/m", 21 * PAGE)
        held, total = opened.pages_held
        assert total - held == 2


@pytest.mark.parametrize(
    "devices",
    [
        [],
        [body(size=UNIT)],  # not as many as are plugged
        [("d/virtio-net", 0, body()[2])],
        [("x/virtio-mem-device-early", 0, Vmsd("virtio-mem-device-early", 1, [num("region_size", "uint64", SIZE)]))],
    ],
)
def test_without_a_device_that_says_so_they_are_missing(devices):
    with qmigtool.open(stream(*devices)) as opened:
        assert opened.ram.absent("d/m") == (UNITS - len(PLUGGED)) * 4
        assert not len(opened.ram.unplugged("d/m"))


def test_which_of_two_devices_of_one_size():
    """By the device's path; where the block has another name, by what was sent."""
    other = early("e/virtio-mem-device-early", frozenset())
    for block in ("d/m", "m"):
        with qmigtool.open(stream(other, early(), block=block)) as opened:
            assert opened.ram.absent(block) == 0
    with qmigtool.open(stream(other, early(), block="e/m", sent=range(3))) as opened:
        assert opened.ram.absent("e/m") == 0  # all of it: the device of that path has plugged nothing


@pytest.mark.parametrize("form", ["plain", "mapped-ram"])
@pytest.mark.parametrize("way", WAYS)
def test_written_again(way, form, tmp_path):
    source = tmp_path / "in"
    source.write_bytes(stream(WAYS[way]()))
    assert main.run(["rewrite", str(source), "--ram", form, "-o", str(tmp_path / "out")]) == 0
    with qmigtool.open(source) as a, qmigtool.open(tmp_path / "out") as b:
        assert compare_ram(a, b).same
        assert compare_ram(a, a).same
        if form == "plain":
            assert b.ram.count()["d/m"] == {"zero": len(PLUGGED), "normal": 3 * len(PLUGGED)}  # and none more


def test_pages_beyond_are_compared(tmp_path):
    with qmigtool.open(stream(early())) as a, qmigtool.open(stream(early(plugged=frozenset(range(UNITS))))) as b:
        found = compare_ram(a, b)
        counts = {kind.word: count for kind, count in found.blocks[1].counts.items() if count}
        assert counts == {"same": 4 * len(PLUGGED), "only_a": 4 * (UNITS - len(PLUGGED))}


def test_a_real_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = casefiles.put("load", "pmem-10.0.mig", tmp_path)
    assert main.run(["rewrite", path, "--ram", "plain", "-o", str(tmp_path / "out.mig")]) == 0
    capsys.readouterr()
    for other in (path, tmp_path / "out.mig"):
        assert main.run(["diff", "--ram", path, str(other)]) == 0
        assert "no page of guest memory differs" in capsys.readouterr().out
    assert main.run(["ram", path]) == 0


MACHINE = Machine(
    machine="q35",
    memory="32M,maxmem=1G",
    extra=("-object", "memory-backend-ram,id=vmem,size=128M", "-device", "virtio-mem-pci,memdev=vmem"),
)


@pytest.mark.qemu
def test_real_qemu_loads_what_is_written_again(qemu_stream: QemuStreamFactory, tmp_path: Path) -> None:
    saved = qemu_stream(MACHINE).path
    with qmigtool.open(saved) as stream_:
        assert sum(len(stream_.ram.unplugged(block.idstr)) for block in stream_.ram_blocks) == 1
        assert sum(stream_.ram.absent(block.idstr) for block in stream_.ram_blocks) == 0
    assert main.run(["rewrite", str(saved), "--ram", "plain", "-o", str(tmp_path / "out.mig")]) == 0
    again = load(MACHINE, tmp_path / "out.mig", tmp_path / "again.mig").again
    with qmigtool.open(saved) as a, qmigtool.open(again) as b:
        assert compare_ram(a, b).same


@pytest.mark.parametrize("seed", range(20))
def test_stretches(seed):
    rng = np.random.default_rng(seed)

    def some():
        bits = rng.integers(0, 2, 40)
        return np.flatnonzero(np.diff(bits, prepend=0, append=0)).reshape(-1, 2), {i for i, b in enumerate(bits) if b}

    (one, mine), (other, theirs) = some(), some()
    assert {at for a, b in common(one, other).tolist() for at in range(a, b)} == mine & theirs
    assert {at for a, b in without(one, other).tolist() for at in range(a, b)} == mine - theirs
