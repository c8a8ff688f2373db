"""Captures of migrations: channels that belong together, several migrations, and what is wrong with a capture."""

import json
import lzma
import random
import resource
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.errors import GapError, MigrationsError, StreamError, UnsupportedError, UsageError
from tests.support import packedsamples, samplefiles
from tests.support.capturewriter import PSH_ACK, Packets, frame

PLAIN = samplefiles.read("pc-7.2")
OTHER = samplefiles.read("q35-7.2")


def packedfile(name: str) -> bytes:
    return lzma.decompress((packedsamples.FOLDER / f"{name}.xz").read_bytes())


PREEMPT = {name: packedfile(f"postcopy-preempt-11.1.{name}") for name in ("mig", "preempt.bin", "rp.bin")}


def two_migrations() -> Packets:
    """The same two hosts and port twice, one after the other, with other traffic between."""
    packets = Packets()
    packets.connection(PLAIN, port=40000)
    packets.connection(b"GET / HTTP/1.1\r\n\r\n" * 1000, port=40001, to=80)
    packets.connection(OTHER, port=40002)
    return packets


def test_several_migrations_are_listed_and_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.pcap"
    file.write_bytes(two_migrations().pcap())
    with pytest.raises(MigrationsError) as several:
        qmigtool.open(file)
    assert [one["migration"] for one in several.value.migrations] == [1, 2]
    for number, plain in ((1, PLAIN), (2, OTHER)):
        with qmigtool.open(file, migration=number) as stream, qmigtool.open(plain) as wanted:
            assert bytes(stream.source.view(0, len(plain))) == plain
            assert stream.machine == wanted.machine
            assert stream.complete
            assert stream.container.details["migration"] == number
    with pytest.raises(UsageError, match="no migration '3'"):
        qmigtool.open(file, migration=3)
    with pytest.raises(UsageError, match="not a capture"):
        qmigtool.open(PLAIN, migration=1)
    with pytest.raises(UsageError, match="this is not a qcow2 image"):
        qmigtool.open(file, migration=1, snapshot="1")
    assert run(["info", str(file)]) == 0
    out = capsys.readouterr().out
    assert "2: 10.0.0.1:40002 -> 10.0.0.2:4444" in out
    assert "(--migration 2)" in out
    assert run(["info", str(file), "--json"]) == 0
    assert [one["channels"] for one in json.loads(capsys.readouterr().out)["migrations"]] == [1, 1]
    assert run(["show", str(file), "--migration", "2", "cpu@0/env.eip"]) == 0
    mine = capsys.readouterr().out
    plain_file = tmp_path / "q35.mig"
    plain_file.write_bytes(OTHER)
    assert run(["show", str(plain_file), "cpu@0/env.eip"]) == 0
    assert capsys.readouterr().out == mine
    assert run(["diff", str(file), str(plain_file), "--migration-a", "2"]) == 0
    assert run(["diff", str(file), str(file), "--migration-a", "1", "--migration-b", "2"]) == 1
    capsys.readouterr()
    assert run(["show", str(file), "cpu@0/env.eip"]) == 2
    assert "--migration with one of 1 (" in capsys.readouterr().err


def test_the_channels_of_a_migration(tmp_path: Path) -> None:
    """By magic and by the same hosts and port: preempt has no magic, the return path is main's other direction."""
    packets = Packets()
    with packets.at_once():
        packets.connection(PREEMPT["mig"], port=40000, back=PREEMPT["rp.bin"])
        packets.connection(PREEMPT["preempt.bin"], port=40001)
    packets.connection(b"GET / HTTP/1.1\r\n\r\n", port=40002)
    with qmigtool.open(packets.pcap()) as stream:
        assert [one["role"] for one in stream.container.details["connections"]] == ["main", "return path", "preempt"]
        assert stream.channels == 2
        assert stream.complete, stream.problems
        ram = stream.ram
        assert len(ram.return_path) > 0
        with qmigtool.open(PREEMPT["mig"], channels=[PREEMPT["preempt.bin"], PREEMPT["rp.bin"]]) as wanted:
            assert all(ram.absent(block.idstr) == 0 for block in ram.blocks)
            for block in ram.blocks:
                pages = b"".join(part.tobytes() for _, part in ram.pages(block.idstr))
                assert pages == b"".join(part.tobytes() for _, part in wanted.ram.pages(block.idstr))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_multifd_channels_go_to_their_own_migration(order: tuple[int, ...], tmp_path: Path) -> None:
    main, *extra = (packedfile(f"multifd-none-11.1.{name}") for name in ("mig", "ch0.bin", "ch1.bin"))
    streams = [main, *extra]
    packets = Packets()
    for at, to in ((40000, 4444), (50000, 5555)):
        with packets.at_once():
            for i in order:
                packets.connection(streams[i], port=at + i, to=to)
    for number in (1, 2):
        with qmigtool.open(packets.pcap(), migration=number) as stream:
            connections = stream.container.details["connections"]
            assert sorted(one["role"] for one in connections) == ["main", "multifd", "multifd"]
            assert all(one["name"].endswith((":4444", ":5555")[number - 1]) for one in connections)
            assert stream.complete, stream.problems


