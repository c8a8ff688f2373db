"""A plan: where each component is moved, made once for many areas."""

import pytest

from qmigtool.errors import XsaveError
from qmigtool.xsave import Format, Layout, layout, make_plan
from tests.xsave.written import COMPACTED_FLAG, area


def test_two_layouts_that_disagree_on_a_size():
    one = Layout.from_leaf_0xd("one", {0: (0x100003, 0, 0, 0), 20: (96, 576, 0, 0)})
    other = Layout.from_leaf_0xd("other", {0: (0x100003, 0, 0, 0), 20: (64, 576, 0, 0)})
    with pytest.raises(XsaveError, match="96 bytes"):
        make_plan(one, Format.STANDARD, 0x100003, other, Format.STANDARD, 0x100003)


def test_a_plan_is_made_once():
    arguments = (layout("amd-zen4"), Format.STANDARD, 0x2E7, layout("amd-zen3"), Format.COMPACTED, 0x207)
    plan = make_plan(*arguments)
    assert make_plan(*arguments) is plan
    assert [(move.bit, move.src, move.dst, move.size) for move in plan.moves] == [(2, 576, 576, 256), (9, 2432, 832, 8)]
    assert [(move.bit, move.src, move.dst, move.size) for move in plan.leaving] == [
        (5, 832, -1, 64),
        (6, 896, -1, 512),
        (7, 1408, -1, 1024),
    ]
    assert (plan.source_size, plan.target_size) == (576, 840)


def test_a_plan_refuses_an_area_of_another_form():
    plan = make_plan(layout("amd-zen4"), Format.COMPACTED, 0x7, layout("amd-zen4"), Format.STANDARD, 0x7)
    with pytest.raises(XsaveError, match="XCOMP_BV"):
        plan.apply(area(832, 0, COMPACTED_FLAG | 0x207))
    with pytest.raises(XsaveError, match="XCOMP_BV"):
        plan.apply(area(832, 0))
