"""Every rule has a case, and no rule finds anything in a stream that is as QEMU wrote it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmigtool.check import RULES, rules
from qmigtool.findings import Severity
from tests.check.checking import found, sample
from tests.check.rules.cases import Case
from tests.fleet import packed
from tests.support import packedsamples, samplefiles


def cases() -> Iterator[Case]:
    """Give the cases of every module of rules; that of the baseline has other tests."""
    for module in pkgutil.iter_modules(rules.__path__):
        tests = importlib.import_module(f"tests.check.rules.test_{module.name}")
        yield from getattr(tests, "CASES", ())


def test_every_rule_is_tested() -> None:
    tested = {case.rule for case in cases() if case.places} | {"baseline"}
    assert tested == set(RULES), "each rule has a Case in CASES of the test file of its module (tests/check/rules)"


NOTES = {
    "pc-7.2": ["xcr0-equal"],  # its vCPUs enable different components on purpose
    "pc-11.1": ["xcr0-equal"],
    # Their pages are in other files.
    **{name: ["ram-pages-sent"] for name in packedsamples.NAMES if name.startswith(("multifd", "postcopy-preempt"))},
}


@pytest.mark.parametrize("name", [*samplefiles.NAMES, *packedsamples.NAMES])
def test_nothing_is_wrong_with_what_qemu_wrote(name: str) -> None:
    findings = found(sample(name))
    assert [finding.rule for finding in findings] == NOTES.get(name, [])
    # A main channel alone lacks memory: that is an error.
    errors = [finding.rule for finding in findings if finding.severity is not Severity.NOTE]
    assert errors == [rule for rule in NOTES.get(name, []) if rule == "ram-pages-sent"]


@pytest.mark.parametrize(
    "name", [name for name in NOTES if packedsamples.FOLDER.joinpath(f"{name}.ch0.bin.xz").exists()]
)
def test_with_its_channels_memory_is_whole(name: str) -> None:
    packed = packedsamples.packed(name)
    assert not found(packed.path, channels=packed.channels)


@pytest.mark.parametrize("file", sorted((samplefiles.SAMPLES / "containers").iterdir()), ids=lambda file: file.name)
def test_nothing_is_wrong_with_what_lies_in_a_container(file: Path) -> None:
    assert found(file) == ()


@pytest.mark.parametrize(
    "name",
    [
        "tulip-10.0.mig",  # slirp 4 or 5, whichever libslirp QEMU was linked with
        "tulip-11.1.mig",
        "smp-hotplug-7.2.mig",  # vCPU 2 was plugged, 1 was not
        "smp-hotplug-10.0.mig",
        "isapc-old-5.2.mig",  # two isa-ide of one number
        "isapc-7.2.mig",
        "virtio-multi-5.2.mig",
        "dc390-7.2.mig",
        "tpm-tis-11.1.mig",
        "kvm-pc-11.1.mig",
    ],
)
def test_nothing_is_found_in_streams_that_real_qemu_has_just_saved(name: str) -> None:
    """Their pages of ROM are left out in this tree, which is the one thing that is said."""
    assert [one for one in found(packed.files()[name]) if one.rule not in ("ram-pages-sent", "ram-block-sent")] == []
