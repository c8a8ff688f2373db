"""One verdict for all possible versions of a target's QEMU."""

from __future__ import annotations

from dataclasses import replace

import pytest

import qmigtool
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader.predict import predict_source
from tests.preflight.cases import CASES
from tests.preflight.loader.decided import case, judged, target
from tests.preflight.loader.predicted import pc, verdict


@pytest.mark.parametrize(
    ("case", "since"),
    [("G2", (10, 0)), ("F17", (8, 1)), ("F18", (8, 2))],
    ids=["SWITCHOVER_START", "MULTIFD_FLUSH", "HOOK"],
)
def test_what_a_version_between_two_families_takes(case: str, since: tuple[int, int]) -> None:
    """What QEMU does follows from its own version, whoever's words it borrows."""
    data = CASES[case].data()
    before = (since[0] - 1, 9) if not since[1] else (since[0], since[1] - 1)
    assert verdict(data, pc(qemu=since)).loads is True
    assert verdict(data, pc(qemu=before)).loads is False


def test_a_version_is_bounded_by_what_the_reference_shows() -> None:
    (note,) = (
        one for one in judged(case("c2.mig"), target("c2.mig", None)).verdict.notes if "is unknown" in one.message
    )
    assert "from 10.0 on, before 10.2" in note.message
    assert "SWITCHOVER_START" in note.message


def test_where_possible_versions_disagree_the_version_decides() -> None:
    """A command of 10.0; of the target nothing shows a version."""
    aim = replace(target("c2.mig", None), bounds=(), machine=None)
    with qmigtool.open(case("c2.mig")) as stream:
        machine = stream.machine
    found = predict_source(BufferSource(case("c2.mig")), replace(aim, machine=machine, bounds=()))
    assert found.loads is True  # the machine type is there since 10.0
    old = case("c2.mig").replace(b"pc-i440fx-10.0", b"pc-i440fx-5.12")
    found = predict_source(BufferSource(old), replace(aim, machine="pc-i440fx-5.12"))
    assert found.loads is None
    assert found.doubts[0].message.startswith(
        "QEMU from 5.12 on, before 10.0 refuses it (MIG_CMD 0xb unknown (len 0x0)); "
    )
    assert found.doubts[0].message.endswith("QEMU from 10.0 on loads it: --target VERSION decides it")


def test_words_are_given_for_every_version_that_is_possible() -> None:
    aim = replace(target("c2.mig", None), bounds=(), machine="isapc")
    found = predict_source(BufferSource(case("c2.mig")), aim)
    assert (found.loads, found.rule) == (False, "machine-type")
    assert found.errors[0] == "Machine type received is 'pc-i440fx-10.0' and local is 'isapc'"
    ((who, lines),) = found.otherwise
    assert who == "QEMU from 10.2 on"
    assert lines[0].startswith("load of migration failed: Invalid argument: post load hook failed for: configuration")


@pytest.mark.parametrize("accelerator", ["mshv", "whpx"])
def test_hyper_v_is_11_1_or_later(accelerator: str) -> None:
    aim = replace(target("c2.mig", None), bounds=(), machine="isapc", accelerator=accelerator)
    found = predict_source(BufferSource(case("c2.mig")), aim)
    assert found.otherwise == ()
    assert found.errors[0].startswith("load of migration failed: Invalid argument: post load hook")
