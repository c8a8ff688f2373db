"""Captures with holes, made from real streams: what is behind a hole is used, and what was in it is never zero."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import qmigtool
from qmigtool import Stream
from qmigtool.cli.main import run
from qmigtool.errors import GapError, StreamError
from tests.stream.holed import pages
from tests.support import packedsamples, samplefiles
from tests.support.capturewriter import SEGMENT, Packets

STREAMS = {name: samplefiles.read(name) for name in ("pc-7.2", "q35-7.2", "kvm-avx512-7.2", "pc-11.1")}


PACKED = ("xbzrle-7.2", "compress-7.2", "plain-5.2", "nofooter-7.2", "uuid-11.1")


SEGMENTS = (SEGMENT, 16384, 65483)


def capture(data: bytes, lost: list[int], size: int = SEGMENT) -> bytes:
    """A capture of a migration without these segments."""
    packets = Packets()
    packets.connection(data, port=40000, size=size)
    for index in sorted(lost, reverse=True):
        del packets.frames[2 + index]
    return packets.pcap()


def holes(data: bytes, lost: list[int], size: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for index in sorted(lost):
        start, end = index * size, min((index + 1) * size, len(data))
        if found and sum(found[-1]) == start:
            found[-1] = found[-1][0], end - found[-1][0]
        else:
            found.append((start, end - start))
    return found


def check(data: bytes, lost: list[int], size: int) -> tuple[int, int]:
    """Compare what is read of a capture with the plain stream; return the pages that are there, and the devices."""
    gaps = holes(data, lost, size)
    with qmigtool.open(data) as plain, qmigtool.open(capture(data, lost, size)) as stream:
        named = [(one.offset, one.length) for one in stream.problems if isinstance(one, GapError)]
        assert named == gaps
        assert not stream.complete
        spans(stream, [gap for gap in gaps if sum(gap) < len(data)])
        wanted = {(one.name, one.instance_id): one for one in plain.devices}
        for device in stream.devices:
            original = wanted.pop((device.name, device.instance_id))
            assert device.section.body_offset == original.section.body_offset
            assert bytes(device.body) == bytes(original.body)
        for device in wanted.values():
            section = device.section
            touched = any(at < section.end and section.offset < at + length for at, length in gaps)
            assert touched or stream.may_have(device.name, device.instance_id)
        return pages(stream, plain), len(stream.devices)


def spans(stream: Stream, gaps: list[tuple[int, int]]) -> None:
    """Sections cover every byte, and each hole is one of them."""
    at = 0
    for section in stream.sections:
        assert section.offset == at
        at = section.end
    assert at == stream.size
    assert [(one.offset, one.length) for one in stream.sections if one.type == "hole"] == gaps


def packed(name: str) -> bytes:
    return packedsamples.read(name)


def cases() -> Iterator[tuple[str, int, int]]:
    for seed, name in enumerate((*STREAMS, *PACKED)):
        for size in SEGMENTS:
            yield name, size, seed


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "seed"), list(cases()))
def test_any_holes(name: str, size: int, seed: int) -> None:
    data = STREAMS.get(name) or packed(name)
    chance = random.Random(seed * 1000 + size)  # noqa: S311 - no secret
    count = -(-len(data) // size)
    for _ in range(3):
        lost = chance.sample(range(1, count), min(chance.randint(1, 4), count - 1))
        check(data, lost, size)


def test_a_hole_in_one_page_costs_that_page() -> None:
    """What is before the hole tells where the record ends: all other pages are known, before it and behind it."""
    data = STREAMS["pc-7.2"]
    with qmigtool.open(data) as plain:
        total = sum(block.used_length // 4096 for block in plain.ram_blocks)
        runs = plain.ram.runs
        run = next(run for run in runs if run["encoding"] == 1 and run["pages"] > 3)
        start = int(run["offset"])
    # A record in which a whole segment is, behind the record's header.
    index = next(
        segment
        for record in range(start, start + 3 * 4104, 4104)
        for segment in (-(-(record + 30) // SEGMENT),)
        if (segment + 1) * SEGMENT < record + 4104
    )
    there, _ = check(data, [index], SEGMENT)
    assert there == total - 1


def test_ram_and_devices_behind_a_hole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = STREAMS["pc-7.2"]
    there, devices = check(data, [3], 16384)
    assert there > 3500
    with qmigtool.open(data) as plain:
        assert devices == len(plain.devices)
    file = tmp_path / "hole.pcap"
    file.write_bytes(capture(data, [3], 16384))
    name = str(file)
    commands = (
        ["info", name],
        ["sections", name],
        ["show", name],
        ["show", name, "cpu@0/env.eip"],
        ["ram", name],
        ["xsave", "table", name],
        ["check", name],
    )
    for command in commands:
        assert run(command) == 3, command
        captured = capsys.readouterr()
        assert "the capture lacks 16384 bytes" in captured.err + captured.out


def test_a_lost_device_is_not_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = STREAMS["q35-7.2"]
    with qmigtool.open(data) as plain:
        cpu = plain.device("cpu@0").section
    index = cpu.body_offset // 500 + 1
    with qmigtool.open(capture(data, [index], 500)) as stream:
        assert "cpu@0" not in {device.label for device in stream.devices}
        assert stream.may_have("cpu", 0)
        assert isinstance(stream.unreached, GapError)
        with pytest.raises(StreamError):
            stream.source.view(cpu.body_offset, cpu.body_length)


def test_without_a_vmdesc() -> None:
    data = samplefiles.read("novmdesc-7.2")
    with qmigtool.open(data) as plain:
        devices = len(plain.devices)
        first = plain.devices[3].section.offset
    _, found = check(data, [first // 400], 400)
    assert devices - 8 <= found < devices


def test_forged_records_in_guest_memory() -> None:
    """A guest may hold a chain of records at the distance of real ones: of two chains, none is used."""
    data = bytearray(STREAMS["pc-7.2"])
    with qmigtool.open(bytes(data)) as plain:
        run = max(plain.ram.runs[plain.ram.runs["encoding"] == 1], key=lambda run: int(run["pages"]))
        start, count, page = int(run["offset"]), int(run["pages"]), int(run["page"])
        block = plain.ram_blocks[int(run["block"])].idstr.encode()
    head = int(run["head"])
    for i in range(count - 1):
        word = ((page + i) * 4096 | 0x28).to_bytes(8, "big")
        at = start + i * (head + 4096) + head + 2000
        data[at : at + 8] = word
    size = 5000
    index = start // size + 1
    with qmigtool.open(capture(bytes(data), [index], size)) as stream:
        unread = [one for one in stream.sections if one.type == "unreadable"]
        assert sum(one.length for one in unread) > (count - 4) * 4104 or count < 6
        assert block
