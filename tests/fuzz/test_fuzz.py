"""A short run of the fuzz targets: the corpus, and random changes of it."""

import random
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from tests.fuzz import __main__ as fuzz
from tests.fuzz import corpus, mutation, records
from tests.fuzz.targets import TARGETS

CORPUS = corpus.load()


def test_the_corpus_is_what_its_maker_makes() -> None:
    made = corpus.make()
    assert CORPUS.keys() == made.keys()
    assert {name: data for name, data in made.items() if name.endswith(".mig")} == {
        name: data for name, data in CORPUS.items() if name.endswith(".mig")
    }
    assert sum(map(len, CORPUS.values())) < 200_000


@pytest.mark.parametrize("name", CORPUS)
def test_every_input_is_a_whole_stream(name: str) -> None:
    """Fuzzing starts from valid streams, not from noise."""
    with qmigtool.open(CORPUS[name]) as stream:
        assert stream.devices
        assert stream.complete, stream.problems


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_as_it_is(name: str, target: str) -> None:
    TARGETS[target](CORPUS[name])


@pytest.mark.parametrize("target", TARGETS)
@given(name=st.sampled_from(list(CORPUS)), seed=st.integers(0, (1 << 64) - 1), changes=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_changes_of_it(target: str, name: str, seed: int, changes: int) -> None:
    data = mutation.mutate(CORPUS[name], list(CORPUS.values()), random.Random(seed), changes)  # noqa: S311
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
@given(name=st.sampled_from(list(CORPUS)), seed=st.integers(0, (1 << 64) - 1), changes=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_random_records_in_it(target: str, name: str, seed: int, changes: int) -> None:
    TARGETS[target](records.fuzzed(CORPUS[name], random.Random(seed), changes))  # noqa: S311


def test_a_random_record_is_one_of_its_kind() -> None:
    data = CORPUS["devices.mig"]
    made = [records.fuzzed(data, random.Random(seed), 1) for seed in range(40)]  # noqa: S311
    assert made == [records.fuzzed(data, random.Random(seed), 1) for seed in range(40)]  # noqa: S311
    assert len({*made}) > 30
    assert sum(one[:8] == data[:8] for one in made) > 30  # one record is changed, the others are as they were


def test_a_finding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target does not suppress other exceptions than QmigError."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(qmigtool, "open", broken)
    monkeypatch.setattr(records, "QmigReader", broken)
    for target in TARGETS.values():
        with pytest.raises(RuntimeError):
            target(b"QEVM")


def test_properties_are_run_one_by_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is reported as it ends, and a finding does not stop the others."""
    results = {"a.py::test_good": 0, "b.py::test_bad": 1}

    def pretend(command: list[str], **options: float) -> subprocess.CompletedProcess[str]:
        assert "--hypothesis-profile=fresh" in command
        if command[-1] == "c.py::test_long":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, results[command[-1]], "what was found", "")

    monkeypatch.setattr(fuzz, "property_tests", lambda: [*results, "c.py::test_long"])
    monkeypatch.setattr("subprocess.run", pretend)
    assert fuzz.properties(0.2, ["bad"]) > 0
    assert fuzz.properties(0.2, ["good", "long"]) == 0
    assert "0 findings" in capsys.readouterr().out
    end = time.monotonic() + 1000
    assert fuzz.one_property("a.py::test_good", end)
    assert not fuzz.one_property("b.py::test_bad", end)
    assert fuzz.one_property("c.py::test_long", end)
    said = capsys.readouterr().out
    assert "b.py::test_bad: 0 s, finding: pytest --hypothesis-profile=fresh b.py::test_bad" in said
    assert "what was found" in said
    assert "c.py::test_long: stopped after 0 s, no finding" in said
