"""`schema learn`, and a schema in use."""

import json

from tests.cli.calling import document
from tests.support import samplefiles


def test_learn_and_use_a_schema(call, tmp_path):
    schema = tmp_path / "mine.json.xz"
    found = document(
        call("schema", "learn", samplefiles.path("pc-7.2"), samplefiles.path("novmdesc-7.2"), "-o", schema, "--json")
    )
    assert found["devices"] > 20
    assert found["shapes"] >= found["devices"]
    assert found["skipped"] == [str(samplefiles.path("novmdesc-7.2"))]
    shown = document(call("info", samplefiles.path("novmdesc-7.2"), "--schema", schema, "--json"))
    assert shown["schema_name"] == "mine.json.xz"
    code, out, err = call("schema", "learn", samplefiles.path("pc-7.2"), "-o", tmp_path / "m.json", "--name", "n")
    assert (code, out) == (0, "")
    assert "devices" in err
    assert json.loads((tmp_path / "m.json").read_text())["name"] == "n"


def test_exit_codes_of_learn(call, tmp_path):
    assert call("schema", "learn", samplefiles.path("novmdesc-7.2"), "-o", tmp_path / "x")[0] == 63
    assert not (tmp_path / "x").exists()
    source = tmp_path / "in.mig"
    source.write_bytes(samplefiles.read("arm-7.2"))
    assert call("schema", "learn", source, "-o", source)[0] == 2
    assert source.read_bytes() == samplefiles.read("arm-7.2")
    (tmp_path / "bad.json").write_text("{}")
    assert call("info", samplefiles.path("pc-7.2"), "--schema", tmp_path / "bad.json")[0] == 3
    assert call("schema", "learn")[0] == 2
