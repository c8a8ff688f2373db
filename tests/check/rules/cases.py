"""A case of a rule: the stream in which it finds something, and one in which it finds nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import qmigtool
from tests.check.checking import found, places, sample

KVM, PC, Q35 = "kvm-avx512-7.2", "pc-7.2", "q35-7.2"


class Case(NamedTuple):
    """``make`` gives a stream; ``places`` are the (severity, place) of what the rule finds in it.

    On the sample ``healthy`` the rule finds nothing. ``says`` is part of the message of the first finding.
    """

    rule: str
    make: Callable[[], bytes]
    places: list[tuple[str, str]]
    healthy: str
    policy: str | None = None
    accelerator: str | None = None
    says: str = ""


def version_of_hpet() -> bytes:
    data = bytearray(sample(PC))
    at = data.index(b"\x04hpet") + 5 + 4
    assert data[at : at + 4] == b"\0\0\0\2"
    data[at + 3] = 9
    return bytes(data)


def check_case(case: Case) -> None:
    """Assert that a rule finds what it is for, at the right place, and nothing on the stream as it was."""
    findings = found(case.make(), case.policy, accelerator=case.accelerator)
    assert places(findings, case.rule) == case.places
    mine = [finding for finding in findings if finding.rule == case.rule]
    for finding in mine[:1]:
        assert case.says in finding.message
        assert finding.reason
    for finding in mine:
        if finding.path and finding.device != "ram":
            with qmigtool.open(case.make()) as stream:
                assert (finding.offset, finding.length) == (
                    stream.field(finding.where).offset,
                    stream.field(finding.where).length,
                )
    assert not places(found(sample(case.healthy), case.policy, accelerator=case.accelerator), case.rule)
