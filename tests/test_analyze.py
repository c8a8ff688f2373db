"""`analyze` prints what QEMU's own analyze-migration.py printed for the same file, character by character.

tests/data/analyze/ has the script's output (QEMU 11.1's scripts/analyze-migration.py, ``-d state`` and ``-d desc``).
"""

import io
import json
import lzma
import sys

import pytest

import qmigtool
from qmigtool import analyze
from qmigtool.cli import main
from qmigtool.errors import UnsupportedError
from tests.support import paths, samplefiles
from tests.support.packedsamples import packed

DATA = paths.DATA / "analyze"
NAMES = sorted({path.name.split(".state")[0] for path in DATA.glob("*.state.json.xz")})


def path(name):
    return samplefiles.path(name) if name in samplefiles.NAMES else packed(name).path


def oracle(name, kind):
    return lzma.decompress((DATA / f"{name}.{kind}.json.xz").read_bytes()).decode()


def printed(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["qmigtool", *arguments])
    code = main.run(list(arguments))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def test_there_are_oracles():
    assert len(NAMES) == 6
    assert all(json.loads(oracle(name, kind)) for name in NAMES for kind in ("state", "desc"))


@pytest.mark.parametrize("kind", ["state", "desc"])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_scripts(name, kind, capsys, monkeypatch):
    found = printed(capsys, monkeypatch, "analyze", str(path(name)), "-d", kind)
    wanted = oracle(name, kind)
    assert found.splitlines() == wanted.splitlines()
    assert found.rstrip("\n") == wanted.rstrip("\n")


@pytest.mark.parametrize("name", NAMES)
def test_state_is_the_default_and_forward_gives_the_same(name, capsys, monkeypatch):
    found = printed(capsys, monkeypatch, "analyze", str(path(name)))
    with qmigtool.open(path(name), forward=True) as stream:
        assert json.dumps(analyze.state(stream), indent=4, separators=(",", ": ")) == found.rstrip("\n")
        assert found.rstrip("\n") == oracle(name, "state").rstrip("\n")


def test_the_oracles_differ():
    assert len({oracle(name, "state") for name in NAMES}) == len(NAMES)


def test_what_the_script_fails_on(capsys, monkeypatch):
    """Compressed pages, a suppressed vmdesc and postcopy end the script with a traceback; here they print."""
    for name in ("compress-7.2", "novmdesc-7.2", "postcopy-preempt-7.2", "mapped-offset-11.1", "multifd-zstd-11.1"):
        document = json.loads(printed(capsys, monkeypatch, "analyze", str(path(name))))
        assert any(key.startswith("cpu (") for key in document)
        assert any(key.startswith("ram (") for key in document)


def test_no_description_to_print():
    with qmigtool.open(path("novmdesc-7.2")) as stream, pytest.raises(UnsupportedError) as caught:
        analyze.desc(stream)
    assert caught.value.exit_code == 63


def test_a_pipe_gives_the_same():
    data = path("microvm-10.0").read_bytes()
    with qmigtool.open(io.BytesIO(data)) as stream:
        text = json.dumps(analyze.state(stream), indent=4, separators=(",", ": "))
    assert text == oracle("microvm-10.0", "state").rstrip("\n")
