"""The configuration section (QEMU: ``vmstate_configuration`` in ``migration/savevm.c``).

It directly follows the file header, has no footer, and is decoded here without the vmdesc: the vmdesc describes it only
since QEMU 8.2, and gives a wrong length for a list of several capability names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.parsers.record import Blob, Fixed, ListOf, Record, Str8, decode_name, encode_name, record
from qmigtool.parsers.records import SectionType, Subsection
from qmigtool.parsers.vmdesc import Description, FieldDescription

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.parsers.window import Window

__all__ = ["COMPARED", "Configuration", "parse_configuration"]

SECTION = "configuration"
CAPABILITIES = "configuration/capabilities"
MAX_NAME = 255  # QEMU would allocate any length; machine types are much shorter
MAX_CAPABILITIES = 64  # the QAPI enumeration has fewer

COMPARED: Mapping[str, tuple[int, int]] = {"x-ignore-shared": (4, 0), "mapped-ram": (9, 0)}
"""The capabilities that the loading QEMU compares with its own, and the version that began; in the order of
the QAPI enumeration. One that a stream does not list is off in it."""


@record
class ConfigurationHeader(Record):
    """After the type byte: the machine type, without a NUL. Subsections follow."""

    machine_length: Annotated[int, Fixed("I", counts="machine")]
    machine: Annotated[bytes, Blob(lambda header: header.machine_length)]


@record
class TargetPageBits(Record):
    """Body of the subsection ``configuration/target-page-bits``."""

    page_bits: Annotated[int, Fixed("I", default=12)]


@record
class Capabilities(Record):
    """Body of the subsection ``configuration/capabilities``: the migration capabilities that are on, by name."""

    caps_count: Annotated[int, Fixed("I", counts="capabilities")]
    capabilities: Annotated[tuple[str, ...], ListOf(Str8(), lambda found: found.caps_count)]


@record
class VmUuid(Record):
    """Body of the subsection ``configuration/uuid``."""

    uuid: Annotated[bytes, Blob(16)]


CONFIGURATION_RECORDS: dict[str, type[Record]] = {
    "configuration/target-page-bits": TargetPageBits,
    CAPABILITIES: Capabilities,
    "configuration/uuid": VmUuid,
}
"""The body of each subsection."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The contents of the section; a subsection that was not sent is None or empty.

    ``page_size`` in bytes (from ``configuration/target-page-bits``), ``uuid`` as 16 raw bytes in text order.
    """

    machine: str
    page_size: int | None = None
    capabilities: tuple[str, ...] = ()
    uuid: bytes | None = None

    def build(self) -> bytes:
        """Return the section's body; undoes :func:`parse_configuration`."""
        machine = encode_name(self.machine)
        out = ConfigurationHeader(len(machine), machine).build()
        if self.page_size is not None:
            out += _subsection("target-page-bits") + TargetPageBits(self.page_size.bit_length() - 1).build()
        if self.capabilities:
            out += _subsection("capabilities") + Capabilities(len(self.capabilities), self.capabilities).build()
        if self.uuid is not None:
            out += _subsection("uuid") + VmUuid(self.uuid).build()
        return out

    def described(self, old: Description) -> Description:
        """Return QEMU's description of the section (in a vmdesc of 8.2 or later), from its description of ``old``."""
        name = replace(old.fields[1], size=len(encode_name(self.machine)))
        kept = [sub for sub in old.subsections if sub.name != CAPABILITIES]
        if self.capabilities:
            # All elements are described with the size of the first one: QEMU measures only that.
            count = len(self.capabilities)
            fields = (
                FieldDescription("caps_count", "uint32", 4, None, None, ()),
                FieldDescription(
                    "capabilities",
                    "capability",
                    1 + len(encode_name(self.capabilities[0])),
                    count if count > 1 else None,
                    None,
                    (),
                ),
            )
            at = sum(sub.name.endswith("target-page-bits") for sub in kept)
            kept.insert(at, Description.of(CAPABILITIES, 1, fields, ()))
        return Description.of(old.name, old.version, (old.fields[0], name, *old.fields[2:]), tuple(kept))


def _subsection(name: str) -> bytes:
    return Subsection(SectionType.QEMU_VM_SUBSECTION, f"configuration/{name}", 1).build()


def parse_configuration(window: Window, pos: int) -> tuple[Configuration, int]:
    """Read the section's body at ``pos`` (after the type byte); return it and the offset after it.

    Raises :class:`~qmigtool.errors.LimitError` for absurd lengths, :class:`~qmigtool.errors.UnsupportedError` for a
    unknown subsection: its length is not recorded.
    """
    length = window.be32(pos, "the machine type's length")
    if length > MAX_NAME:
        raise LimitError(
            f"a machine type of {length} bytes", offset=pos, section=SECTION, expected=f"at most {MAX_NAME}"
        )
    header, pos = ConfigurationHeader.parse(window, pos)
    page_size: int | None = None
    capabilities: tuple[str, ...] = ()
    uuid: bytes | None = None
    # There is no marker between the section and the next item, but no item starts with the subsection byte.
    while not window.at_end(pos) and window.u8(pos, "an item") == SectionType.QEMU_VM_SUBSECTION:
        head, body = Subsection.parse(window, pos)
        if head.idstr == "configuration/target-page-bits":
            found, pos = TargetPageBits.parse(window, body)
            bits = found.page_bits
            if not 8 <= bits <= 20:
                raise StreamError(f"{bits} page bits", offset=body, section=SECTION, expected="8 to 20")
            page_size = 1 << bits
        elif head.idstr == CAPABILITIES:
            capabilities, pos = _capabilities(window, body)
        elif head.idstr == "configuration/uuid":
            vm, pos = VmUuid.parse(window, body)
            uuid = vm.uuid
        else:
            raise UnsupportedError(f"configuration subsection {head.idstr!r}", offset=pos, section=SECTION)
    return Configuration(decode_name(header.machine), page_size, capabilities, uuid), pos


def _capabilities(window: Window, pos: int) -> tuple[tuple[str, ...], int]:
    count = window.be32(pos, "the number of capabilities")
    if count > MAX_CAPABILITIES:
        raise LimitError(f"{count} capabilities", offset=pos, section=SECTION, expected=f"at most {MAX_CAPABILITIES}")
    found, pos = Capabilities.parse(window, pos)
    return found.capabilities, pos
