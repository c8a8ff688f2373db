"""A stream opened and every field of its device state decoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import qmigtool
from tests.bench.measure import Figure, medians, mib, ms, peak
from tests.bench.synthetic import SAMPLES

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Field

TITLE = "q35-7.2.mig opened and decoded (figure: time; ratio: our time by the rival's)"
SAMPLE = SAMPLES / "q35-7.2.mig"
REPEAT = 9


def leaves(fields: Iterable[Field]) -> int:
    """Read the value of every field that holds no others; return how many there were."""
    count = 0
    for field in fields:
        if field.children:
            count += leaves(field.children)
        else:
            field.value  # noqa: B018 - decoding it is what is measured
            count += 1
    return count


def open_only() -> None:
    """Open and close."""
    with qmigtool.open(SAMPLE) as stream:
        assert stream.devices


def decode_all() -> int:
    """Decode every field of every device."""
    with qmigtool.open(SAMPLE) as stream:
        return sum(leaves(device.fields) for device in stream.devices)


def decode_vcpus() -> int:
    """Decode every vCPU, and build its XSAVE area."""
    with qmigtool.open(SAMPLE) as stream:
        return sum(len(vcpu.xsave.data) for vcpu in stream.vcpus)


def figures() -> Iterator[Figure]:
    """Measure it."""
    with qmigtool.open(SAMPLE) as stream:
        section = next(section for section in stream.sections if section.type == "vmdesc")
    text = SAMPLE.read_bytes()[section.body_offset : section.end]
    times = medians(
        {
            "open": open_only,
            "decode": decode_all,
            "vcpus": decode_vcpus,
            "json": lambda: json.loads(text),
        },
        REPEAT,
    )
    labels = {
        "open": f"open, devices listed; peak {mib(peak(open_only))}",
        "decode": f"open, {decode_all()} values decoded; peak {mib(peak(decode_all))}",
        "vcpus": f"open, XSAVE areas of all vCPUs; peak {mib(peak(decode_vcpus))}",
    }
    for name, label in labels.items():
        yield Figure(label, ms(times[name]), "json.loads(vmdesc)", ms(times["json"]), times[name] / times["json"])
    each = (times["decode"] - times["open"]) / decode_all()
    yield Figure("one value (decode less open)", ms(each))
