"""The tables: schema by literals, rows against samples, and dtypes that do not depend on the data."""

import pandas as pd
import pyarrow
import pytest

import qmigtool
from qmigtool import tables
from qmigtool.util.frame import Frame
from tests.support import samplefiles
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    Vmsd,
    be64,
    capabilities,
    eos,
    mem_size,
    num,
    raw,
    x86_cpu,
    zero,
)

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
    """A missing value next to it would turn plain uint64 into floats, and 2**64 - 1 into something else."""
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


NAME = b"\xff\x00\n"
ESCAPED = "\\xff\x00\n"


def of_any_bytes():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([(NAME, PAGE)]) + eos())
    text = raw("t", b"\x04a\xffb\xc3", "capability")
    w.device(2, "d", 0, Vmsd("d", 1, [num("x", "uint8", 1), text]))
    return qmigtool.open(w.finish())


def test_names_of_any_bytes_are_escaped_in_frames_alone(tmp_path):
    with of_any_bytes() as stream:
        assert stream.ram_blocks[0].idstr == "\udcff\x00\n"
        assert stream.device("d").field("t").value == "a\udcffb\udcc3"
        blocks, fields = tables.ram_blocks(stream), tables.fields(stream)
    assert blocks["name"].tolist() == [ESCAPED]
    assert fields["value"].tolist() == [1, "a\\xffb\\xc3"]
    for frame in (blocks, fields):
        both = pd.concat([frame, frame])
        assert both.dtypes.equals(frame.dtypes)
        assert "xff" in str(both)
        both.to_csv().encode()
        both.to_csv(tmp_path / "a.csv")
        both.to_parquet(tmp_path / "a.parquet")
        assert len(pd.read_parquet(tmp_path / "a.parquet")) == len(both)


def frames_of_two(table=tables.fields):
    frames = []
    for name in ("pc-7.2", "microvm-10.0"):
        with qmigtool.open(samplefiles.path(name)) as stream:
            frames.append(table(stream))
    return frames


@pytest.mark.parametrize("name", OF_STREAMS)
def test_frames_of_two_files_keep_their_types_and_order(name):
    frames = frames_of_two(getattr(tables, name))
    both = pd.concat(frames, ignore_index=True)
    assert schema(both) == SCHEMAS[name]
    assert both.index.tolist() == list(range(sum(map(len, frames))))
    for column, kind in SCHEMAS[name].items():
        assert both[column].tolist() == [value for one in frames for value in one[column]] or both[column].isna().any()
        if kind == "category":
            known = [value for one in frames for value in one[column].cat.categories]
            assert both[column].cat.categories.tolist() == list(dict.fromkeys(known))


def test_what_is_made_of_a_frame_keeps_them_too():
    first, second = frames_of_two()
    some = pd.concat([first[first["type"] == "uint32"], second.head(3)])
    assert schema(some) == SCHEMAS["fields"]
    named = pd.concat([first.assign(file="a"), second.assign(file="b")])
    assert schema(named)["device"] == "category"
    assert pd.concat([first, second[["device", "path"]]])["device"].dtype == "category"
    assert schema(pd.concat({"a": first, "b": second}, names=["file"])) == SCHEMAS["fields"]
    # Columns side by side are not united, and a plain DataFrame decides for itself.
    assert len(pd.concat([first, second], axis=1).columns) == 2 * len(first.columns)
    assert pd.concat([first, pd.DataFrame({"device": ["x"]})])["device"].tolist()[-1] == "x"
    assert pd.concat([first, first]).dtypes.equals(first.dtypes)


def test_a_frame_of_fields_can_be_written_anywhere(tmp_path):
    first, second = frames_of_two()
    frame = pd.concat([first, second], ignore_index=True)
    text = [value.hex() if isinstance(value, bytes) else str(value) for value in frame["value"]]
    frame.to_parquet(tmp_path / "a.parquet")
    found = pd.read_parquet(tmp_path / "a.parquet")
    assert found["value"].tolist() == text
    assert found["path"].tolist() == frame["path"].tolist()
    assert found["device"].dtype == "category"
    frame.to_feather(tmp_path / "a.feather")
    assert pd.read_feather(tmp_path / "a.feather")["value"].tolist() == text
    assert pyarrow.Table.from_pandas(frame.plain())["value"].to_pylist() == text
    assert type(frame.plain()) is pd.DataFrame
    assert frame["value"].map(type).nunique() > 1  # as they are in the frame itself


@pytest.mark.parametrize("name", OF_STREAMS)
def test_every_table_can_be_written(name, tmp_path):
    for at, frame in enumerate(frames_of_two(getattr(tables, name))):
        frame.to_parquet(tmp_path / f"{at}.parquet")
        assert len(pd.read_parquet(tmp_path / f"{at}.parquet")) == len(frame)
    tables.layouts().to_parquet(tmp_path / "layouts.parquet")


def test_a_missing_value_stays_missing(tmp_path):
    frame = Frame({"a": pd.Series([None, pd.NA, float("nan"), True, 5, b"\x01", "t"], dtype=object)})
    frame.to_parquet(tmp_path / "a.parquet")
    found = pd.read_parquet(tmp_path / "a.parquet")["a"]
    assert found.isna().tolist() == [True] * 3 + [False] * 4
    assert found.tolist()[3:] == ["True", "5", "01", "t"]


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
        zen4 = tables.xsave_components(stream, layout=qmigtool.layout("amd-zen4"))
        assert zen4[(zen4.vcpu == 0) & (zen4.bit == 9)].standard_offset.tolist() == [2432]


def test_fields_cover_every_byte_of_a_body_once():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        device = stream.device("apic@0")
        frame = tables.fields(stream, device)
        assert frame.length.sum() == device.section.body_length
        assert device.field(frame.path.iloc[0]).value == frame["value"].iloc[0]


def by_bit(frame):
    """The component names of a frame, in the order of their bits."""
    return list(dict.fromkeys(frame.sort_values("bit", kind="stable")["name"].astype(str)))


@pytest.mark.parametrize("concatenated", [False, True])
def test_component_names_are_ordered_by_bit_over_several_files(concatenated):
    # The second has components that the first does not have, below some of its own.
    paths = [samplefiles.path("pc-7.2"), samplefiles.path("kvm-avx512-7.2")]
    with qmigtool.open(paths[0]) as one, qmigtool.open(paths[1]) as other:
        if concatenated:
            frame = pd.concat([tables.xsave_components(one), tables.xsave_components(other)], ignore_index=True)
        else:
            frame = tables.xsave_components(one, other)
            assert frame.columns[0] == "file"
            assert list(dict.fromkeys(frame["file"])) == list(map(str, paths))
            assert str(frame["file"].dtype) == "category"
    names = list(frame["name"].cat.categories)
    assert names == by_bit(frame)
    assert names != sorted(names)
    assert frame["name"].cat.ordered
    assert {"PKRU", "opmask"} <= set(names)
    ordered = frame.sort_values("name", kind="stable")
    assert ordered["bit"].is_monotonic_increasing


def test_the_names_of_layouts_are_ordered_by_bit():
    frame = tables.layouts()
    assert list(frame["name"].cat.categories) == by_bit(frame)
