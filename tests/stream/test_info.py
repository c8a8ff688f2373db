"""``stream.info()`` is what ``info --json`` prints."""

import json

import pytest

import qmigtool
from qmigtool.cli.main import run
from tests.support import samplefiles


@pytest.mark.parametrize("sample", ["pc-7.2", "arm-7.2", "noconfig-7.2", "novmdesc-7.2", "kvm-avx512-7.2"])
def test_info_is_what_the_command_prints(sample, capsys):
    path = samplefiles.path(sample)
    status = run(["info", str(path), "--json"])
    printed = capsys.readouterr().out
    with qmigtool.open(path) as stream:
        document = stream.info()
    assert document == json.loads(printed)
    assert json.dumps(document, indent=2) + "\n" == printed
    assert (status == 0) == bool(document["complete"])


def test_info_of_a_broken_stream_has_its_problems(tmp_path, capsys):
    path = tmp_path / "cut.mig"
    path.write_bytes(samplefiles.path("pc-7.2").read_bytes()[:100_000])
    assert run(["info", str(path), "--json"]) == 3
    with qmigtool.open(path) as stream:
        document = stream.info()
    assert document == json.loads(capsys.readouterr().out)
    assert document["complete"] is False
    assert document["problems"]
