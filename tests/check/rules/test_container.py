"""The rules about the stream itself."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

import qmigtool
from qmigtool.findings import Severity
from qmigtool.parsers.section import Type
from tests.check.checking import edited, found, places, poked, sample
from tests.check.rules.cases import KVM, PC, Case, check_case, version_of_hpet


def with_garbage(data: bytes) -> Callable[[], bytes]:
    return lambda: sample(PC) + bytes(100) + data


def renamed(name: str, old: bytes, new: bytes) -> Callable[[], bytes]:
    """A sample with the first idstr ``old`` of its device sections changed, not that in the vmdesc."""

    def make() -> bytes:
        data = sample(name)
        at = data.index(bytes([len(old)]) + old)
        return data[: at + 1] + new + data[at + 1 + len(old) :]

    return make


def ram_version() -> bytes:
    """RAM version 5: be32 behind type, section id, the counted name and the instance."""
    data = bytearray(sample(PC))
    with qmigtool.open(sample(PC)) as stream:
        start = next(s.offset for s in stream.sections if s.type is Type.START and s.name == "ram")
    assert data[start + 5 : start + 9] == b"\x03ram"
    struct.pack_into(">I", data, start + 13, 5)
    return bytes(data)


def dma_twice() -> bytes:
    """The second DMA controller is called dma@0, too."""
    data = bytearray(sample(PC))
    at = data.index(b"\x03dma\0\0\0\1\0\0\0\1")
    data[at + 7] = 0
    return bytes(data)


CASES = (
    Case("stream-readable", lambda: sample(PC)[:600_000], [("error", "")], PC, says="the stream ends here"),
    Case("stream-supported", ram_version, [("warning", "ram")], PC, says="ram section version 5"),
    Case("trailing-data", with_garbage(b"QEVM rest of an older one"), [("warning", "")], PC, says="25 bytes"),
    Case(
        "vmdesc-present",
        lambda: sample("novmdesc-7.2"),
        [("error", "")],
        PC,
        '[rules.vmdesc-present]\nseverity = "error"',
    ),
    Case(
        "machine-named",
        lambda: edited(PC, lambda r: r.machine_type("")),
        [("warning", "configuration")],
        PC,
    ),
    Case("devices-decoded", renamed("novmdesc-7.2", b"hpet", b"hpeX"), [("note", "hpeX@0")], "novmdesc-7.2"),
    Case("sections-unique", dma_twice, [("note", "dma@0")], PC),
    Case("section-version-known", version_of_hpet, [("note", "hpet@0")], PC, says="version 9, but only 2"),
    Case(
        "run-state",
        lambda: poked(PC, {"globalstate/runstate": b"foo".ljust(100, b"\0")}),
        [("error", "globalstate@0/runstate")],
        PC,
        says="'foo'",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    check_case(case)


def test_padding_is_no_data() -> None:
    assert not places(found(sample(PC) + bytes(5000)), "trailing-data")


def test_what_is_left_of_a_broken_stream_is_checked() -> None:
    findings = found(poked(KVM, {"cpu@0/env.mxcsr": 0x11F80})[:-20_000])
    assert places(findings, "mxcsr-reserved")
    assert places(findings, "stream-readable") == [("error", "")]


def test_bytes_that_contradict_their_description_are_a_finding() -> None:
    data = bytearray(sample(PC))
    at = data.index(b"\x05\x0acpu/avx512") if b"\x05\x0acpu/avx512" in data else data.index(b"\x05\x0ecpu/fpop_ip_dp")
    data[at + 2] ^= 0x20
    findings = found(bytes(data))
    assert [finding.rule for finding in findings if finding.severity is Severity.ERROR] == ["stream-readable"]
    assert "cpu" in (findings[0].device or "")
