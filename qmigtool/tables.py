"""Every list that qmigtool shows: as rows, and as a pandas DataFrame with fixed dtypes.

A table is called with a stream (:data:`layouts` without one) and returns a DataFrame::

    frame = qmigtool.tables.xsave_components(stream)

Of several streams (``xsave_components(a, b)``) it has the rows of all, and a first column ``file``.
``table.rows(...)`` yields plain tuples without pandas, ``table.columns`` the schema. The dtypes never depend on the
data: integers are nullable (``UInt64`` and so on, because a missing value would turn plain ``uint64`` into floats and
corrupt it), names are ``category``, flags ``boolean``. Names that are not UTF-8 are escaped in frames (``\\xff``).
:func:`pandas.concat` joins frames of several files, and ``to_parquet`` writes them to files: see
:class:`qmigtool.util.frame.Frame`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec

from qmigtool.parsers.vmstate import leaves
from qmigtool.util.text import hexadecimal
from qmigtool.xsave import COMPONENTS, SUPERVISOR_MASK, bits, layout, layout_names
from qmigtool.xsave.components import bit_name

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.vmstate import Field
    from qmigtool.stream.model import Stream
    from qmigtool.stream.traffic import Timeline, Traffic
    from qmigtool.util.frame import Frame
    from qmigtool.xsave import Layout

__all__ = [
    "FILE",
    "Column",
    "StreamTable",
    "Table",
    "as_records",
    "devices",
    "fields",
    "flows",
    "layouts",
    "passes",
    "ram_blocks",
    "ram_usage",
    "sections",
    "table",
    "vcpus",
    "xsave_components",
]

P = ParamSpec("P")
Row = tuple[Any, ...]


class Column(NamedTuple):
    """A column; ``mask``: text and JSON show its numbers in hexadecimal.

    ``by`` names the column whose values give the categories of this one their order.
    """

    name: str
    dtype: str
    meaning: str
    mask: bool = False
    by: str = ""


@dataclass(frozen=True)
class Table(Generic[P]):
    """A table: call it for a DataFrame, or take its :attr:`rows`."""

    name: str
    columns: tuple[Column, ...]
    rows: Callable[P, Iterator[Row]]
    __doc__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Frame:
        """Return the rows as a DataFrame with the dtypes of :attr:`columns`."""
        return _frame(self.columns, self.rows(*args, **kwargs))


class StreamTable(Table[...]):
    """A table of one stream, or of several: then its first column is ``file``, the name of each stream's file."""

    def columns_of(self, *streams: Stream) -> tuple[Column, ...]:
        """Return the columns of the rows of these streams."""
        return self.columns if len(streams) == 1 else (FILE, *self.columns)

    def __call__(self, *streams: Stream, **options: Any) -> Frame:
        """Return the rows of all streams as a DataFrame with the dtypes of :meth:`columns_of`."""
        return _frame(self.columns_of(*streams), self.rows(*streams, **options))


FILE = Column("file", "category", "the file of the stream")


