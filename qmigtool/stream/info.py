"""The document that ``qmigtool info --json`` prints: the facts of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.errors import MigrationsError, StreamError
from qmigtool.parsers.section import Type
from qmigtool.parsers.source import BufferSource

if TYPE_CHECKING:
    from qmigtool.errors import QmigError, SnapshotsError
    from qmigtool.parsers.section import Section
    from qmigtool.stream.facts import Facts
    from qmigtool.stream.missing import Missing

__all__ = ["choices_document", "counts", "info_document", "lacking_memory", "problems_document"]

LOOKED_AT = 64 << 20  # bytes
CHUNK = 1 << 20
ZEROS = bytes(CHUNK)
# What can be in the file in addition to the stream: a hole (file:PATH,offset=N), padding or garbage.
AROUND = {"before": Type.PREFIX, "behind": Type.TAIL}


def lacking_memory(stream: Facts, *, whole: bool = True) -> Missing | None:
    """Return the memory that an intact stream does not have; only checked with ``whole``."""
    from qmigtool.stream.missing import missing_memory  # documents of single devices do not need it

    # In a broken stream, the error is the reason.
    return missing_memory(stream) if whole and not stream.problems else None


def counts(stream: Facts) -> tuple[int | None, int | None]:
    """Return the numbers of devices and of vCPUs; None for one of which reading stopped before the first."""
    devices, vcpus = len(stream.devices), sum(device.name == "cpu" for device in stream.devices)
    if stream.unreached is None:
        return devices, vcpus
    return devices or None, vcpus or None


def info_document(stream: Facts, lacking: Missing | None, *, whole: bool = True) -> dict[str, Any]:
    """Return the document; facts that need all of RAM's headers are None unless ``whole``."""
    from qmigtool.stream.missing import is_complete

    sections = stream.sections if whole else None  # first: only this finds the errors in RAM
    held, pages = stream.pages_held if whole else (None, None)
    configuration = stream.configuration
    raw_uuid = configuration.uuid if configuration is not None else None
    devices, vcpus = counts(stream)
    uuid = None
    if raw_uuid is not None:
        from uuid import UUID  # few streams have one

        uuid = str(UUID(bytes=raw_uuid))
    return {
        "container": stream.container.name,
        "compression": stream.container.compression,
        "container_details": stream.container.details,
        "domain": domain_document(stream),
        "layers": list(stream.container.removed),
        "size": stream.size,
        "file_size": stream.file_size,
        "machine": stream.machine,
        "page_size": stream.page_size,
        "page_size_inferred": stream.page_size_inferred,
        "accelerator": {
            "name": stream.accelerator.name,
            "evidence": list(stream.accelerator.evidence),
            "given": stream.accelerator.given,
        },
        "vcpus": vcpus,
        "devices": devices,
        "sections": None if sections is None else len(sections),
        "pages_held": held,
        "pages": pages,
        "pages_missing": (0 if lacking is None else lacking.pages) if whole and stream.stopped is None else None,
        "channels": stream.channels,
        "ram_blocks": [{"name": block.idstr, "size": block.used_length} for block in stream.ram_blocks],
        "shared_blocks": list(stream.shared_blocks) if whole else None,
        "capabilities": list(stream.capabilities),
        "uuid": uuid,
        "vmdesc": stream.vmdesc is not None,
        "schema_name": stream.schema_name,
        "strategy": stream.strategy,
        "proved": stream.proved,
        **{
            where: None if sections is None else sum(s.length for s in sections if s.type is kind)
            for where, kind in AROUND.items()
        },
        "behind_zero": None if sections is None or not sections else zeros_behind(stream, sections[-1]),
        "complete": is_complete(stream, lacking) if whole else None,
        **problems_document(stream),
    }


def domain_document(stream: Facts) -> dict[str, Any] | None:
    """Return what the XML of a libvirt save image says of the VM, or why it cannot be read; None for anything else."""
    header = stream.container.header
    if header is None:
        return None
    from qmigtool.parsers.domainxml import domain_facts  # few streams have one

    try:
        return domain_facts(header.xml)
    except StreamError as error:
        return {"unread": str(error)}


def zeros_behind(stream: Facts, last: Section) -> bool | None:
    """Return whether what follows the stream is zeros; None if nothing follows, or no data is in its first 64 MiB."""
    if last.type is not Type.TAIL or not isinstance(stream.source, BufferSource):
        return None
    for at in range(last.offset, min(last.end, last.offset + LOOKED_AT), CHUNK):
        size = min(CHUNK, last.end - at)
        if stream.source.view(at, size) != ZEROS[:size]:
            return False
        stream.source.passed(at + size)
    return True if last.length <= LOOKED_AT else None


def problems_document(stream: Facts, *more: QmigError) -> dict[str, Any]:
    """Return the ``problems`` of a document, and whether its device state is ``proved`` to belong to the stream."""
    return {"proved": stream.proved, "problems": [problem.as_dict() for problem in (*stream.problems, *more)]}


def choices_document(error: MigrationsError | SnapshotsError) -> dict[str, Any]:
    """Return the document about an image with several snapshots, or a capture with several migrations."""
    if isinstance(error, MigrationsError):
        return {"container": "pcap", "migrations": list(error.migrations)}
    return {"container": "qcow2", "snapshots": list(error.snapshots)}
