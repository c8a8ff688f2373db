"""A short run of the fuzz targets: the corpus, and random changes of it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from tests.fuzz import corpus, mutation
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


def test_a_finding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target does not suppress other exceptions than QmigError."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(qmigtool, "open", broken)
    for target in TARGETS.values():
        with pytest.raises(RuntimeError):
            target(b"QEVM")
