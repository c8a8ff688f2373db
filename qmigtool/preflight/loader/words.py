"""QEMU's error messages for a refused stream, by version: data, and how the levels of an error add to them.

A refusal starts with the error (:data:`REFUSALS`) and passes through the enclosing levels (:data:`WRAPS`): a field, a
subsection, a section. QEMU up to 10.0 prints a line at each of these levels; 11.1 collects the cause after
"load of migration failed" and prints only what a device still prints itself. Recorded from the stderr of Debian's
7.2.22, 10.0.13 and 11.1.2; every message is quoted in ``tests/data/preflight``.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from qmigtool.preflight.target.versions import Possible

__all__ = ["FAMILIES", "Refusal", "Vocabulary", "family_of", "printed"]

FAMILIES = ((7, 2), (10, 0), (11, 1))
"""The versions whose messages are known."""

EINVAL, EPERM, ENOENT, EIO = errno.EINVAL, errno.EPERM, errno.ENOENT, errno.EIO
ENOTSUP, ERANGE, EAGAIN = errno.ENOTSUP, errno.ERANGE, errno.EAGAIN


class Words(NamedTuple):
    """``reports`` are printed at once, ``cause`` is the end of the last line (11.1), which names ``number``."""

    number: int
    reports: tuple[str, ...] = ()
    cause: str = ""


class Wrap(NamedTuple):
    """What a level adds: a line, a prefix of the cause, another errno; or a cause that replaces the one so far.

    The replaced cause is printed: a device that loads itself by older functions does so.
    """

    report: str | None = None
    prefix: str = ""
    number: int | None = None
    instead: str | None = None


def _same(number: int, report: str, cause: str | None = None) -> tuple[Words, Words, Words]:
    """A text that 7.2 and 10.0 print and 11.1 has as the cause."""
    old = Words(number, (report,))
    return old, old, Words(number, (), report if cause is None else cause)


def _printed(number: int, *reports: str, cause: str = "") -> tuple[Words, Words, Words]:
    """A text that every version prints; 11.1 also has a cause."""
    old = Words(number, reports)
    return old, old, Words(number, reports, cause)


class Bare(str):
    """A line that QEMU prints without the program's name."""

    __slots__ = ()


_HOOK = "post load hook failed for: {vmsd}, version_id: {version}, minimum_version: {minimum}"
_RAM = "Failed to load vmstate version_id: {ram_version}, ret: {ret}"
_SETUP = "Make sure that your current VM setup matches your saved VM setup, including any hotplugged devices"
_FOOTER = "Section footer error, section_id: {signed_id}"
_ELEMENT = "Failed to load element of type {} for {}"
_VALIDATE = "Input validation failed: {vmsd}/{field}"
_CUT = "Failed to load section ID: stream error: -5: Channel error: Input/output error"
_STREAM_ERROR = "Failed to load {vmsd} state: stream error: -5"


def _ram(*reports: str, number: int = EINVAL) -> tuple[Words, Words, Words]:
    return _printed(number, *reports, cause=_RAM)


def _hook(report: str) -> tuple[Words, Words, Words]:
    """A post_load hook that prints its reason and returns -EINVAL."""
    return _printed(EINVAL, report, cause=_HOOK + ", ret: -22")


def _footer(report: str) -> tuple[Words, Words, Words]:
    return _printed(EINVAL, report, cause=_FOOTER)


def _refused(report: str) -> tuple[Words, Words, Words]:
    """A post_load hook that prints its reason and returns -1."""
    return _printed(EPERM, report, cause=_HOOK + ", ret: -1")


def _resize(place: str) -> Words:
    """A RAM block that cannot be resized: QEMU aborts. The place is that of the recorded release."""
    first = Bare(f"Unexpected error in qemu_ram_resize() at {place}:")
    return Words(0, (first, "Size too large: {block}: 0x{received:x} > 0x{local:x}: Invalid argument"))


