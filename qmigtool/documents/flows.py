"""The document that ``flows --json`` prints, and the picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qmigtool.tables import as_records, flows, passes

if TYPE_CHECKING:
    from qmigtool.stream.traffic import Moment, Timeline, Traffic

__all__ = ["flows_document", "rates", "when"]

SECOND = 1_000_000_000


def flows_document(traffic: Traffic, timelines: Sequence[Timeline]) -> dict[str, Any]:
    """Return the connections of a capture, and each migration in time; seconds count from the first packet."""
    capture = traffic.capture
    rows = as_records(flows.columns, flows.rows(traffic))
    for row, (_, one) in zip(rows, traffic.every, strict=True):
        row["holes"] = [{"offset": hole.offset, "length": hole.length} for hole in one.direction.holes]
        row["connection"] = one.connection.number
        row["began"], row["finished"], row["reset"] = (
            one.direction.began,
            one.direction.finished,
            one.direction.reset,
        )
    return {
        "packets": capture.packets,
        "start": None if traffic.start is None else when(traffic.start),
        "cut_at": capture.cut,
        "flows": rows,
        "other_connections": {"count": capture.dropped, "bytes": capture.dropped_bytes},
        "migrations": [_migration(traffic, one) for one in timelines],
        "problems": [] if capture.error is None else [capture.error.as_dict()],
    }


def _migration(traffic: Traffic, timeline: Timeline) -> dict[str, Any]:
    return {
        **timeline.migration.document(),
        "postcopy": timeline.postcopy,
        "stopped": _moment(traffic, timeline.stopped),
        "resumed": _moment(traffic, timeline.resumed),
        "downtime_at_least": timeline.downtime,
        "page_size": timeline.page_size,
        "passes": as_records(passes.columns, passes.rows(traffic, [timeline])),
        "problems": [problem.as_dict() for problem in timeline.problems],
    }


def _moment(traffic: Traffic, moment: Moment | None) -> dict[str, Any] | None:
    if moment is None or traffic.start is None:
        return None
    return {
        "seconds": (moment.time - traffic.start) / SECOND,
        "time": when(moment.time),
        "evidence": moment.evidence,
    }


def when(time: int) -> str:
    """Return a time (nanoseconds since 1970) in UTC, as RFC 3339 has it."""
    seconds, fraction = divmod(time, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def rates(traffic: Traffic, count: int) -> tuple[float, list[tuple[str, list[float]]]]:
    """Return the seconds of an interval, and the bytes a second of each channel of a migration in ``count`` of them."""
    begin, end = traffic.start, traffic.end
    if begin is None or end is None:
        return 0.0, []
    step = (end - begin) // count + 1
    return step / SECOND, [
        (f"{number} {one.role.value}", [size * SECOND / step for size in one.direction.sent(begin, step, count)])
        for number, one in traffic.every
        if number is not None
    ]
