"""`sections`: its document."""

from tests.cli.calling import PC, document


def test_sections(call):
    found = document(call("sections", PC, "--json"))
    assert found["complete"] is True
    assert found["problems"] == []
    assert len(found["sections"]) == 47
    assert found["sections"][0]["type"] == "header"
    ram = found["sections"][2]
    assert {key: ram[key] for key in ("type", "section_id", "name", "instance_id", "version_id", "offset")} == {
        "type": "start", "section_id": 2, "name": "ram", "instance_id": 0, "version_id": 4, "offset": 0x1A,
    }  # fmt: skip
    assert sum(s["length"] for s in found["sections"]) == 660109
