"""The page on descriptions of device state names classes that exist; descriptions and nodes are converted alike."""

import importlib
import re

import qmigtool.devices
from qmigtool.devices.schema import learn
from qmigtool.schemadiff.devices import compare_schemas
from qmigtool.schemadiff.sources import of_schema, of_vmdesc
from tests.support.samplefiles import path

NAMES = re.findall(r"``([a-z.]+):(\w+)``", qmigtool.devices.__doc__ or "")


def test_the_page_names_classes() -> None:
    found = [getattr(importlib.import_module(f"qmigtool.{module}"), name) for module, name in NAMES]
    assert len(found) == len({*found}) == 7
    assert all(isinstance(one, type) for one in found)


def test_what_is_learned_from_one_stream_is_what_the_stream_has() -> None:
    with qmigtool.open(path("arm-7.2")) as stream:
        assert stream.vmdesc is not None
        a, b = of_vmdesc(stream.vmdesc), of_schema(learn([(stream.vmdesc, stream.machine)]))
    assert {shape.name for shape in a.shapes} == {shape.name for shape in b.shapes}
    assert not [one for one in compare_schemas(a, b).differences if one.severity == "error"]
