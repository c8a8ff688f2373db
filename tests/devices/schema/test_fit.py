"""A schema fitted to a body: alternatives, and what hostile bodies and schemas may cost."""

import time

import pytest

from qmigtool.devices.schema import Schema, fit
from qmigtool.devices.schema.model import Node, NodeField, Variant, built_in
from tests.devices.schema.learning import cpu_body, facts, sub
from tests.support.streamwriter import (
    be32,
)


def leaf(name, size=1):
    return NodeField(name, "buffer", size, None, [], ())


def quick(schema, body, seconds=10.0):
    """Fit, and fail if that takes more time than it may; unbounded, it would take for ever."""
    start = time.monotonic()
    found = fit(schema, "d", 1, body)
    assert time.monotonic() - start < seconds
    return found


def alone(node):
    return Schema("hostile", {("d", 1): [Variant(node, [])]})


def test_alternatives_of_structs_do_not_explode():
    """Forty structs, each of two shapes of one size: 2**40 ways, of which two are enough."""
    shapes = [Node("s", 1, [leaf("x", 2)], []), Node("s", 1, [leaf("x"), leaf("y")], [])]
    fields = [NodeField(f"f{i}", "struct", 2, None, shapes, ()) for i in range(40)]
    found = quick(alone(Node("d", 1, fields, [])), bytes(80))
    assert found.ambiguous
    assert quick(alone(Node("d", 1, fields, [])), bytes(81)) is None


def test_nested_alternatives_do_not_explode():
    node = Node("s", 1, [leaf("x")], [])
    for _ in range(20):
        pair = [node, Node("s", 1, [leaf("other"), *node.fields[1:]], [])]
        node = Node(
            "s", 1, [NodeField("a", "struct", 1, None, pair, ()), NodeField("b", "struct", 1, None, pair, ())], []
        )
    quick(alone(Node("d", 1, node.fields, [])), bytes(5000))


def test_subsections_of_two_shapes_do_not_explode():
    names = [f"d/{i:02}" for i in range(40)]
    subsections = [Node(name, 1, [leaf(field)], []) for name in names for field in ("x", "y")]
    body = b"".join(sub(name, b"z") for name in names)
    assert quick(alone(Node("d", 1, [], subsections)), body).ambiguous
    assert quick(alone(Node("d", 1, [], subsections)), body + b"!") is None


def test_one_subsection_over_and_over_is_no_recursion():
    node = Node("d", 1, [], [Node("d/s", 1, [], [])])
    assert quick(alone(node), sub("d/s", b"") * 20_000) is None
    assert quick(alone(node), sub("d/s", b"")) is not None
    data = cpu_body(*[("cpu/pkru", be32(1))] * 5000)
    assert fit(built_in(), "cpu", 12, data) is None


@pytest.mark.parametrize("size", [0, 1])
def test_a_huge_array_of_structs_costs_no_more_than_the_body(size):
    inner = Node("s", 1, [leaf("x")] if size else [], [])
    node = Node("d", 1, [NodeField("f", "struct", size, 1 << 24, [inner], ())], [])
    quick(alone(node), bytes(20_000))


def test_a_large_honest_array_still_fits():
    inner = Node("s", 1, [leaf("x", 3)], [])
    node = Node("d", 1, [NodeField("f", "struct", 3, 20_000, [inner], ())], [])
    assert quick(alone(node), bytes(60_000)).description.size == 60_000


def test_every_cut_of_a_real_body_is_taken_calmly():
    _, machine, devices = facts("q35-7.2")
    for idstr, version, body, _ in devices:
        for cut in (0, 1, len(body) // 2, len(body) - 1):
            found = fit(built_in(), idstr, version, body[:cut], machine)
            assert found is None or found.description.size == cut
