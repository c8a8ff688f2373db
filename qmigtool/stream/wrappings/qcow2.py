"""A qcow2 image: the stream is the state of one of its snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from qmigtool.errors import SnapshotsError, UnsupportedError, UsageError
from qmigtool.parsers.container import ContainerKind, Magic
from qmigtool.parsers.qcow2 import Snapshot, read_qcow2
from qmigtool.parsers.qcow2state import state_pieces
from qmigtool.stream.unwrapped import Unwrapped, Wrapping, cut, head_of, require_stream, spooled

__all__ = ["QCOW2", "choose_snapshot"]

SHOWN_SNAPSHOTS = 20  # in a message


def _qcow2(found: Unwrapped, _magic: Magic, wanted: str | None) -> Unwrapped:
    if found.start:
        raise UnsupportedError("a qcow2 image inside another container", offset=found.start)
    image = read_qcow2(found.source)
    snapshot = choose_snapshot(image.snapshots, wanted)
    details = {"snapshot": snapshot.name, "snapshot_id": snapshot.id, "vm_state_size": snapshot.vm_state_size}
    container = found.container.without("qcow2", name="qcow2", details=details)
    pieces = state_pieces(found.source, image, snapshot)
    head, data, _ = head_of(pieces)
    require_stream(data, f"the state of snapshot {snapshot.name!r}")
    made = spooled(found, container, chain(head, pieces))
    # Only the last cluster is longer than what was written; a mapped-ram stream is longer than what was transferred.
    if 0 <= len(made.source.whole) - snapshot.vm_state_size < image.cluster_size:
        made = replace(made, source=cut(made.source, snapshot.vm_state_size))
    return made


def choose_snapshot(snapshots: Sequence[Snapshot], wanted: str | None) -> Snapshot:
    """Return the selected snapshot, or the only one of a running machine."""
    live = [one for one in snapshots if one.vm_state_size]
    if wanted is not None:
        # A name is preferred to an id, and a machine to a disk, as loadvm does.
        for found in (live, snapshots):
            for one in (*(s for s in found if s.name == wanted), *(s for s in found if s.id == wanted)):
                if not one.vm_state_size:
                    raise UnsupportedError(
                        "a snapshot of disks only",
                        f"snapshot {wanted!r} has no machine state, only that of a disk",
                        offset=0,
                        section="qcow2",
                        expected=f"one of {_named(live)}" if live else None,
                    )
                return one
        raise UsageError(f"no snapshot {wanted!r}", expected=f"one of {_named(live)}" if live else None)
    if not live:
        disks = f": its snapshots are of disks only, {_named(snapshots)}" if snapshots else ""
        raise UnsupportedError(
            "a qcow2 image without a snapshot of a running machine",
            f"this is a qcow2 image without a snapshot of a running machine{disks}",
            offset=0,
            section="qcow2",
        )
    if len(live) > 1:
        raise SnapshotsError(
            "this qcow2 image has several snapshots",
            expected=f"--snapshot with one of {_named(live)}",
            snapshots=tuple({"name": one.name, "id": one.id, "vm_state_size": one.vm_state_size} for one in snapshots),
        )
    return live[0]


def _named(snapshots: Sequence[Snapshot]) -> str:
    more = f" and {len(snapshots) - SHOWN_SNAPSHOTS} more" if len(snapshots) > SHOWN_SNAPSHOTS else ""
    return ", ".join(f"{one.name!r} (id {one.id})" for one in snapshots[:SHOWN_SNAPSHOTS]) + more


QCOW2 = Wrapping(ContainerKind.QCOW2, _qcow2)
