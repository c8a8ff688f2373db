"""The tables: schema by literals, rows against samples, and dtypes that do not depend on the data."""

import pandas as pd
import pytest

import qmigtool
from qmigtool import tables
from tests import samplefiles
from tests.streamwriter import PAGE, StreamWriter, Vmsd, be64, capabilities, eos, mem_size, num, x86_cpu, zero

SCHEMAS = {
    "sections": {
        "type": "category", "section_id": "UInt32", "name": "category", "instance_id": "UInt32",
        "version_id": "UInt32", "offset": "UInt64", "length": "UInt64", "measured": "category", "complete": "boolean",
    },
    "devices": {
        "name": "category", "instance_id": "UInt32", "version_id": "UInt32", "section_id": "UInt32",
        "offset": "UInt64", "length": "UInt64", "vmsd": "category",
    },
    "fields": {
        "device": "category", "instance_id": "UInt32", "path": "string", "type": "category", "offset": "UInt64",
        "length": "UInt64", "value": "object",
    },
    "ram_blocks": {"name": "category", "used_length": "UInt64", "page_size": "UInt64", "mr_addr": "UInt64"},
    "vcpus": {
        "vcpu": "UInt32", "xcr0": "UInt64", "xss": "UInt64", "xstate_bv": "UInt64", "xstate_bv_recomputed": "UInt64",
        "carried": "UInt64", "live": "UInt64", "mxcsr": "UInt64",
    },
    "xsave_components": {
        "vcpu": "UInt32", "bit": "UInt8", "name": "category", "enabled": "boolean", "declared": "boolean",
        "carried": "boolean", "live": "boolean", "size": "UInt32", "standard_offset": "UInt32",
        "compacted_offset": "UInt32",
    },
    "layouts": {
        "layout": "category", "title": "category", "bit": "UInt8", "name": "category", "supervisor": "boolean",
        "size": "UInt32", "standard_offset": "UInt32", "align64": "boolean", "absent": "string",
    },
}  # fmt: skip
OF_STREAMS = [name for name in SCHEMAS if name != "layouts"]


def schema(frame):
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def empty():
    w = StreamWriter(None)
    return qmigtool.open(w.finish())


@pytest.mark.parametrize("name", SCHEMAS)
def test_columns(name):
    table = getattr(tables, name)
    assert table.name == name
    assert {column.name: column.dtype for column in table.columns} == SCHEMAS[name]
    assert all(column.name in table.__doc__ and column.meaning in table.__doc__ for column in table.columns)


@pytest.mark.parametrize("name", OF_STREAMS)
def test_dtypes_do_not_depend_on_the_data(name):
    table = getattr(tables, name)
    with qmigtool.open(samplefiles.path("twin-kvm-10.0")) as stream:
        full = table(stream)
    with empty() as stream:
        none = table(stream)
    assert schema(full) == schema(none) == SCHEMAS[name]
    assert len(full) > 0
    assert (len(none) == 0) is (name != "sections")


def test_layouts():
    frame = tables.layouts()
    assert schema(frame) == SCHEMAS["layouts"]
    zen4 = frame[(frame.layout == "amd-zen4") & (frame.bit == 9)].iloc[0]
    assert (zen4["name"], zen4["size"], zen4.standard_offset) == ("PKRU", 8, 2432)
    assert set(tables.layouts(qmigtool.layout("amd-zen4")).layout) == {"amd-zen4"}


