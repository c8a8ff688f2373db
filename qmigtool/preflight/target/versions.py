"""The possible versions of a target's QEMU: as given, or bounded by its streams and its machine type.

A version that is not given is not guessed. Evidence in a stream or a name rules versions out; all others remain
possible, and a verdict holds only if they agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qmigtool.devices.machinetypes import VERSIONED, machine_type
from qmigtool.parsers.section import Type
from qmigtool.preflight.target.model import Bound
from qmigtool.x86.lapic import LAPIC
from qmigtool.x86.traits import traits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.preflight.target.model import Target, Version
    from qmigtool.stream.model import Stream

__all__ = ["Possible", "Split", "bounds_of_stream", "possible", "version_text"]


def version_text(version: Version) -> str:
    """Return a version with dots."""
    return ".".join(map(str, version))


class Split(Exception):  # noqa: N818 - a signal to the caller that tries a range of versions
    """The possible versions give different answers: those from ``at`` on differ from the others."""

    def __init__(self, at: Version) -> None:
        super().__init__(version_text(at))
        self.at = at


@dataclass(frozen=True, slots=True)
class Possible:
    """The versions from ``first`` up to, but excluding, ``below`` (None: no upper bound)."""

    first: Version
    below: Version | None = None

    def since(self, version: Version) -> bool:
        """Return whether the version is this one or later; raises :class:`Split` if that is not the same for all."""
        if self.first >= version:
            return True
        if self.below is not None and self.below <= version:
            return False
        raise Split(version)

    def split(self, at: Version) -> tuple[Possible, Possible]:
        """Split the range in two; the second begins with ``at``."""
        return Possible(self.first, at), Possible(at, self.below)

    @property
    def exact(self) -> bool:
        """Whether it is one version."""
        return self.below == (*self.first, 0)

    def __str__(self) -> str:
        """Return the range as text."""
        if self.exact:
            return f"QEMU {version_text(self.first)}"
        low = f"from {version_text(self.first)} on" if self.first > (0,) else ""
        high = "" if self.below is None else f"before {version_text(self.below)}"
        return f"QEMU {', '.join(filter(None, (low, high))) or 'of any version'}"


ANY = Possible((0,))


def possible(target: Target) -> tuple[Possible, tuple[str, ...]]:
    """Return the possible versions of a target, and what rules out the others."""
    if target.qemu is not None:
        return Possible(target.qemu, (*target.qemu, 0)), ()
    bounds = [*target.bounds, *_of_names(target)]
    low = max((one for one in bounds if one.from_), key=lambda one: one.version, default=None)
    high = min((one for one in bounds if not one.from_), key=lambda one: one.version, default=None)
    if low is not None and high is not None and low.version >= high.version:
        return ANY, (f"the evidence of the version is contradictory: {low.why}, but {high.why}",)
    found = Possible(low.version if low is not None else (0,), high.version if high is not None else None)
    return found, tuple(one.why for one in (low, high) if one is not None)


def _of_names(target: Target) -> Iterator[Bound]:
    named = machine_type(target.machine or "")
    if named is not None and named.family in VERSIONED and not named.vendor:
        release = named.release
        yield Bound(release, f"machine type {target.machine} exists since {version_text(release)}")
    if (since := traits_of(target.accelerator).since) is not None:
        yield Bound(since, f"-accel {target.accelerator} supports migration since {version_text(since)}")


def bounds_of_stream(stream: Stream) -> tuple[Bound, ...]:
    """Return the bounds of the version of the QEMU that saved a stream; its machine type is evaluated elsewhere."""
    return tuple(_shown(stream))


def _shown(stream: Stream) -> Iterator[Bound]:
    if any(one.type is Type.COMMAND and one.name == "SWITCHOVER_START" for one in stream.sections):
        yield Bound((10, 0), "it sends the command SWITCHOVER_START, which exists since 10.0")
    if "mapped-ram" in stream.capabilities:
        yield Bound((9, 0), "it knows the capability mapped-ram, which exists since 9.0")
    devices = stream.devices
    if any(one.name == LAPIC for one in devices):
        if devices[0].name == LAPIC:
            yield Bound((10, 2), "it sends apic first, as since 10.2")
        elif devices[0].name == "timer":
            yield Bound((10, 2), "it sends timer before apic, as before 10.2", from_=False)
    vmdesc, text = stream.vmdesc, stream.vmdesc_text
    if vmdesc is None or text is None:
        return
    if vmdesc.configuration is not None:
        yield Bound((8, 2), "its vmdesc has the configuration, as since 8.2")
    elif stream.configuration is not None:
        yield Bound((8, 2), "its vmdesc has no configuration, as before 8.2", from_=False)
    if text[:3] == b'{ "':
        yield Bound((6, 0), "its vmdesc is written as before 6.0", from_=False)
    else:
        yield Bound((6, 0), "its vmdesc is written as since 6.0")
    if b'"index": ' in text or b'"index" : ' in text:
        yield Bound((11, 1), "its vmdesc numbers the elements of arrays, as before 11.1", from_=False)
    if b'"type": "ptr-marker"' in text:
        yield Bound((11, 0), "its vmdesc marks pointers, as since 11.0")
