"""Rules over the machine: its type, its devices, their versions. A policy gives the required values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qmigtool.check.patterns import version_of
from qmigtool.check.rule import Context, Option, Options, finding, on, policy_rule
from qmigtool.errors import UsageError
from qmigtool.findings import Finding
from qmigtool.util.globs import matches
from qmigtool.util.values import number
from qmigtool.x86.traits import NAMES

if TYPE_CHECKING:
    from qmigtool.devices.device import Device

__all__ = ["RULES", "names"]

MAX_NAMES = 4096
MAX_VERSION = (1 << 32) - 1  # be32


def names(value: Any, what: str) -> tuple[str, ...]:
    """Read one name or a list; ``*`` and ``?`` match anything."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed) or len(listed) > MAX_NAMES:
        raise UsageError(f"{what} is {value!r:.60}", expected='a name or a list of names, such as "pc-q35-*"')
    return tuple(listed)


def _maybe_names(value: Any, what: str) -> tuple[str, ...] | None:
    return None if value is None else names(value, what)


def _like(name: str, patterns: tuple[str, ...]) -> bool:
    return any(matches(pattern, name) for pattern in patterns)


def _version(value: Any, what: str) -> tuple[int, int] | None:
    if value is None:
        return None
    found = version_of(value) if isinstance(value, str) else None
    if found is None:
        raise UsageError(f"{what} is {value!r:.60}", expected='a version, such as "7.2"')
    return found


@policy_rule(
    "machine-type",
    "The machine type is one that the policy allows",
    "QEMU loads a stream only into a machine of the same type.",
    severity="error",
    allowed=Option(_maybe_names, None, 'machine types: ["pc-i440fx-*", "pc-q35-7.2"]'),
    minimum=Option(_version, None, 'the oldest version of versioned ones: "7.2"'),
)
def machine_type(context: Context, options: Options) -> Iterator[Finding]:
    allowed, minimum = options["allowed"], options["minimum"]
    machine = context.stream.machine
    if allowed is None and minimum is None:
        return
    if machine is None:
        yield finding("the stream does not record its machine type (send-configuration=off)")
        return
    if allowed is not None and not _like(machine, allowed):
        yield finding(
            f"the machine type is {machine}, but the policy allows {', '.join(allowed) or 'none'}",
            value=machine,
            expected=allowed,
        )
    version = version_of(machine)
    if minimum is not None and version is None:
        yield finding(
            f"the machine type {machine} has no version, but the policy requires {minimum[0]}.{minimum[1]} or later"
        )
    elif minimum is not None and version is not None and version < minimum:
        yield finding(
            f"the machine type is {machine}, but the policy requires {minimum[0]}.{minimum[1]} or later",
            value=machine,
            minimum=minimum,
        )


def _accelerators(value: Any, what: str) -> tuple[str, ...] | None:
    listed = _maybe_names(value, what)
    for name in listed or ():
        if name not in (*NAMES, "unknown"):
            raise UsageError(f"{what} has {name!r}", expected="one of " + ", ".join((*NAMES, "unknown")))
    return listed


@policy_rule(
    "accelerator",
    "The stream was saved by an accelerator that the policy allows",
    "The same field means different things under KVM and TCG: loaded under another, the guest loses registers.",
    severity="error",
    allowed=Option(_accelerators, None, 'names: ["kvm"]; "unknown" if it is not known'),
)
def accelerator(context: Context, options: Options) -> Iterator[Finding]:
    allowed, found = options["allowed"], context.stream.accelerator
    if allowed is not None and found.name not in allowed:
        why = "given" if found.given else "; ".join(found.evidence)
        yield finding(
            f"the accelerator is {found.name} ({why}), but the policy allows {', '.join(allowed) or 'none'}",
            value=found.name,
            expected=allowed,
        )


def _maybe_number(value: Any, what: str) -> int | None:
    return None if value is None else number(value, what)