def test_the_largest_numbers_survive():
    """A missing value beside it would turn plain uint64 into floats, and 2**64 - 1 into something else."""
    top = (1 << 64) - 1
    w = StreamWriter(config=capabilities("x-ignore-shared"))
    w.start(0xFFFFFFFF, "ram", 0xFFFFFFFF, 4, mem_size([("r", PAGE, be64(top)), ("s", PAGE, be64(0))]) + eos())
    w.end(0xFFFFFFFF, zero(0, "r") + eos())
    w.device(2, "cpu", 0, x86_cpu(xcr0=top, xstate_bv=top))
    w.device(3, "cpu", 0xFFFFFFFF, x86_cpu())
    w.device(4, "d", 0, Vmsd("d", 0xFFFFFFFF, [num("x", "uint64", top), num("y", "int64", -1)]))
    with qmigtool.open(w.finish()) as stream:
        assert tables.ram_blocks(stream).mr_addr.tolist() == [top, 0]
        assert tables.vcpus(stream).xcr0.tolist() == [top, 7]
        assert tables.vcpus(stream).vcpu.tolist() == [0, 0xFFFFFFFF]
        fields = tables.fields(stream, stream.device("d"))
        assert fields["value"].tolist() == [top, -1]
        sections = tables.sections(stream)
        assert sections.section_id.dropna().max() == 0xFFFFFFFF
        assert sections.section_id.isna().sum() == 4
        assert tables.devices(stream).version_id.max() == 0xFFFFFFFF


def test_names_of_any_bytes():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([(b"\xff\x00\n", PAGE)]) + eos())
    with qmigtool.open(w.finish()) as stream:
        assert stream.ram_blocks[0].idstr == "\udcff\x00\n"
        frame = tables.ram_blocks(stream)
    assert frame["name"].tolist() == ["\\xff\x00\n"]
    frame.to_csv().encode()
    assert "xff" in str(pd.concat([frame, frame]))


def test_frames_of_two_files_keep_their_categories():
    frames = []
    for name in ("pc-7.2", "microvm-10.0"):
        with qmigtool.open(samplefiles.path(name)) as stream:
            frames.append(tables.fields(stream))
    both = tables.concat(frames)
    assert [str(kind) for kind in both.dtypes] == [str(kind) for kind in frames[0].dtypes]
    assert len(both) == sum(map(len, frames))
    assert both["device"].tolist() == [name for frame in frames for name in frame["device"]]
    assert tables.concat([]).empty


def test_a_frame_of_fields_can_be_written_anywhere():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        frame = tables.fields(stream)
        plain = tables.plain(frame)
    assert "object" not in map(str, plain.dtypes)
    values = zip(frame["value"], plain["value"], strict=True)
    assert all(text == (old.hex() if isinstance(old, bytes) else str(old)) for old, text in values)


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow writes Parquet")
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        plain = tables.plain(tables.fields(stream))
    plain.to_parquet(tmp_path / "fields.parquet")
    assert pd.read_parquet(tmp_path / "fields.parquet")["value"].tolist() == plain["value"].tolist()


@pytest.mark.parametrize("name", OF_STREAMS)
def test_rows_are_what_the_frame_has(name):
    table = getattr(tables, name)
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        rows = list(table.rows(stream))
        frame = table(stream)
        assert len(rows) == len(frame)
        assert {len(row) for row in rows} == {len(table.columns)}
        for row, (_, values) in zip(rows[:200], frame.head(200).iterrows(), strict=True):
            found = [None if not isinstance(v, bytes) and pd.isna(v) else v for v in values]
            assert list(row) == found


def test_the_components_of_a_sample():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        frame = tables.xsave_components(stream)
        assert frame[frame.vcpu == 3]["name"].tolist()[:3] == ["x87", "SSE", "AVX"]
        avx = frame[(frame.vcpu == 0) & (frame["name"] == "AVX")].iloc[0]
        flags = (avx.enabled, avx.declared, avx.carried, avx.live)
        assert flags == (True, False, True, False)
        assert (avx["size"], avx.standard_offset) == (256, 576)
        zen4 = tables.xsave_components(stream, qmigtool.layout("amd-zen4"))
        assert zen4[(zen4.vcpu == 0) & (zen4.bit == 9)].standard_offset.tolist() == [2432]


def test_fields_cover_every_byte_of_a_body_once():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        device = stream.device("apic@0")
        frame = tables.fields(stream, device)
        assert frame.length.sum() == device.section.body_length
        assert device.field(frame.path.iloc[0]).value == frame["value"].iloc[0]