def as_records(columns: Sequence[Column], rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows as JSON objects: masks are text in hexadecimal."""
    return [
        {column.name: hexadecimal(value) if column.mask else value for column, value in zip(columns, row, strict=True)}
        for row in rows
    ]


def _frame(columns: Sequence[Column], found: Iterable[Row]) -> Frame:
    """Return rows as a DataFrame with the dtypes of ``columns``."""
    import pandas as pd

    from qmigtool.util.frame import Frame, encodable, in_order

    rows = list(found)
    series: dict[str, Any] = {}
    for i, column in enumerate(columns):
        # Categories are nullable strings, so that a column of missing names has the same type as any other.
        text = column.dtype in ("category", "string")
        first: Any = pd.StringDtype("python") if text else column.dtype
        cells = [encodable(cell) if isinstance(cell, str) else cell for cell in (row[i] for row in rows)]
        made = pd.Series(cells, dtype=first)
        series[column.name] = made.astype("category") if column.dtype == "category" else made
    return in_order(Frame(series), {column.name: column.by for column in columns if column.by})


def table(*columns: Column) -> Callable[[Callable[P, Iterator[Row]]], Table[P]]:
    """Make a :class:`Table` of a function that yields rows with these columns."""

    def make(rows: Callable[P, Iterator[Row]]) -> Table[P]:
        name = rows.__name__.strip("_")
        made = Table(name, columns, rows, _described(rows.__doc__, columns))
        object.__setattr__(made, "__signature__", inspect.signature(rows))  # what help() shows
        return made

    return make


def stream_table(*columns: Column) -> Callable[[Callable[Concatenate[Stream, P], Iterator[Row]]], StreamTable]:
    """Make a :class:`StreamTable` of a function that yields the rows of one stream with these columns."""

    def make(one: Callable[Concatenate[Stream, P], Iterator[Row]]) -> StreamTable:
        name = one.__name__.strip("_")

        def rows(*streams: Stream, **options: Any) -> Iterator[Row]:
            for stream in streams:
                for row in one(stream, **options):  # type: ignore[call-arg] # the options that P has
                    yield row if len(streams) == 1 else (stream.source.name, *row)

        made = StreamTable(
            name, columns, rows, _described(f"{one.__doc__} Of several streams, with a column file.", columns)
        )
        of_one = inspect.signature(one)
        streams = inspect.Parameter("streams", inspect.Parameter.VAR_POSITIONAL, annotation="Stream")
        options = list(of_one.parameters.values())[1:]
        object.__setattr__(made, "__signature__", of_one.replace(parameters=[streams, *options]))  # what help() shows
        return made

    return make


def _described(text: str | None, columns: Sequence[Column]) -> str:
    """Return the docstring of a table: what it has, and its columns."""
    width = max(len(c.name) for c in columns)
    schema = "\n".join(f"    {c.name:{width}}  {c.dtype:9} {c.meaning}" for c in columns)
    return f"{text}\n\nColumns::\n\n{schema}\n"


@stream_table(
    Column(
        "type",
        "category",
        "prefix, header, configuration, start, part, end, full, command, eof, vmdesc, tail, unreadable",
    ),
    Column("section_id", "UInt32", "as START or FULL has it; missing for items that are not sections"),
    Column("name", "category", "idstr, or a command's name"),
    Column("instance_id", "UInt32", "instance"),
    Column("version_id", "UInt32", "version"),
    Column("offset", "UInt64", "byte where the item starts"),
    Column("length", "UInt64", "bytes, header and footer included"),
    Column("measured", "category", "how the end of the body was found: records, vmdesc, footer search, schema"),
    Column("complete", "boolean", "False for the item in which the input ends or breaks"),
)
def sections(stream: Stream) -> Iterator[Row]:
    """Every item of the stream in order; together they cover every byte."""
    for s in stream.sections:
        yield (
            s.type.value, s.section_id, s.name, s.instance_id, s.version_id,
            s.offset, s.length, s.measured, s.complete,
        )  # fmt: skip


@stream_table(
    Column("name", "category", "idstr"),
    Column("instance_id", "UInt32", "instance"),
    Column("version_id", "UInt32", "version"),
    Column("section_id", "UInt32", "section id"),
    Column("offset", "UInt64", "byte where the body starts"),
    Column("length", "UInt64", "bytes of the body"),
    Column("vmsd", "category", "name of the vmstate description; missing without one"),
)
def devices(stream: Stream) -> Iterator[Row]:
    """The sections of device state, without RAM."""
    for d in stream.devices:
        yield (
            d.name, d.instance_id, d.version_id, d.section.section_id, d.section.body_offset, d.section.body_length,
            d.description.name if d.description is not None else None,
        )  # fmt: skip


@table(
    Column("device", "category", "idstr"),
    Column("instance_id", "UInt32", "instance"),
    Column("path", "string", "path inside the device"),
    Column("type", "category", "the type as in the vmdesc"),
    Column("offset", "UInt64", "byte where the field starts"),
    Column("length", "UInt64", "bytes"),
    Column("value", "object", "int, bool, str or bytes"),
)
def fields(stream: Stream, device: Device | None = None, inside: Field | None = None) -> Iterator[Row]:
    """Every leaf of device state: of all devices, of one, or inside one of its fields."""
    for d in stream.devices if device is None else (device,):
        for path, field in leaves(d.fields if inside is None else (inside,)):
            yield d.name, d.instance_id, path, field.type, field.offset, field.length, field.value


@stream_table(
    Column("name", "category", "RAMBlock name"),
    Column("used_length", "UInt64", "bytes"),
    Column("page_size", "UInt64", "bytes, where postcopy announced another page size"),
    Column("mr_addr", "UInt64", "guest-physical address, with x-ignore-shared", mask=True),
)
def ram_blocks(stream: Stream) -> Iterator[Row]:
    """The RAMBlocks, in the order of the stream."""
    for block in stream.ram_blocks:
        yield block.idstr, block.used_length, block.page_size, block.mr_addr


@stream_table(
    Column("name", "category", "RAMBlock name"),
    Column("pages", "UInt64", "pages of the block"),
    Column("sent", "UInt64", "pages sent, each time counted"),
    Column("distinct", "UInt64", "pages sent at least once and not discarded"),
    Column("zero", "UInt64", "pages whose last record is a zero page"),
    Column("absent", "UInt64", "pages that are in none of the given channels"),
    Column("encodings", "string", "pages sent by encoding"),
)
def ram_usage(stream: Stream) -> Iterator[Row]:
    """How each RAMBlock was sent."""
    from qmigtool.ram import usage  # numpy is needed only for memory

    yield from map(usage.row, usage.blocks(stream.ram))


@stream_table(
    Column("vcpu", "UInt32", "instance of the cpu section"),
    Column("xcr0", "UInt64", "XCR0", mask=True),
    Column("xss", "UInt64", "IA32_XSS", mask=True),
    Column("xstate_bv", "UInt64", "XSTATE_BV as declared", mask=True),
    Column("xstate_bv_recomputed", "UInt64", "XSTATE_BV recomputed from the contents (user components)", mask=True),
    Column("carried", "UInt64", "components whose fields the stream holds", mask=True),
    Column("live", "UInt64", "components that differ from their initial configuration", mask=True),
    Column("mxcsr", "UInt64", "MXCSR", mask=True),
)
def vcpus(stream: Stream) -> Iterator[Row]:
    """The x86 vCPUs, one row each."""
    for v in stream.vcpus:
        yield v.index, v.xcr0, v.xss, v.xstate_bv, v.live & ~SUPERVISOR_MASK, v.carried, v.live, v.mxcsr


@stream_table(
    Column("vcpu", "UInt32", "instance of the cpu section"),
    Column("bit", "UInt8", "the component's bit"),
    Column("name", "category", "the component; ordered by bit", by="bit"),
    Column("enabled", "boolean", "XCR0 (supervisor components: IA32_XSS) has the bit"),
    Column("declared", "boolean", "XSTATE_BV has the bit, as the stream declares it"),
    Column("carried", "boolean", "the stream holds the component's fields"),
    Column("live", "boolean", "the contents differ from the initial configuration"),
    Column("size", "UInt32", "bytes"),
    Column("standard_offset", "UInt32", "byte in a standard area of the layout; missing if it has no place there"),
    Column(
        "compacted_offset",
        "UInt32",
        "byte in a compacted area of the layout with the components that the vCPU has enabled",
    ),
)
def xsave_components(stream: Stream, *, layout: Layout | None = None) -> Iterator[Row]:
    """One row per vCPU and component that any vCPU has; offsets in ``layout`` (default: QEMU's own)."""
    place = layout or _default_layout()
    shown = 0
    for v in stream.vcpus:
        shown |= v.enabled | v.xstate_bv | v.carried | v.live
    for v in stream.vcpus:
        compacted = place.compacted_offsets(v.enabled & place.mask)
        for bit in bits(shown):
            row = place.rows.get(bit)
            known = COMPONENTS.get(bit)
            legacy = bit < 2
            yield (
                v.index,
                bit,
                bit_name(bit),
                *(bool(mask >> bit & 1) for mask in (v.enabled, v.xstate_bv, v.carried, v.live)),
                row.size if row is not None else known.size if known is not None else None,
                LEGACY_OFFSETS[bit] if legacy else row.offset if row is not None and not row.supervisor else None,
                LEGACY_OFFSETS[bit] if legacy else compacted.get(bit),
            )


# x87 and SSE are in the legacy region, in both formats; SSE's first byte is MXCSR.
LEGACY_OFFSETS = (0, 24)


def _default_layout() -> Layout:
    return layout("qemu")


@table(
    Column("migration", "UInt32", "number of the migration that it belongs to; missing for other connections"),
    Column("role", "category", "main, multifd, preempt, return path, recovery, unknown, TLS, other"),
    Column("name", "string", "source and destination"),
    Column("bytes", "UInt64", "bytes of the direction, those that were not captured included"),
    Column("missing", "UInt64", "bytes that were not captured"),
    Column("start", "Float64", "seconds from the first packet to the first with data; missing without times"),
    Column("seconds", "Float64", "seconds from that to the last packet with data"),
    Column("rate", "Float64", "bytes in a second, on average"),
    Column("segments", "UInt64", "TCP segments with data"),
    Column("repeated", "UInt64", "bytes that were captured again"),
    Column("conflicts", "UInt64", "segments with other bytes in the same place"),
    Column("evidence", "string", "why it belongs to the migration"),
)
def flows(traffic: Traffic) -> Iterator[Row]:
    """The directions of the connections of a capture (:func:`qmigtool.stream.traffic.read_traffic`) that had data."""
    begin = traffic.start
    for number, one in traffic.every:
        way = one.direction
        seconds = _seconds(way.first, way.last)
        yield (
            number,
            one.role.value,
            one.name,
            way.size,
            sum(hole.length for hole in way.holes),
            _seconds(begin, way.first),
            seconds,
            way.size / seconds if seconds else None,
            way.segments,
            way.repeated,
            way.conflict_count,
            one.evidence or None,
        )


@table(
    Column("migration", "UInt32", "number of the migration"),
    Column("pass", "UInt32", "number of the pass, from 0"),
    Column("pages", "UInt64", "pages sent"),
    Column("zero", "UInt64", "zero pages among them"),
    Column("bytes", "UInt64", "bytes of their records"),
    Column("start", "Float64", "seconds from the first packet of the capture to the first page"),
    Column("seconds", "Float64", "seconds from that to the last page"),
    Column("dirtied", "Float64", "pages that the guest wrote in a second meanwhile: those that the next pass sends"),
)
def passes(traffic: Traffic, timelines: Iterable[Timeline] | None = None) -> Iterator[Row]:
    """The passes over guest memory of each migration in a capture, before postcopy."""
    begin = traffic.start
    for timeline in map(traffic.timeline, traffic.migrations) if timelines is None else timelines:
        for one in timeline.passes:
            yield (
                timeline.migration.number,
                one.number,
                one.pages,
                one.zero,
                one.size,
                _seconds(begin, one.start),
                _seconds(one.start, one.end),
                one.dirtied,
            )


def _seconds(start: int | None, end: int | None) -> float | None:
    """Return the seconds between two times in nanoseconds; None where one is not known."""
    return None if start is None or end is None else (end - start) / 1e9


@table(
    Column("layout", "category", "short name"),
    Column("title", "category", "the CPU or guest"),
    Column("bit", "UInt8", "the component's bit"),
    Column("name", "category", "the component; ordered by bit", by="bit"),
    Column("supervisor", "boolean", "enabled by IA32_XSS, and only in compacted areas"),
    Column("size", "UInt32", "bytes"),
    Column("standard_offset", "UInt32", "byte in a standard area; missing for supervisor components"),
    Column("align64", "boolean", "starts on a multiple of 64 in a compacted area"),
    Column("absent", "string", "why the component cannot be used although the CPU advertises it; missing if it can"),
)
def layouts(*which: Layout) -> Iterator[Row]:
    """The components of layouts above SSE (default: all built-in ones)."""
    for one in which or [layout(name) for name in layout_names()]:
        for bit in sorted({*one.rows, *one.absent}):
            row = one.rows.get(bit)
            yield (
                one.name,
                one.title,
                bit,
                bit_name(bit),
                row.supervisor if row is not None else None,
                row.size if row is not None else None,
                row.offset if row is not None and not row.supervisor else None,
                row.align64 if row is not None else None,
                one.absent.get(bit),
            )
