"""Two streams and the one that both came from."""

import qmigtool
from qmigtool.diff import Who, compare_three
from tests.diff.comparing import edited
from tests.rewrite.editing import sample

PC = "pc-7.2"


def test_who_changed_what() -> None:
    a = edited(
        PC,
        lambda r: r.set("cpu@0/env.regs[1]", 1),
        lambda r: r.set("cpu@0/env.regs[2]", 2),
        lambda r: r.set("cpu@0/env.regs[3]", 3),
        lambda r: r.drop_section("hpet"),
    )
    b = edited(
        PC,
        lambda r: r.set("cpu@0/env.regs[2]", 2),
        lambda r: r.set("cpu@0/env.regs[3]", 33),
        lambda r: r.set("cpu@0/env.regs[5]", 5),
        lambda r: r.set("cpu@0/env.tsc", 5),
    )
    with qmigtool.open(sample(PC)) as base, qmigtool.open(a) as one, qmigtool.open(b) as other:
        old = [base.field(f"cpu@0/env.regs[{i}]").value for i in range(8)]
        found = compare_three(base, one, other)
    assert [(c.where, c.who) for c in found.changes] == [
        ("cpu@0/env.regs[1]", Who.A),
        ("cpu@0/env.regs[2]", Who.BOTH_ALIKE),
        ("cpu@0/env.regs[3]", Who.CONFLICT),
        ("hpet@0", Who.A),
        ("cpu@0/env.regs[5]", Who.B),
    ]
    values = {c.where[-2]: (c.base, c.a, c.b) for c in found.changes if "regs" in c.where}
    assert values == {"1": (old[1], 1, old[1]), "2": (old[2], 2, 2), "3": (old[3], 3, 33), "5": (old[5], old[5], 5)}
    assert [c.where for c in found.conflicts] == ["cpu@0/env.regs[3]"]
    assert not found.same


def test_nothing_changed() -> None:
    with qmigtool.open(sample(PC)) as base, qmigtool.open(sample(PC)) as one, qmigtool.open(sample(PC)) as other:
        assert compare_three(base, one, other).same
