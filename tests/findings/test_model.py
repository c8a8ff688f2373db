"""One finding and one difference of values, whatever makes them."""

import pytest

from qmigtool.check.rule import finding
from qmigtool.diff.model import Difference, DifferenceKind
from qmigtool.diff.threeway import ThreeWayChange, Who
from qmigtool.findings import Finding, Located, Severity, ValueDifference
from qmigtool.findings.text import sentence
from qmigtool.preflight.remark import remark
from qmigtool.rewrite.changes import Change, told
from qmigtool.schemadiff.model import Effect, SchemaDifference

PLACE = {"device": "cpu@0", "path": "env.xcr0"}


@pytest.mark.parametrize(
    "one",
    [
        Difference(**PLACE, kind=DifferenceKind.CHANGED, a=1, b=2),
        ThreeWayChange(**PLACE, who=Who.A, base=1, a=2, b=1),
        SchemaDifference(**PLACE, rule="field-size", forward=Effect.BREAKS, backward=Effect.BREAKS, a="4", b="8"),
        Change(**PLACE, rule="set", a=1, b=2, offset=5),
        Finding("xcr0-legal", Severity.ERROR, "XCR0 is 0x2", **PLACE),
    ],
    ids=lambda one: type(one).__name__,
)
def test_all_have_one_kind_of_place(one: Located) -> None:
    assert one.where == "cpu@0/env.xcr0"
    assert isinstance(one, ValueDifference) is not isinstance(one, Finding)
    assert {one} == {one}


def test_the_sentence_is_made_last() -> None:
    assert sentence(finding("XCR0 is 0x2", "cpu@0", "env.xcr0", 5)) == "cpu@0/env.xcr0 at 0x5: XCR0 is 0x2"
    assert sentence(remark("not known", "timer@0")) == "timer@0: not known"
    assert told(Finding("tsc-offset", Severity.ERROR, "the TSC", device="cpu@0")) == "cpu@0: the TSC (tsc-offset)"
    assert told(Finding("", Severity.NOTE, "a guess")) == "a guess"
