"""-dump-vmstate from anywhere: whatever is in it, a reading or an error of ours."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import BudgetError, LimitError, StreamError
from qmigtool.parsers.vmstatedump import MAX_DEPTH, MAX_SIZE, parse_vmstate_dump
from tests.schemadiff.dumps import changed, description, device, dump, field, nic, text


def parse(document):
    return parse_vmstate_dump(text(document))


def test_what_is_read():
    read = parse(dump(nic(), machine="pc-1"))
    assert read.machine == "pc-1"
    assert read.counts_arrays
    (one,) = read.devices
    assert (one.type, one.version_id, one.minimum_version_id) == ("nic", 3, 1)
    assert [(f.name, f.size, f.num, f.field_exists) for f in one.description.fields] == [
        ("ctrl", 4, None, False),
        ("status", 2, None, False),
        ("state", 64, None, False),
        ("mac", 1, 6, False),
        ("phy", 2, 32, False),
    ]
    assert one.description.fields[2].description.fields[0].num == 4
    assert [sub.name for sub in one.description.subsections] == ["nic/late"]


def test_without_a_machine_or_arrays():
    read = parse(device("x", description("x", field("a"))))
    assert read.machine is None
    assert not read.counts_arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, d, f: e.pop("Description"), "no 'Description'"),
        (lambda e, d, f: e.update(version_id="3"), "'version_id' is '3'"),
        (lambda e, d, f: e.update(version_id=True), "'version_id' is True"),
        (lambda e, d, f: e.update(version_id=1.5), "a number '1.5'"),
        (lambda e, d, f: e.update(version_id=float("nan")), "a number 'NaN'"),
        (lambda e, d, f: d.update(name=7), "'name' is 7"),
        (lambda e, d, f: d.update(Fields={}), "'Fields' is dict of 0 items"),
        (lambda e, d, f: d.update(Subsections=[1]), "no 'name'"),
        (lambda e, d, f: f.append([]), "list of 0 items instead of an object"),
        (lambda e, d, f: f[0].update(field_exists=1), "'field_exists' is 1"),
        (lambda e, d, f: f[0].update(Description=None), "'Description' is None"),
        (lambda e, d, f: f[0].pop("size"), "no 'size'"),
    ],
)
def test_what_is_not_such_a_dump(change, message):
    with pytest.raises(StreamError, match=message.replace("(", r"\(")) as caught:
        parse(changed(change))
    assert caught.value.section == "vmstate dump"


@pytest.mark.parametrize("number", [-1, MAX_SIZE, 10**400])
def test_numbers_that_no_dump_has(number):
    with pytest.raises(LimitError):
        parse(changed(lambda e, d, f: f[0].update(size=number)))


def test_a_number_too_long_for_python():
    with pytest.raises(StreamError, match="not JSON"):
        parse_vmstate_dump(text(dump(nic())).replace(b'"size": 2', b'"size": ' + b"9" * 5000))


def nested(depth):
    body = description("x", field("a"))
    for _ in range(depth):
        body = description("x", field("s", Description=body))
    return device("x", body)


def test_nesting_has_an_end():
    parse(nested(MAX_DEPTH - 1))
    with pytest.raises(LimitError, match="nested"):
        parse(nested(MAX_DEPTH))
    for depth in (1 << 10, 1 << 20):
        with pytest.raises((StreamError, BudgetError)):
            parse_vmstate_dump(b'{"x": ' * depth)
        with pytest.raises((StreamError, BudgetError)):
            parse_vmstate_dump(b'{"vmschkmachine": ' + b"[" * depth + b"]" * depth + b"}")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'{"a": }', b'{"a": 1}', b"{}x"])
def test_what_is_no_object(data):
    with pytest.raises(StreamError):
        parse_vmstate_dump(data)


WHOLE = text(dump(nic()))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, len(WHOLE)), st.binary(max_size=6))
def test_bytes_changed_anywhere(start, length, new):
    with contextlib.suppress(StreamError):
        parse_vmstate_dump(WHOLE[:start] + new + WHOLE[start + length :])


@settings(max_examples=200, deadline=None)
@given(st.data(), VALUES)
def test_values_changed_anywhere(data, value):
    document = json.loads(WHOLE)
    at = document["nic"]
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = data.draw(st.sampled_from(keys))
        if isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
            at = at[key]
            continue
        at[key] = value
        break
    with contextlib.suppress(StreamError):
        parse(document)