def _put(what: str) -> tuple[Words, Words, Words]:
    """A register group that the kernel refuses after everything is loaded; 7.2 continues silently."""
    return (
        Words(0),
        Words(0, (f"Putting registers after init: Failed to set {what}: Invalid argument",)),
        Words(0, (f"Restoring resisters after init: Failed to set {what}: Invalid argument",)),
    )


def _msr(place: str) -> Words:
    """An MSR that the kernel refuses: QEMU aborts. The place is that of the recorded release."""
    assertion = f"{place}: kvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed."
    return Words(0, ("error: failed to set MSR 0x{msr:x} to 0x{value:x}", assertion))


# rule -> messages of 7.2, 10.0 and 11.1
REFUSALS: dict[str, tuple[Words, Words, Words]] = {
    "empty": (Words(0), Words(0), Words(0)),
    "unmigratable-device": _same(EINVAL, "State blocked by non-migratable device '{idstr}'"),
    # -- the header ---------------------------------------------------------------------------------------------
    "magic": _same(
        EINVAL, "Not a migration stream", "Not a migration stream, magic: {magic:x} != 5145564d"
    ),
    "version-obsolete": _same(
        ENOTSUP,
        "SaveVM v2 format is obsolete and don't work anymore",
        "SaveVM v2 format is obsolete and no longer supported",
    ),
    "version": _same(
        ENOTSUP,
        "Unsupported migration stream version",
        "Unsupported migration stream version, file version {version:x} != 3",
    ),
    # -- the configuration --------------------------------------------------------------------------------------
    "configuration-missing": _same(
        EINVAL, "Configuration section missing", "Configuration section missing, {found} != 7"
    ),
    "configuration-length": (Words(0), Words(0), Words(0)),  # a message of GLib, with a line number of its source
    "machine-type": _same(
        EINVAL,
        "Machine type received is '{received}' and local is '{local}'",
        _HOOK + ": Machine type received is '{received}' and local is '{local}'",
    ),
    "page-bits": _same(
        EINVAL,
        "Received TARGET_PAGE_BITS is {received} but local is {local}",
        _HOOK + ": Received TARGET_PAGE_BITS is {received} but local is {local}",
    ),
    "capability": _printed(
        EINVAL,
        "Capability {name} is {local}, but received capability is {received}",
        cause=_HOOK + ": Failed to validate capabilities",
    ),
    "unknown-capability": _same(EINVAL, "Received unknown capability {name}"),
    "uuid": _hook("UUID received is {received} and local is {local}"),
    # -- sections -----------------------------------------------------------------------------------------------
    "section-type": _same(
        EINVAL, "Unknown savevm section type {type}", "Unknown section type {type}"
    ),
    "section-name": _same(EINVAL, "Unable to read ID string for section {section_id}"),
    "section-header-cut": _same(
        EIO,
        "qemu_loadvm_section_start_full: Failed to read instance/version ID: -5",
        "Failed to read instance/version ID: -5",
    ),
    "unknown-section": _same(
        EINVAL,
        "Unknown savevm section or instance '{idstr}' {instance}. " + _SETUP,
        "Unknown section or instance '{idstr}' {instance}. " + _SETUP,
    ),
    "unknown-section-id": _same(
        EINVAL, "Unknown savevm section {signed_id}", "Unknown section {signed_id}"
    ),
    "section-id-cut": _same(
        EIO,
        "qemu_loadvm_section_part_end: Failed to read section ID: -5",
        "Failed to read section ID: -5",
    ),
    "section-version": _same(
        EINVAL,
        "savevm: unsupported version {received} for '{idstr}' v{local}",
        "unsupported version {received} for '{idstr}' v{local}",
    ),
    "footer-missing": _footer("Missing section footer for {idstr}"),
    "footer-id": _footer("Mismatched section id in footer for {idstr} - read 0x{read:x} expected 0x{section_id:x}"),
    "footer-cut": _footer("check_section_footer: Read section footer failed: -5"),
    "cut": (Words(EIO), Words(EIO), Words(EIO, (), _CUT)),
    # -- bodies -------------------------------------------------------------------------------------------------
    "version-too-new": _same(EINVAL, "{vmsd}: incoming version_id {received} is too new for local version_id {local}"),
    "version-too-old": _same(
        EINVAL,
        "{vmsd}: incoming version_id {received} is too old for local minimum version_id  {local}",
        "{vmsd}: incoming version_id {received} is too old for local minimum version_id {local}",
    ),
    "unknown-subsection": (
        Words(ENOENT),
        Words(ENOENT),
        Words(ENOENT, (), "VM subsection '{name}' in '{vmsd}' does not exist"),
    ),
    "body-cut": (Words(EIO), Words(EIO), Words(EIO, (), _STREAM_ERROR)),
    "not-equal": _same(EINVAL, "{local:x} != {received:x}"),
    "not-less-or-equal": _same(EINVAL, "Invalid value {received} expecting positive value <= {local}"),
    "validation": (
        Words(EPERM, (_VALIDATE,)),
        Words(EPERM, (_VALIDATE,)),
        Words(EPERM, (), _VALIDATE + " version_id: {version}"),
    ),
    "irq-state": _printed(
        EINVAL, Bare("irq state {received}: must be 0 or 1."), cause=_ELEMENT.format("pci irq state", "irq_state")
    ),
    "null-pointer": _same(EINVAL, "vmstate: get_nullptr expected VMS_NULLPTR_MARKER"),
    "pci-config": _printed(
        EINVAL,
        "get_pci_config_device: Bad config data: i=0x{at:x} read: {received:x} device: {local:x} "
        "cmask: {cmask:x} wmask: {wmask:x} w1cmask:{w1cmask:x}",
        cause=_ELEMENT.format("pci config", "config"),
    ),
    "virtqueue-size": (
        Words(EINVAL),
        Words(EINVAL),
        Words(EINVAL, ("VQ {queue} vring.num {received} exceeds allocated max {local}",)),
    ),
    "virtqueue-address": _printed(
        EPERM, "VQ {queue} address 0x0 inconsistent with Host index 0x{received:x}"
    ),
    "virtqueue-used": _printed(
        EPERM, "VQ {queue} size 0x{size:x} < last_avail_idx 0x{last:x} - used_idx 0x{used:x}"
    ),
    "virtqueues": _printed(EPERM, "Invalid number of virtqueues: 0x{received:x}"),
    "virtio-vector": (Words(EINVAL), Words(EINVAL), Words(EINVAL)),
    "virtio-queue-sel": (Words(EPERM), Words(EPERM), Words(EPERM)),
    "net-vnet-hdr": _printed(EINVAL, "virtio-net: saved image requires vnet_hdr=on"),
    "memory-split": (Words(0, ("virtio: unexpected memory split",)),) * 3,
    "hook": (Words(EPERM), Words(EPERM), Words(EPERM, (), _HOOK + ", ret: -1")),
    "serial-transmitter": _refused("inconsistent state in serial device ({text}"),
    "ahci-engine": _refused("{text}"),
    "fw-cfg-resize": (_resize("../../softmmu/physmem.c:1852"), _resize("system/physmem.c:1742"),
                      _resize("system/physmem.c:2051")),
    "non-softfloat": _hook("Unsupported old non-softfloat CPU state"),
    "guest-mode": _hook("vCPU set in guest-mode inconsistent with migrated kernel nested state"),
    "registers": (Words(EPERM), Words(EPERM), Words(EPERM, ("{text}",), _HOOK + ", ret: -1")),
    "tsc-frequency": _hook("Mismatch between user-specified TSC frequency and migrated TSC frequency"),
    "property-changed": _hook("{text}"),
    "runstate": _hook("invalid parameter value: {received}"),
    # -- RAM ----------------------------------------------------------------------------------------------------
    "ram-version": _ram(),
    "unknown-block": _ram('Unknown ramblock "{block}", cannot accept migration'),
    "block-size": _ram("Size mismatch: {block}: 0x{received:x} != 0x{local:x}: Invalid argument"),
    "block-too-large": _ram("Size too large: {block}: 0x{received:x} > 0x{local:x}: Invalid argument"),
    "block-address": _ram("Mismatched GPAs for block {block} {received}!= {local}"),
    "record-block": _ram("Can't find block {block}", "Illegal RAM offset {at:x}"),
    "record-continue": _ram("Ack, bad migration stream!", "Illegal RAM offset {at:x}"),
    "record-offset": _ram("Illegal RAM offset {at:x}"),
    "record-flags": _ram("Unknown combination of migration flags: 0x{flags:x}"),
    "record-compressed": _ram("Received an unexpected compressed page"),
    "record-fill": _ram("Found a zero page with value {fill}"),
    "record-hook": _ram(),
    "xbzrle-encoding": _ram(
        "Failed to load XBZRLE page - wrong compression!", "Failed to decompress XBZRLE page at {at:x}"
    ),
    "xbzrle-length": _ram("Failed to load XBZRLE page - len overflow!", "Failed to decompress XBZRLE page at {at:x}"),
    "xbzrle-data": _ram("Failed to load XBZRLE page - decode error!", "Failed to decompress XBZRLE page at {at:x}"),
    "ram-cut": _ram(number=EIO),
    "record-cut": _ram("Getting RAM address failed", number=EIO),
    # -- commands -----------------------------------------------------------------------------------------------
    "command": _same(EINVAL, "MIG_CMD 0x{cmd:x} unknown (len 0x{length:x})"),
    "command-length": _same(ERANGE, "{name} received with bad length - expecting {expected}, got {length}"),
    "command-cut": (Words(EIO), Words(EIO), Words(EIO, (), "Failed to load VM process command: stream error: -5")),
    "ping": _same(EPERM, "CMD_PING (0x{token:x}) received with no return path"),
    "package-cut": _same(EAGAIN, "CMD_PACKAGED: Buffer receive fail ret={left} length={length}"),
    "advise-disabled": _same(EINVAL, "RAM postcopy is disabled but have 16 byte advise"),
    "advise-enabled": _same(EINVAL, "RAM postcopy is enabled but have 0 byte advise"),
    "advise-length": _same(EINVAL, "CMD_POSTCOPY_ADVISE invalid length ({length})"),
    "advise-pages": _same(EPERM, "Postcopy needs matching RAM page sizes (s={received:x} d={local:x})"),
    "advise-target-page": _same(EPERM, "Postcopy needs matching target page sizes (s={received} d={local})"),
    "postcopy-state": _same(EPERM, "CMD_{name} in wrong postcopy state ({state})"),
    "recv-bitmap": _same(
        EINVAL, "loadvm_handle_recv_bitmap: block '{block}' not found", "block '{block}' not found"
    ),
    "colo": _same(
        EINVAL,
        "ENABLE_COLO command come in migration stream, but x-colo capability is not set",
        "MIG_CMD 0x8 deprecated (len 0x0)",
    ),
    # -- KVM, after everything is loaded ------------------------------------------------------------------------
    "kvm-sregs": _put("special registers"),
    "kvm-xsave": _put("XSAVE"),
    "kvm-xcr0": _put("XCRs"),
    "kvm-mp-state": _put("MP state"),
    "kvm-msr": (_msr("../../target/i386/kvm/kvm.c:3183"), _msr("target/i386/kvm/kvm.c:3877"),
                _msr("target/i386/kvm/kvm.c:4114")),
}  # fmt: skip

