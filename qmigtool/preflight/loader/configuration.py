"""The configuration section as the target loads it (``configuration_post_load`` in ``migration/savevm.c``)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from qmigtool.parsers.configuration import COMPARED, Configuration
from qmigtool.parsers.record import decode_name, encode_name
from qmigtool.parsers.records import SectionType
from qmigtool.preflight.loader.state import signed
from qmigtool.preflight.loader.words import Refusal
from qmigtool.preflight.target.names import CAPABILITIES as NAMES
from qmigtool.preflight.target.names import CAPABILITIES_CAME, CAPABILITIES_WENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.preflight.loader.state import Load

__all__ = ["load_configuration"]

VMSD = "configuration"
VERSION, MINIMUM = 1, 0
PAGE_BITS, CAPABILITIES, UUID = (f"{VMSD}/{name}" for name in ("target-page-bits", "capabilities", "uuid"))


def load_configuration(load: Load) -> None:
    """Load the section, if the target expects one; raises :class:`~.words.Refusal`."""
    if not load.is_on("send-configuration", True):
        return
    start = load.cursor.pos
    found = load.cursor.u8()
    if found != SectionType.QEMU_VM_CONFIGURATION:
        raise load.refuse("configuration-missing", start, found=found)
    try:
        _body(load)
    except Refusal as refusal:
        refusal.section = VMSD
        load.words.wrap(refusal, "configuration")
        raise


def _body(load: Load) -> None:
    cursor = load.cursor
    start = cursor.pos
    length = cursor.be32()
    _whole(load, start, VMSD, "len")
    if length >= 1 << 31:
        load.note("QEMU treats the length of the machine type as a negative number, and aborts")
        raise load.refuse("configuration-length", start)
    machine = cursor.take(length)
    _whole(load, start, VMSD, "name")
    given: dict[str, Configuration] = {}
    while cursor.look() == SectionType.QEMU_VM_SUBSECTION:
        at = cursor.pos
        count = cursor.peek(1, 1) or b"\0"
        raw = cursor.peek(count[0], 2)
        if len(raw) < max(count[0], len(VMSD) + 1) or not raw.startswith(encode_name(VMSD)):
            break
        name = decode_name(raw.partition(b"\0")[0])
        loader = _LOADERS.get(name)
        if loader is None:
            raise load.refuse("unknown-subsection", at, name=name, vmsd=VMSD)
        cursor.skip(2 + count[0])
        version = cursor.be32() & 0xFF
        try:
            if version != 1:
                rule = "version-too-new" if version > 1 else "version-too-old"
                raise load.refuse(rule, at, vmsd=name, received=version, local=1)
            given[name] = loader(load)
        except Refusal as refusal:
            load.words.wrap(refusal, "subsection", name=name, vmsd=VMSD)
            raise
    bits = given.get(PAGE_BITS)
    names = given[CAPABILITIES].capabilities if CAPABILITIES in given else ()
    load.configuration = Configuration(decode_name(machine), bits.page_size if bits else None, names)
    load.capabilities = frozenset(names)
    _compare(load, start, machine, bits.page_size if bits else None)


def _whole(load: Load, start: int, vmsd: str, field: str) -> None:
    """Refuse a field that is truncated by the end of the file."""
    if load.cursor.failed:
        refusal = load.refuse("body-cut", start, vmsd=vmsd)
        load.words.wrap(refusal, "field", vmsd=vmsd, field=field)
        raise refusal


def _compare(load: Load, start: int, machine: bytes, bits: int | None) -> None:
    target = load.target
    hook: dict[str, Any] = {"vmsd": VMSD, "version": VERSION, "minimum": MINIMUM}
    if target.machine is None:
        load.doubt("the machine type of the target")
    elif not _equal(machine, encode_name(target.machine)):
        received = decode_name(machine.split(b"\0")[0])
        raise load.refuse("machine-type", start, received=received, local=target.machine, **hook)
    if bits is not None and target.page_bits is None:
        load.doubt("the page size of the target")
    elif bits is not None and bits != target.page_bits:
        raise load.refuse("page-bits", start, received=signed(bits), local=target.page_bits, **hook)
    for name, since in COMPARED.items():
        local, sent = load.has(name), name in load.capabilities
        if local == sent or not load.since(since):
            continue
        if local is None:
            told = load.doubt if sent else load.miss
            told(
                f"whether the target has the capability {name} {_state(sent)}, as in the stream: "
                "query-migrate-capabilities decides it"
            )
        else:
            states = {"local": _state(local), "received": _state(sent)}
            raise load.refuse("capability", start, name=name, **states, **hook)


def _state(on: bool) -> str:
    return "on" if on else "off"


def _equal(received: bytes, local: bytes) -> bool:
    """Compare like strncmp with the received length: a prefix of the local name is equal to it."""
    text, nul, _ = received.partition(b"\0")
    return local == text if nul else local.startswith(text)


def _page_bits(load: Load) -> Configuration:
    start = load.cursor.pos
    bits = load.cursor.be32()
    _whole(load, start, PAGE_BITS, "target_page_bits")
    return Configuration("", bits)  # the raw number, because 1 << it may be huge


def _capabilities(load: Load) -> Configuration:
    cursor = load.cursor
    start = cursor.pos
    count = cursor.be32()
    _whole(load, start, CAPABILITIES, "caps_count")
    names = []
    for _ in range(count):
        at = cursor.pos
        name = cursor.name()
        if not _is_known(name, load):
            refusal = load.refuse("unknown-capability", at, name=name)
            load.words.wrap(refusal, "field", vmsd=CAPABILITIES, field="capabilities")
            raise refusal
        names.append(name)
    return Configuration("", capabilities=tuple(dict.fromkeys(names)))


def _is_known(name: str, load: Load) -> bool:
    if name in CAPABILITIES_CAME:
        return load.since(CAPABILITIES_CAME[name])
    return name in NAMES and not (name in CAPABILITIES_WENT and load.since(CAPABILITIES_WENT[name]))


def _uuid(load: Load) -> Configuration:
    start = load.cursor.pos
    raw = load.cursor.take(16)
    _whole(load, start, UUID, "uuid.data")
    received, local = str(uuid.UUID(bytes=raw)), load.target.uuid
    if local is None:
        load.doubt("the target's -uuid, which must equal the stream's: `uuid` of a TOML target decides it")
    elif not local:
        load.warn("uuid", received=received)
    elif local.lower() != received:
        raise load.refuse("uuid", start, received=received, local=local.lower(), vmsd=UUID, version=1, minimum=1)
    return Configuration("", uuid=raw)


_LOADERS: dict[str, Callable[[Load], Configuration]] = {
    PAGE_BITS: _page_bits,
    CAPABILITIES: _capabilities,
    UUID: _uuid,
}
