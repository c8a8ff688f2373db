"""QEMU's error messages, by version."""

from __future__ import annotations

import pytest

from qmigtool.preflight.loader.words import FAMILIES, REFUSALS, WARNINGS, WRAPS, family_of
from qmigtool.preflight.target.versions import Possible
from tests.preflight.edited import source
from tests.preflight.loader.predicted import pc, verdict


def test_every_rule_has_words_for_every_family() -> None:
    for table in (REFUSALS, WRAPS, WARNINGS):
        assert {len(words) for words in table.values()} == {len(FAMILIES)}


@pytest.mark.parametrize(
    ("version", "family"),
    [
        ((5, 2), (7, 2)),
        ((7, 2, 22), (7, 2)),
        ((8, 1), (7, 2)),
        ((8, 2), (10, 0)),
        ((10, 1), (10, 0)),
        ((10, 2), (11, 1)),
        ((11, 0), (11, 1)),
        ((12, 0), (11, 1)),
    ],
)
def test_the_family_of_a_version(version: tuple[int, ...], family: tuple[int, int]) -> None:
    assert family_of(Possible(version, (*version, 0))).family == family


def test_borrowed_words_are_said_to_be() -> None:
    found = verdict(source("pc-7.2"), pc(qemu=(9, 0), machine="pc"))
    assert any("10.0" in note.message for note in found.notes)
    assert found.errors[0].startswith("Machine type received")
