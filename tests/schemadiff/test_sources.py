"""What is compared: dumps of real QEMUs, streams, schemas, each recognised by its content."""

import json

import pytest

from qmigtool.devices.schema import built_in
from qmigtool.parsers.vmstatedump import parse_vmstate_dump
from qmigtool.schemadiff import (
    read_shapes,
)
from tests.schemadiff.dumps import DATA, raw
from tests.support import samplefiles


@pytest.mark.parametrize("version", ["7.2", "11.1"])
def test_a_dump_is_read_whole(version):
    document = json.loads(raw(f"dump-pc-{version}"))
    read = parse_vmstate_dump(raw(f"dump-pc-{version}"))
    assert read.machine == document.pop("vmschkmachine")["Name"]
    assert [device.type for device in read.devices] == list(document)
    assert read.counts_arrays == (version == "11.1")

    def again(body):
        out = {"name": body.name, "version_id": body.version_id, "minimum_version_id": body.minimum_version_id}
        if body.fields:
            out["Fields"] = [again_field(one) for one in body.fields]
        if body.subsections:
            out["Subsections"] = [again(sub) for sub in body.subsections]
        return out

    def again_field(one):
        out = {"field": one.name, "version_id": one.version_id, "field_exists": one.field_exists}
        out |= {"num": one.num} if one.num is not None else {}
        out |= {"size": one.size}
        return out | ({"Description": again(one.description)} if one.description is not None else {})

    for device in read.devices:
        entry = document[device.type]
        assert (device.version_id, device.minimum_version_id) == (entry["version_id"], entry["minimum_version_id"])
        assert without_nothing(entry["Description"]) == again(device.description)


def without_nothing(value):
    """The dump, less the lists in which there is nothing."""
    if isinstance(value, dict):
        return {key: without_nothing(part) for key, part in value.items() if part != []}
    return [without_nothing(part) for part in value] if isinstance(value, list) else value


def test_inputs_are_recognised_by_their_content(tmp_path):
    (tmp_path / "a").write_bytes(raw("dump-pc-7.2"))
    (tmp_path / "b").write_bytes(raw("vmdesc-am53c974-7.2"))
    (tmp_path / "c").write_text(built_in().to_json())
    origins = [read_shapes(str(path)).origin for path in (*sorted(tmp_path.iterdir()), samplefiles.path("pc-7.2"))]
    assert origins == ["dump", "vmdesc", "schema", "vmdesc"]
    packed = [read_shapes(str(DATA / f"{name}.json.xz")).origin for name in ("dump-pc-7.2", "vmdesc-am53c974-7.2")]
    assert packed == ["dump", "vmdesc"]
    assert read_shapes(str(samplefiles.path("pc-7.2"))).machine == "pc-i440fx-7.2"
    assert read_shapes(str(tmp_path / "a")).machine == "pc-i440fx-7.2"
