"""One change each in a synthetic dump: what is said of it, and what it does in either direction.

Among them are those that QEMU's own vmstate-static-checker.py lets pass: an extra field at the end, the length of an
array, another type of the same size, a minimum version of the section alone, a device that only the destination has.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.vmstatedump import parse_vmstate_dump
from qmigtool.schemadiff import Effect, Present, compare_schemas, of_dump, of_vmdesc
from tests.schemadiff.dumps import changed, description, device, dump, field, nic, text
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, num, nums, raw, struct_

BREAKS, MAY, HARMLESS, UNKNOWN = Effect.BREAKS, Effect.MAY_BREAK, Effect.HARMLESS, Effect.UNKNOWN


def shapes(document):
    return of_dump(parse_vmstate_dump(text(document)))


def found(a, b, present=None):
    return [(d.rule, d.path, d.forward, d.backward) for d in compare_schemas(shapes(a), shapes(b), present).differences]


def put(fields, at, one):
    fields.insert(at, one)


def both_versions(entry, body, **ids):
    entry.update(ids)
    body.update(ids)


def sub(body):
    return body["Subsections"][0]


def inner(fields):
    return fields[2]["Description"]


PROBES = {
    "extra field at the end": (
        lambda e, d, f: put(f, 5, field("more", 4)),
        ("field-extra", "more", BREAKS, BREAKS),
    ),
    "extra field in between": (
        lambda e, d, f: put(f, 1, field("more", 4)),
        ("field-extra", "more", BREAKS, BREAKS),
    ),
    "extra field that not every version has": (
        lambda e, d, f: (put(f, 5, field("more", 4, version_id=4)), both_versions(e, d, version_id=4)),
        ("section-version", "", HARMLESS, BREAKS),
        ("field-extra", "more", HARMLESS, BREAKS),
    ),
    "extra field that a function decides on": (
        lambda e, d, f: put(f, 5, field("more", 4, field_exists=True)),
        ("field-extra", "more", MAY, MAY),
    ),
    "missing field": (lambda e, d, f: f.pop(0), ("field-missing", "ctrl", BREAKS, BREAKS)),
    "missing field inside": (
        lambda e, d, f: inner(f)["Fields"].pop(),
        ("field-missing", "state/irq", BREAKS, BREAKS),
    ),
    "array length": (lambda e, d, f: f[3].update(num=8), ("array-length", "mac", BREAKS, BREAKS)),
    "array length inside": (
        lambda e, d, f: inner(f)["Fields"][0].update(num=8),
        ("array-length", "state/ring", BREAKS, BREAKS),
    ),
    "an array no more": (lambda e, d, f: f[3].pop("num"), ("array-length", "mac", UNKNOWN, UNKNOWN)),
    "size of a number": (lambda e, d, f: f[1].update(size=4), ("field-size", "status", BREAKS, BREAKS)),
    "size of something else": (
        lambda e, d, f: f[0].update(size=48),
        ("field-size", "ctrl", MAY, MAY),
    ),
    "the same bytes as other numbers": (
        lambda e, d, f: f[4].update(size=4, num=16),
        ("field-size", "phy", UNKNOWN, UNKNOWN),
    ),
    "a struct became bytes": (lambda e, d, f: f[2].pop("Description"), ("field-type", "state", UNKNOWN, UNKNOWN)),
    "section version": (
        lambda e, d, f: both_versions(e, d, version_id=4),
        ("section-version", "", HARMLESS, BREAKS),
    ),
    "minimum version": (
        lambda e, d, f: both_versions(e, d, version_id=5, minimum_version_id=4),
        ("section-version", "", HARMLESS, BREAKS),
        ("minimum-version", "", BREAKS, HARMLESS),
    ),
    "minimum version that still takes it": (
        lambda e, d, f: both_versions(e, d, minimum_version_id=3),
        ("minimum-version", "", HARMLESS, HARMLESS),
    ),
    "minimum version of the section alone": (
        lambda e, d, f: e.update(minimum_version_id=9),
        ("minimum-version", "", BREAKS, HARMLESS),
    ),
    "version of the description alone": (
        lambda e, d, f: d.update(version_id=2),
        ("section-version", "nic", BREAKS, HARMLESS),
    ),
    "version of a nested struct": (
        lambda e, d, f: inner(f).update(version_id=7, minimum_version_id=7),
        ("struct-version", "state", HARMLESS, HARMLESS),
    ),
    "a field of a nested struct's version": (
        lambda e, d, f: (inner(f).update(version_id=7), inner(f)["Fields"].append(field("new", version_id=7))),
        ("struct-version", "state", HARMLESS, HARMLESS),
        # the destination reads a nested struct by its own version, whatever was sent
        ("field-extra", "state/new", BREAKS, BREAKS),
    ),
    "renamed": (lambda e, d, f: f[1].update(field="state_word"), ("field-renamed", "status", HARMLESS, HARMLESS)),
    "renamed struct": (lambda e, d, f: f[2].update(field="core"), ("field-renamed", "state", HARMLESS, HARMLESS)),
    "padding instead": (lambda e, d, f: f[1].update(field="unused"), ("field-padded", "status", HARMLESS, HARMLESS)),
    "padding instead of several": (
        lambda e, d, f: f.__setitem__(slice(0, 2), [field("unused", 6)]),
        ("field-padded", "ctrl+status", HARMLESS, HARMLESS),
    ),
    "moved into a struct": (
        lambda e, d, f: f.__setitem__(slice(0, 2), [field("regs", 8, Description=description("regs", *f[:2]))]),
        ("field-regrouped", "ctrl+status", HARMLESS, HARMLESS),
    ),
    "cut otherwise": (
        lambda e, d, f: f.__setitem__(slice(0, 2), [field("a", 2), field("b", 4)]),
        ("field-regrouped", "ctrl+status", UNKNOWN, UNKNOWN),
    ),
    "order": (
        lambda e, d, f: f.__setitem__(slice(0, 2), f[1::-1]),
        ("field-order", "status", BREAKS, BREAKS),
    ),
    "a function decides now": (
        lambda e, d, f: f[0].update(field_exists=True),
        ("field-condition", "ctrl", MAY, MAY),
    ),
    "a later version has it": (
        lambda e, d, f: (f[4].update(version_id=4), both_versions(e, d, version_id=4)),
        ("section-version", "", HARMLESS, BREAKS),
        ("field-version", "phy", BREAKS, HARMLESS),
    ),
    "subsection missing": (lambda e, d, f: d.pop("Subsections"), ("subsection-missing", "nic/late", MAY, HARMLESS)),
    "subsection extra": (
        lambda e, d, f: d["Subsections"].append(description("nic/new", field("x"))),
        ("subsection-extra", "nic/new", HARMLESS, MAY),
    ),
    "subsection version": (
        lambda e, d, f: sub(d).update(version_id=2),
        ("subsection-version", "nic/late", HARMLESS, BREAKS),
    ),
    "subsection minimum": (
        lambda e, d, f: sub(d).update(minimum_version_id=2, version_id=2),
        ("subsection-version", "nic/late", HARMLESS, BREAKS),
        ("subsection-minimum-version", "nic/late", BREAKS, HARMLESS),
    ),
    "field of a subsection": (
        lambda e, d, f: sub(d)["Fields"].append(field("x", 2)),
        ("field-extra", "nic/late/x", BREAKS, BREAKS),
    ),
    "section renamed": (
        lambda e, d, f: (d.update(name="nic2"), f.pop()),
        ("section-renamed", "", BREAKS, BREAKS),
    ),
    "no fields": (lambda e, d, f: d.pop("Fields"), ("field-missing", "", BREAKS, BREAKS)),
}


@pytest.mark.parametrize("probe", PROBES)
def test_a_change_is_found_and_judged(probe):
    change, *expected = PROBES[probe]
    assert found(dump(nic()), changed(change)) == expected


OTHER_WAY = {"field-missing": "field-extra", "subsection-missing": "subsection-extra"}
OTHER_WAY |= {there: here for here, there in OTHER_WAY.items()}


@pytest.mark.parametrize("probe", PROBES)
def test_the_other_way_round_it_is_the_other_way_round(probe):
    change, *expected = PROBES[probe]
    other = found(changed(change), dump(nic()))
    turned = [(OTHER_WAY.get(rule, rule), backward, forward) for rule, _, forward, backward in expected]
    assert [(rule, forward, backward) for rule, _, forward, backward in other] == turned


def test_nothing_changed_is_no_difference():
    assert found(dump(nic()), dump(nic())) == []


def test_devices_of_one_side():
    disk = device("disk", description("disk", field("lba", 8)))
    assert found(dump(nic()), dump(nic(), disk)) == [("device-extra", "", HARMLESS, MAY)]
    assert found(dump(nic(), disk), dump(nic())) == [("device-missing", "", MAY, HARMLESS)]
    present = Present(frozenset({"nic"}), frozenset())
    assert found(dump(nic(), disk), dump(nic()), present) == []


def test_a_subsection_that_the_given_stream_sends_breaks():
    present = Present(frozenset({"nic"}), frozenset({"nic/late"}))
    without = changed(lambda e, d, f: d.pop("Subsections"))
    assert found(dump(nic()), without, present) == [("subsection-missing", "nic/late", BREAKS, HARMLESS)]
    assert found(without, dump(nic()), present) == [("subsection-extra", "nic/late", HARMLESS, BREAKS)]


def test_one_difference_of_many_device_types_is_grouped():
    types = {f"nic-{i}": nic()["nic"] for i in range(5)}
    new = {f"nic-{i}": changed(lambda e, d, f: f.pop())["nic"] for i in range(5)}
    comparison = compare_schemas(shapes(dump(types)), shapes(dump(new)))
    assert [(one.rule, names) for one, names in comparison.grouped()] == [("field-missing", sorted(types))]


# -- against a loader -------------------------------------------------------------------------------------------------

FIELD = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([1, 2, 4, 8]), st.integers(0, 4))
BODY = st.tuples(
    st.lists(FIELD, min_size=1, max_size=6, unique_by=lambda one: one[0]), st.integers(1, 4), st.integers(1, 4)
)


def bodied(body):
    fields, version, minimum = body
    made = [field(name, size, version_id=since) for name, size, since in fields]
    return dump(device("dev", description("dev", *made, version=version, minimum=min(version, minimum))))


def on_the_wire(body, version):
    return [(name, size) for name, size, since in body[0] if since <= version]


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(BODY, BODY)
def test_what_a_loader_cannot_read_breaks_and_what_it_reads_does_not(a, b):
    """A loader in three lines: versions, then fields by order and size; both directions."""
    comparison = compare_schemas(shapes(bodied(a)), shapes(bodied(b)))
    for sender, receiver, way in ((a, b, "forward"), (b, a, "backward")):
        effects = [getattr(difference, way) for difference in comparison.differences]
        sent, expected = on_the_wire(sender, sender[1]), on_the_wire(receiver, sender[1])
        length = [sum(size for _, size in fields) for fields in (sent, expected)]
        refused = sender[1] > receiver[1] or sender[1] < min(receiver[1:])
        if refused or length[0] != length[1]:
            assert BREAKS in effects, way
        elif sent == expected:
            assert set(effects) <= {HARMLESS}, way


# -- bodies that were sent --------------------------------------------------------------------------------------------


def sent(*fields, version=1, subs=(), name="dev"):
    w = StreamWriter()
    w.device(1, name, 0, Vmsd(name, version, list(fields), list(subs)))
    return of_vmdesc(parse_vmdesc(w.vmdesc_text(PAGE)))


def between(a, b):
    return [(d.rule, d.path, d.forward, d.backward) for d in compare_schemas(a, b).differences]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (num("x", "int32", 1), num("x", "uint32", 1), ("field-type", "x", HARMLESS, HARMLESS)),
        (num("x", "uint8", 1), num("x", "bool", 1), ("field-type", "x", HARMLESS, HARMLESS)),
        (num("x", "int64", 1), num("x", "timer", 1), ("field-type", "x", HARMLESS, HARMLESS)),
        (num("x", "int32", 1), num("x", "int32 equal", 1), ("field-type", "x", UNKNOWN, UNKNOWN)),
        (num("x", "int32", 1), num("x", "int32 le", 1), ("field-type", "x", UNKNOWN, UNKNOWN)),
        (num("x", "uint32", 1), raw("x", bytes(4)), ("field-type", "x", UNKNOWN, UNKNOWN)),
        (num("x", "uint32", 1), num("x", "uint64", 1), ("field-type", "x", BREAKS, BREAKS)),
        (nums("x", "uint32", [1] * 4), nums("x", "uint32", [1] * 8), ("array-length", "x", MAY, MAY)),
        (raw("x", bytes(4)), raw("x", bytes(8)), ("field-size", "x", MAY, MAY)),
        (num("x", "uint32", 1), num("y", "uint32", 1), ("field-renamed", "x", HARMLESS, HARMLESS)),
        (num("x", "uint32", 1), raw("y", bytes(4), "unused_buffer"), ("field-padded", "x", HARMLESS, HARMLESS)),
        (nums("x", "bool", [1] * 5), raw("y", bytes(5), "unused_buffer"), ("field-padded", "x", HARMLESS, HARMLESS)),
        (
            nums("x", "uint16", [1, 2]),
            struct_("s", Vmsd("s", 1, [num("lo", "uint16", 1), num("hi", "uint16", 1)])),
            ("field-regrouped", "x", HARMLESS, HARMLESS),
        ),
    ],
    ids=lambda part: str(part) if isinstance(part, tuple) else None,
)
def test_types_of_bodies_that_were_sent(one, other, expected):
    assert between(sent(one, num("z", "uint8", 0)), sent(other, num("z", "uint8", 0))) == [expected]


def test_a_section_without_a_minimum_may_be_too_old():
    assert between(sent(num("x", "int32", 1)), sent(num("x", "int32", 1), version=2)) == [
        ("section-version", "", UNKNOWN, BREAKS)
    ]


def test_a_subsection_that_was_not_sent_is_unknown():
    late = Vmsd("dev/late", 1, [num("y", "int32", 1)])
    assert between(sent(num("x", "int32", 1), subs=[late]), sent(num("x", "int32", 1))) == [
        ("subsection-missing", "dev/late", UNKNOWN, HARMLESS)
    ]


def test_a_section_that_the_other_vm_has_not_breaks():
    a, b = sent(num("x", "int32", 1)), sent(num("x", "int32", 1), name="other")
    assert between(a, b) == [("device-missing", "", BREAKS, HARMLESS), ("device-extra", "", HARMLESS, BREAKS)]


# -- what was sent against a dump -------------------------------------------------------------------------------------


def dumped(*fields, **more):
    return shapes(dump(device("dev-type", description("dev", *fields, **more))))


def test_a_body_is_compared_with_the_description_of_its_name():
    stream = sent(num("x", "int32", 1), num("t", "timer", 1), version=3)
    known = [field("x", 4), field("t", 48)]
    assert between(stream, dumped(*known)) == []
    late = description("dev/late", field("y"))
    assert between(stream, dumped(*known, field("maybe", field_exists=True), subs=(late,))) == []
    assert between(stream, dumped(field("x", 8), known[1])) == [("field-size", "x", BREAKS, BREAKS)]
    assert between(stream, dumped(*known, field("new"))) == [("field-extra", "new", MAY, MAY)]
    assert between(stream, dumped(known[0])) == [("field-missing", "t", BREAKS, BREAKS)]
    assert between(stream, dumped(*known, version=2)) == [("section-version", "", BREAKS, UNKNOWN)]
    assert between(stream, dumped(*known, version=5)) == [("section-version", "", HARMLESS, BREAKS)]
    assert between(stream, dumped(*known, version=5, minimum=4)) == [
        ("section-version", "", HARMLESS, BREAKS),
        ("minimum-version", "", BREAKS, HARMLESS),
    ]


def test_a_subsection_that_was_sent_and_is_not_in_the_dump_breaks():
    late = Vmsd("dev/late", 1, [num("y", "int32", 1)])
    stream = sent(num("x", "int32", 1), version=3, subs=[late])
    assert between(stream, dumped(field("x", 4))) == [("subsection-missing", "dev/late", BREAKS, HARMLESS)]


def test_a_section_that_no_type_has_is_unknown():
    assert between(sent(num("x", "int32", 1), name="timer"), dumped(field("x", 4))) == [
        ("device-missing", "", UNKNOWN, HARMLESS)
    ]


def test_of_several_types_with_one_description_the_likest_counts():
    types = device("one", description("dev", field("x", 8))) | device("two", description("dev", field("x", 4)))
    assert between(sent(num("x", "int32", 1), version=3), shapes(dump(types))) == []
