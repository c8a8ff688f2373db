"""A comparison that ran into a limit says so, and takes nothing that was not read for a difference."""

import json

import pytest

from qmigtool.cli.main import run
from tests.support import samplefiles

PC, NEW = str(samplefiles.path("pc-7.2")), str(samplefiles.path("pc-11.1"))


@pytest.fixture
def call(capsys):
    def go(*arguments):
        status = run(list(arguments))
        return status, *capsys.readouterr()

    return go


@pytest.mark.parametrize("limit", ["5", "15", "25"])
def test_a_stream_is_not_said_to_differ_from_itself(call, limit):
    status, out, err = call("--max-objects", limit, "diff", PC, PC)
    assert status == 63
    assert "--max-objects" in err
    assert out.splitlines()[-1].startswith("no difference in what")
    assert "not all was compared: " in out
    assert f"reading it takes more than {limit} values" in out
    status, out, _ = call("--max-objects", limit, "diff", PC, PC, "--json")
    assert (status, json.loads(out)["same"], json.loads(out)["differences"]) == (63, None, [])


def test_what_differs_is_counted_as_the_least(call):
    _, out, _ = call("--max-objects", "30", "diff", PC, NEW)
    said = out.splitlines()[-1]
    assert said.startswith("at least ")
    assert "; not all was compared: " in said
    _, out, _ = call("diff", PC, NEW)
    assert "at least" not in out
    assert "not all" not in out


def test_info_does_not_take_a_limit_for_a_stream_that_ends(call):
    status, out, err = call("--max-objects", "100", "info", PC)
    assert status == 63
    assert "--max-objects" in err
    assert "complete      unknown (a limit was reached: not all could be read)" in out.splitlines()
    assert json.loads(call("--max-objects", "100", "info", PC, "--json")[1])["complete"] is None
    assert json.loads(call("info", PC, "--json")[1])["complete"] is True