@policy_rule(
    "page-size",
    "The page size is as the policy requires",
    "Source and target must have the same target page size.",
    severity="error",
    equals=Option(_maybe_number, None, "bytes: 4096"),
)
def page_size(context: Context, options: Options) -> Iterator[Finding]:
    wanted, found = options["equals"], context.stream.page_size
    if wanted is not None and found != wanted:
        yield finding(f"the page size is {found}, but the policy requires {wanted}", value=found, expected=wanted)


@policy_rule(
    "capabilities",
    "The recorded migration capabilities are as the policy requires",
    "The target compares x-ignore-shared and mapped-ram with its own, and refuses capabilities that it does not know. "
    "QEMU records few of them.",
    severity="error",
    exact=Option(_maybe_names, None, "these and no others"),
    forbidden=Option(names, (), "none of these"),
)
def capabilities(context: Context, options: Options) -> Iterator[Finding]:
    found, exact = context.stream.capabilities, options["exact"]
    for name in found:
        if _like(name, options["forbidden"]):
            yield finding(f"the capability {name} is recorded, which the policy forbids", "configuration")
        elif exact is not None and not _like(name, exact):
            yield finding(f"the capability {name} is recorded, but not in the policy", "configuration")
    for pattern in exact or ():
        if not any(matches(pattern, name) for name in found):
            yield finding(f"the capability {pattern} is not recorded, but the policy requires it", "configuration")


@policy_rule(
    "devices",
    "The devices are as the policy requires",
    "A target without one of them refuses the stream; a device that the stream does not have silently keeps its reset "
    "state.",
    severity="error",
    required=Option(names, (), 'all of these, by idstr: ["cpu", "*/virtio-net"]'),
    forbidden=Option(names, (), "none of these"),
    exact=Option(_maybe_names, None, "every device is one of these, and each of these exists"),
)
def devices(context: Context, options: Options) -> Iterator[Finding]:
    found = context.stream.devices
    exact = options["exact"]
    for device in found:
        if _is(device, options["forbidden"]):
            yield on(device, "is a device that the policy forbids")
        elif exact is not None and not _is(device, exact):
            yield on(device, "is not in the policy's list of devices")
    for pattern in dict.fromkeys((*options["required"], *(exact or ()))):
        if not any(_is(device, (pattern,)) for device in found):
            yield finding(f"no device matches {pattern}, but the policy requires it", pattern)


def _is(device: Device, patterns: tuple[str, ...]) -> bool:
    """Return whether a device matches a pattern: by name, or by name and instance (``cpu@1``)."""
    return _like(device.name, patterns) or _like(device.label, patterns)


def _versions(value: Any, what: str) -> dict[str, tuple[int, int]]:
    """Read versions by device: 12, ``"11-12"`` or ``"3-"``."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is {value!r:.60}", expected='a table, such as { cpu = 12, apic = "2-3" }')
    out = {}
    for name, wanted in value.items():
        low, dash, high = wanted.partition("-") if isinstance(wanted, str) else (wanted, "", "")
        first = number(low, f"{what} of {name}")
        last = first if not dash else number(high, f"{what} of {name}") if high.strip() else MAX_VERSION
        out[name] = (first, last)
    return out


@policy_rule(
    "section-versions",
    "Section versions are as the policy requires",
    "QEMU refuses a section whose version is newer than its own, or older than the device's minimum.",
    severity="error",
    versions=Option(_versions, {}, 'by device: { cpu = 12, apic = "2-3", "*/virtio-net" = "11-" }'),
)
def section_versions(context: Context, options: Options) -> Iterator[Finding]:
    for pattern, (first, last) in options["versions"].items():
        wanted = str(first) if first == last else f"{first} or later" if last == MAX_VERSION else f"{first} to {last}"
        for device in context.stream.devices:
            if _is(device, (pattern,)) and not first <= device.version_id <= last:
                yield on(
                    device,
                    f"has version {device.version_id}, but the policy requires {wanted}",
                    value=device.version_id,
                    expected=wanted,
                )


RULES = (machine_type, accelerator, page_size, capabilities, devices, section_versions)