_FIELD = Wrap("Failed to load {vmsd}:{field}")
_OF_DEVICE = "error while loading state for instance 0x{instance:x} of device '{idstr}'"
_DEVICE = Wrap(_OF_DEVICE)
_PART = Wrap("error while loading state section id {signed_id}({idstr})")
_VIRTIO = Wrap(instead=_ELEMENT.format("virtio", "virtio"))

# level -> what it adds in 7.2, 10.0 and 11.1
WRAPS: dict[str, tuple[Wrap, Wrap, Wrap]] = {
    "field": (_FIELD, _FIELD, Wrap()),
    "virtio": (Wrap(), Wrap(), _VIRTIO),
    "subsection": (Wrap(), Wrap(), Wrap(prefix="Loading VM subsection '{name}' in '{vmsd}' failed: ")),
    "device": (_DEVICE, _DEVICE, Wrap(prefix=f"{_OF_DEVICE}: ", number=EINVAL)),
    "live": (_DEVICE, _DEVICE, Wrap(prefix=f"{_OF_DEVICE}: ")),
    "part": (_PART, _PART, Wrap()),
    "configuration": (Wrap(), Wrap(), Wrap(number=EINVAL)),
}

# Messages with which QEMU continues.
WARNINGS: dict[str, tuple[str, str, str]] = {
    "uuid": ("warning: UUID is received {received}, but local uuid isn't set",) * 3,
    "vmdesc": ("Expected vmdescription section, but got {found}",) * 3,
    "resume": (
        "loadvm_postcopy_handle_resume: illegal resume received",
        "loadvm_postcopy_handle_resume: illegal resume received",
        "warning: loadvm_postcopy_handle_resume: illegal resume received",
    ),
    "virtqueue-broken": (
        "VQ {queue} size 0x{size:x} Guest index 0x{avail:x} inconsistent with Host index 0x{last:x}: delta 0x{delta:x}",
    )
    * 3,
    "return-path-open": ("CMD_OPEN_RETURN_PATH called when RP already open",) * 3,
}


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - not an error of qmigtool, but a prediction of QEMU's
    """QEMU stops here, at ``offset`` in ``section``. A ``number`` of 0 means that no last line is printed."""

    rule: str
    words: Words
    values: dict[str, Any]
    offset: int | None = None
    section: str | None = None
    reports: list[str] = field(default_factory=list)
    cause: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        self.number = self.words.number
        self.reports = [
            type(text)(line) for text in self.words.reports for line in text.format_map(self.values).split("\n")
        ]
        self.cause = self.words.cause.format_map(self.values)

    def lines(self) -> tuple[str, ...]:
        """Return all lines that QEMU prints."""
        if not self.number:
            return tuple(self.reports)
        last = f"load of migration failed: {os.strerror(self.number)}"
        return (*self.reports, f"{last}: {self.cause}" if self.cause else last)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The messages of one version; ``index`` is its place in :data:`FAMILIES`."""

    index: int

    @property
    def family(self) -> tuple[int, int]:
        """The version of these messages."""
        return FAMILIES[self.index]

    def refusal(self, rule: str, offset: int | None = None, section: str | None = None, **values: Any) -> Refusal:
        """Return the refusal of a rule; ``values`` are the values in its message."""
        return Refusal(rule, REFUSALS[rule][self.index], values, offset, section)

    def wrap(self, refusal: Refusal, level: str, **values: Any) -> None:
        """Add what an enclosing level adds."""
        wrap = WRAPS[level][self.index]
        if not refusal.number:
            return  # QEMU has ended at once
        if wrap.report is not None:
            refusal.reports.append(wrap.report.format_map(values))
        if wrap.instead is not None:
            refusal.reports += [refusal.cause] if refusal.cause else []
            refusal.cause = wrap.instead
        if wrap.prefix:
            refusal.cause = wrap.prefix.format_map(values) + refusal.cause
        if wrap.number is not None and refusal.number:
            refusal.number = wrap.number

    def warning(self, name: str, **values: Any) -> str:
        """Return a message that QEMU prints without stopping."""
        return WARNINGS[name][self.index].format_map(values)


def printed(line: str, program: str) -> str:
    """Return a line as on the stderr of a QEMU program of this name."""
    return line if isinstance(line, Bare) else f"{program}: {line}"


def family_of(versions: Possible) -> Vocabulary:
    """Return the messages of a version: those of the family whose release had them first.

    10.2 propagates causes for the first time, 8.2 refuses more than 7.2. A version between two families may still
    differ from both in single words. Raises :class:`~qmigtool.preflight.target.versions.Split` for versions whose
    messages differ.
    """
    if versions.since((10, 2)):
        return Vocabulary(2)
    return Vocabulary(1) if versions.since((8, 2)) else Vocabulary(0)
