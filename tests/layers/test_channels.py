"""Scapy's own sessions on captures."""

import lzma
from collections import Counter

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.sendrecv import sniff
from scapy.sessions import TCPSession
from scapy.utils import wrpcap

from qmigtool.layers import channels, known
from qmigtool.layers.reading import rdqmig
from tests.support.paths import SAMPLES


@pytest.fixture
def ports():
    """Make ports those of migrations, for one test."""
    guesses, overloads = [*TCP.payload_guess], dict(channels.MigrationChannel._overload_fields)
    yield channels.bind_migration
    TCP.payload_guess[:] = guesses
    channels.MigrationChannel._overload_fields = overloads


@pytest.fixture
def port(ports):
    ports(4444)


def segments(data, size, sport, dport, start=1000):
    flags = "PA"
    for at in range(0, len(data), size):
        yield (
            Ether()
            / IP(src="10.0.0.1", dst="10.0.0.2")
            / TCP(sport=sport, dport=dport, seq=start + at, flags=flags)
            / data[at : at + size]
        )


def sniffed(tmp_path, data, size, sport=4444, dport=50000):
    wrpcap(str(tmp_path / "c.pcap"), list(segments(data, size, sport, dport)))
    return list(stacked_in(tmp_path / "c.pcap"))


def stacked_in(path):
    for packet in sniff(offline=str(path), session=TCPSession, quiet=True):
        one = packet[TCP].payload
        while one:
            yield one
            one = one.payload


@pytest.mark.parametrize("size", [1, 7, 1448])
def test_a_return_path_in_a_session(port, tmp_path, size):
    data = lzma.decompress((SAMPLES / "packed/postcopy-preempt-7.2.rp.bin.xz").read_bytes())[:400]
    ours = rdqmig(SAMPLES / "packed/postcopy-preempt-7.2.mig.xz", channels=[data])
    expected = [one for one in ours if known.MessageHeader in one]
    found = [one for one in sniffed(tmp_path, data, size) if isinstance(one, known.MessageHeader)]
    assert len(found) == len(expected) > 5
    assert [(one.type, one.length) for one in found] == [(one.type, one.length) for one in expected]


def test_a_multifd_channel_in_a_session(port, tmp_path):
    data = lzma.decompress((SAMPLES / "packed/multifd-zlib-7.2.ch0.bin.xz").read_bytes())
    ours = rdqmig(SAMPLES / "packed/multifd-zlib-7.2.mig.xz", channels=[data])
    expected = [one.original for one in ours if one.source != "main"]
    found = sniffed(tmp_path, data, 1448, 50000, 4444)
    assert [type(one) for one in found] == [known.MultiFDInit] + [known.MultiFDPagePacket] * (len(expected) - 1)
    assert [one.self_build() for one in found] == expected


@pytest.mark.parametrize(("name", "dport"), [("multifd-10.0", 4567), ("postcopy-10.0", 4830)])
def test_the_channels_of_a_real_capture_in_a_session(name, dport, tmp_path, ports):
    """What scapy's own session puts together is what our reader finds."""
    packed = SAMPLES / f"containers/{name}.pcap.xz"
    capture = tmp_path / "c.pcap"
    capture.write_bytes(lzma.decompress(packed.read_bytes()))
    ports(dport)
    kinds = (known.MultiFDInit, known.MultiFDPagePacket, known.MessageHeader)
    expected = Counter(type(one) for one in rdqmig(packed) if isinstance(one, kinds))
    found = Counter(type(one) for one in stacked_in(capture) if isinstance(one, kinds))
    assert found == expected
    assert sum(found.values()) >= 5


def test_the_main_channel_in_a_session(port, tmp_path):
    data = (SAMPLES / "pc-7.2.mig").read_bytes()[:20_000]
    found = sniffed(tmp_path, data, 1448, 50000, 4444)
    assert isinstance(found[0], known.FileHeader)
    assert {type(one) for one in found[1:]} == {channels.ChannelBytes}
    assert b"".join(one.self_build() for one in found) == data


def test_a_segment_without_a_session(port):
    head = IP(bytes(IP() / TCP(sport=50000, dport=4444) / b"QEVM\0\0\0\3rest"))
    assert head[TCP].payload.layers()[0] is known.FileHeader
    message = IP(bytes(IP() / TCP(sport=4444, dport=50000) / bytes.fromhex("0002 0004 00000001")))
    assert message[known.MessageValue].value == 1
    greeting = IP(bytes(IP() / TCP(sport=50000, dport=4444) / known.MultiFDInit(channel=1)))
    assert greeting[known.MultiFDInit].channel == 1
    other = IP(bytes(IP() / TCP(sport=50000, dport=4444) / (b"\xff" * 9)))
    assert other[channels.ChannelBytes].load == b"\xff" * 9
