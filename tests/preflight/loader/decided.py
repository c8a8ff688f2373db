"""The cases of ``tests/data/cases/load``, their targets, and what is said of them."""

from __future__ import annotations

import functools
from dataclasses import replace

import qmigtool
from qmigtool.findings import Finding
from qmigtool.preflight import Preflight, Target, preflight
from qmigtool.preflight.target.builds import target_from_version
from qmigtool.preflight.target.reference import merge, target_from_stream
from tests.support import casefiles


@functools.cache
def case(name: str) -> bytes:
    return casefiles.read("load", name)


def target(name: str, version: str | None, data: bytes | None = None) -> Target:
    """The target that saved a reference, with its version if that is given."""
    with qmigtool.open(data or case(name)) as stream:
        found = target_from_stream(stream, name)
    if version is None:
        return found
    numbers = tuple(map(int, version.split(".")))
    x86 = not name.startswith(("arm", "sparc"))
    return replace(merge(target_from_version(numbers), found) if x86 else found, qemu=numbers)


def judged(data: bytes, aim: Target) -> Preflight:
    with qmigtool.open(data) as stream:
        return preflight(stream, aim)


def undecided(found: Preflight) -> tuple[Finding, ...]:
    assert (found.loads, found.verdict.errors) == (None, ())
    assert found.doubts
    assert all("decide" in doubt.message for doubt in found.doubts)
    return found.doubts
