"""Rules over the stream itself: it is complete, it can be read, and it describes its contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from qmigtool.check.rule import Context, Options, at, finding, on, rule
from qmigtool.devices.schema import built_in
from qmigtool.errors import QmigError, UnsupportedError
from qmigtool.findings import Finding
from qmigtool.parsers.globalstate import RUN_STATE, RUN_STATES, run_state_name
from qmigtool.parsers.section import Type

__all__ = ["READABLE", "RULES", "SUPPORTED", "problem"]

CHUNK = 1 << 20
NUMBERLESS = frozenset({"isa-ide"})  # all registered with number 0 (hw/ide/isa.c)
LIBRARIES = frozenset({"slirp"})  # the version is that of a library (net/slirp.c: slirp_state_version)
MAX_PADDING = 1 << 28  # bytes after the stream that are read; a block device may have terabytes


def problem(error: QmigError) -> Finding:
    """Make a finding of an error of the stream, which stays an exception: others raise it."""
    text = f"{error.message} (expected {error.expected})" if error.expected else error.message
    return finding(text, error.section, "", error.offset)


def _problems(context: Context) -> list[QmigError]:
    """Return all problems; decode sections, devices and vCPUs first."""
    stream = context.stream
    _ = stream.sections, context.devices, context.vcpus
    return stream.problems


@rule(
    "stream-readable",
    "The stream is complete, and its bytes follow the format",
    "QEMU stops at the first such place and exits, or misreads the bytes that follow. The other rules "
    "check only what can be read.",
    severity="error",
)
def stream_readable(context: Context, _: Options) -> Iterator[Finding]:
    yield from (problem(error) for error in _problems(context) if not isinstance(error, UnsupportedError))


@rule(
    "stream-supported",
    "Everything in the stream is known to qmigtool",
    "It is legal, but could not be read, so no rule was applied to it.",
)
def stream_supported(context: Context, _: Options) -> Iterator[Finding]:
    yield from (problem(error) for error in _problems(context) if isinstance(error, UnsupportedError))
    saver = context.stream.accelerator
    if saver.tcg is None and any(vcpu.x87_undecided or saver.contradicts for vcpu in context.vcpus):
        yield finding(f"{saver.words} what its x87 registers, TR, hflags and XSTATE_BV mean")


@rule(
    "trailing-data",
    "Nothing but zeros follows the stream",
    "QEMU does not read such data. It may be the rest of an older and longer stream, or two files in one.",
)
def trailing_data(context: Context, _: Options) -> Iterator[Finding]:
    stream = context.stream
    for section in stream.sections:
        if section.type is not Type.TAIL:
            continue
        last = section.offset + min(section.length, MAX_PADDING)
        try:
            for start in range(section.offset, last, CHUNK):
                part = bytes(stream.source.view(start, min(CHUNK, last - start)))
                rest = part.lstrip(b"\0")
                if rest:
                    found = start + len(part) - len(rest)
                    yield finding(
                        f"{section.end - found} bytes that are not padding follow the stream", None, "", found
                    )
                    return
        except QmigError:
            return  # the data after the stream was not kept for a pipe


@rule(
    "vmdesc-present",
    "The stream describes its device state",
    "Without a vmdesc (suppress-vmdesc=on, or postcopy) tools can only guess what device state means; QEMU itself does "
    "not need it.",
    severity="off",
    because="QEMU does not need it; those who keep streams for years may want to insist",
)
def vmdesc_present(context: Context, _: Options) -> Iterator[Finding]:
    if context.stream.vmdesc is None:
        yield finding("the stream has no vmdesc")


@rule(
    "machine-named",
    "The configuration names the machine type",
    "QEMU compares only as many bytes of the name as it received, so a stream with an empty name loads into any "
    "machine, and may fail later. No QEMU writes an empty name.",
)
def machine_named(context: Context, _: Options) -> Iterator[Finding]:
    configuration = context.stream.configuration
    if configuration is not None and not configuration.machine:
        yield finding("the machine type is empty", "configuration")


@rule(
    "devices-decoded",
    "Every device can be decoded",
    "Its state has no description, or QEMU describes it wrongly: rules over fields were not applied to it.",
    severity="note",
)
def devices_decoded(context: Context, _: Options) -> Iterator[Finding]:
    for device, error in context.opaque:
        yield on(device, error.message)


@rule(
    "sections-unique",
    "No device is sent twice",
    "QEMU silently loads both into the first device of that name. QEMU itself writes this only for devices that "
    "share a number (isa-ide of isapc), which are not reported.",
    severity="note",
    because="isapc's two isa-ide are both number 0",
)
def sections_unique(context: Context, _: Options) -> Iterator[Finding]:
    seen: Counter[tuple[str, int]] = Counter()
    for device in context.stream.devices:
        key = (device.name, device.instance_id)
        seen[key] += 1
        if seen[key] > 1 and device.name not in NUMBERLESS:
            yield on(device, f"is sent for the {seen[key]}. time")


@rule(
    "section-version-known",
    "Section versions are ones that QEMU has written",
    "QEMU refuses a version that is newer than its own, or older than the device's minimum. The versions known are "
    "those of x86 machines of QEMU 5.2 to 11.1, so one of a newer QEMU may be valid. slirp has the version of the "
    "library libslirp that QEMU is linked with.",
    severity="note",
    because="a QEMU newer than qmigtool is not wrong",
)
def section_version_known(context: Context, _: Options) -> Iterator[Finding]:
    if not context.vcpus:
        return  # other targets have other devices of the same name
    known: dict[str, set[int]] = {}
    for name, version in built_in().devices:
        known.setdefault(name, set()).add(version)
    for device in context.stream.devices:
        versions = known.get(device.name) or known.get(device.name.rsplit("/", 1)[-1])
        if versions and device.version_id not in versions and device.name not in LIBRARIES:
            listed = ", ".join(map(str, sorted(versions)))
            yield on(device, f"has version {device.version_id}, but only {listed} is known")


@rule(
    "run-state",
    "globalstate names a run state that QEMU has",
    'QEMU refuses the stream otherwise ("invalid parameter value").',
    severity="error",
)
def run_state(context: Context, _: Options) -> Iterator[Finding]:
    for device in context.devices:
        found = device.get(RUN_STATE) if device.name == "globalstate" else None
        if found is not None:
            name = run_state_name(found.raw)
            if name not in RUN_STATES:
                yield at(device, RUN_STATE, f"the run state is {name!r}")


READABLE, SUPPORTED = stream_readable, stream_supported
RULES = (
    stream_readable,
    stream_supported,
    trailing_data,
    vmdesc_present,
    machine_named,
    devices_decoded,
    sections_unique,
    section_version_known,
    run_state,
)
