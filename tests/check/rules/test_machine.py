"""The rules about the machine, as a policy requires it."""

from __future__ import annotations

import pytest

from tests.check.checking import edited, sample
from tests.check.rules.cases import KVM, PC, Q35, Case, check_case, version_of_hpet

CASES = (
    Case("machine-type", lambda: sample(Q35), [("error", "")], PC, '[rules.machine-type]\nallowed = ["pc-i440fx-*"]'),
    Case(
        "accelerator", lambda: sample(PC), [("error", "")], KVM, '[rules.accelerator]\nallowed = ["kvm"]', says="is tcg"
    ),
    Case("page-size", lambda: sample(PC), [("error", "")], "tricore-10.0", "[rules.page-size]\nequals = 16384"),
    Case(
        "capabilities",
        lambda: sample("mapped-10.0"),
        [("error", "configuration")],
        PC,
        "[rules.capabilities]\nexact = []",
        says="mapped-ram",
    ),
    Case(
        "devices",
        lambda: edited(PC, lambda r: r.drop_section("hpet")),
        [("error", "hpet")],
        PC,
        '[rules.devices]\nrequired = ["hpet"]',
    ),
    Case(
        "section-versions",
        version_of_hpet,
        [("error", "hpet@0")],
        PC,
        "[rules.section-versions]\nversions = { hpet = 2 }",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    check_case(case)