def test_hundreds_of_connections_need_no_descriptors(tmp_path: Path) -> None:
    """Each of 300 channels has more data than is kept in memory; they are in one temporary file."""
    channel = packedfile("multifd-none-11.1.ch0.bin")
    main = packedfile("multifd-none-11.1.mig")
    packets = Packets()
    with packets.at_once():
        packets.connection(main, port=20000)
        for i in range(300):
            packets.connection(channel[:24] + bytes([i & 0xFF]) + channel[25:8000], port=20001 + i)
    file = tmp_path / "many.pcap"
    file.write_bytes(packets.pcap())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        with qmigtool.open(file) as stream:
            assert stream.channels == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_migration_in_tls_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    packets = Packets()
    hello = bytes.fromhex("1603010200010001fc0303") + bytes(501)
    packets.connection(hello + b"\x17\x03\x03\x40\x00" + bytes(16384), port=40000, back=hello)
    with pytest.raises(UnsupportedError, match=r"2 directions are TLS \(10.0.0.1:40000 -> 10.0.0.2:4444, "):
        qmigtool.open(packets.pcap())


def test_a_capture_without_the_start(tmp_path: Path) -> None:
    packets = Packets()
    packets.connection(PLAIN, port=40000)
    del packets.frames[:20]
    with pytest.raises(StreamError, match="of which 1 began before it"):
        qmigtool.open(packets.pcap())
    packets = Packets()
    packets.connection(PLAIN, port=40000)
    del packets.frames[2]
    with pytest.raises(StreamError, match="of which 1 lack their first bytes"):
        qmigtool.open(packets.pcap())


def problems(frames: Iterable[bytes]) -> Iterator[str]:
    packets = Packets()
    packets.frames += frames
    with qmigtool.open(packets.pcap()) as stream:
        assert not stream.complete
        for problem in stream.problems:
            yield str(problem)


def test_what_is_wrong_is_named() -> None:
    packets = Packets()
    packets.connection(PLAIN, port=40000)
    frame = bytearray(packets.frames[10])
    frame[-1] ^= 1
    lie = [*packets.frames[:20], bytes(frame), *packets.frames[20:]]
    assert any("this may be an evasion" in one for one in problems(lie))
    cut = [*packets.frames[:10], packets.frames[10][:500], *packets.frames[11:]]
    lengths = [len(one) for one in packets.frames]
    packets.frames[:] = cut
    with qmigtool.open(packets.pcap(lengths)) as stream:
        assert any("1 segments of 10.0.0.1:40000" in str(one) for one in stream.problems)
    packets = Packets()
    packets.connection(PLAIN, port=40000)
    packets.connection(struct.pack(">BHHB", 8, 10, 7, 6) + b"pc.ram" + bytes(100), port=40001)
    with qmigtool.open(packets.pcap()) as stream:
        assert any(isinstance(one, UnsupportedError) and "postcopy" in str(one) for one in stream.problems)


def test_a_channel_whose_start_was_not_captured() -> None:
    """It may have sent any page: what is known of its packets is used, and otherwise no page is known."""
    main, *extra = (packedfile(f"multifd-none-11.1.{name}") for name in ("mig", "ch0.bin", "ch1.bin"))
    packets = Packets()
    with packets.at_once():
        for i, data in enumerate((main, *extra)):
            packets.connection(data, port=40000 + i)
    first = next(i for i, one in enumerate(packets.frames) if one[34:36] == b"\x9c\x42" and one[47] == 0x18)
    del packets.frames[first]
    with qmigtool.open(packets.pcap()) as stream:
        roles = sorted(one["role"] for one in stream.container.details["connections"])
        assert roles == ["main", "multifd", "unknown"]
        assert isinstance(stream.problems[0], GapError)
        assert sum(stream.ram.absent(block.idstr) for block in stream.ram.blocks) < 300
    packets.frames = [one for one in packets.frames if one[34:36] != b"\x9c\x42" or one[47] == 0x11 or len(one) < 1000]
    with qmigtool.open(packets.pcap()) as stream:
        assert not stream.complete
        for block in stream.ram.blocks:
            assert stream.ram.absent(block.idstr) == -(-block.used_length // 4096)


def disordered(frames: list[bytes], how: str) -> list[bytes]:
    chance = random.Random(len(how))  # noqa: S311 - no secret
    if how == "shuffled":
        first, rest = frames[:3], frames[3:]
        chance.shuffle(rest)
        return first + rest
    if how == "repeated":
        return [one for part in frames for one in [part] * chance.randint(1, 3)]
    if how == "late":
        return [*frames[:2], *(one for i in range(2, len(frames), 7) for one in reversed(frames[i : i + 7]))]
    return frames


@pytest.mark.parametrize("name", ["pc-7.2", "q35-7.2", "kvm-avx512-7.2", "novmdesc-7.2", "noconfig-7.2"])
@pytest.mark.parametrize("how", ["shuffled", "repeated", "late", "wrapped", "overlapping"])
def test_the_state_is_that_of_the_plain_stream(name: str, how: str) -> None:
    data = samplefiles.read(name)
    packets = Packets()
    start = (1 << 32) - 300_000 if how == "wrapped" else 1000
    packets.connection(data, port=40000, start=start)
    if how == "overlapping":
        packets = Packets()
        packets.connection(data[:3000], port=40000, start=start)
        end = packets.frames.pop()
        parts = range(2500, len(data), 900)
        packets.frames += [frame(40000, 4444, 1001 + at, data[at : at + 1448], PSH_ACK) for at in parts]
        packets.frames.append(end[:38] + (1001 + len(data)).to_bytes(4, "big") + end[42:])
    with qmigtool.open(Packets.of(disordered(packets.frames, how)).pcap()) as stream, qmigtool.open(data) as plain:
        assert bytes(stream.source.view(0, len(data))) == data
        assert stream.size == len(data)
        assert not [problem for problem in stream.problems if str(problem) not in map(str, plain.problems)]
        assert [bytes(device.body) for device in stream.devices] == [bytes(device.body) for device in plain.devices]
