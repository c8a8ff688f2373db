import copy
import pickle

import pytest

from qmigtool import errors
from qmigtool.errors import LiveStateError, QmigError, StreamError, UnsupportedError

CODES = {
    "QmigError": 3,
    "UsageError": 2,
    "PathError": 2,
    "SnapshotsError": 2,
    "MigrationsError": 2,
    "GapError": 3,
    "OutputError": 2,
    "ClosedError": 2,
    "StreamError": 3,
    "TruncatedError": 3,
    "LimitError": 3,
    "BudgetError": 63,
    "UnsupportedError": 63,
    "UndecidedError": 63,
    "XsaveError": 3,
    "LiveStateError": 1,
}
PARENTS = {
    "UsageError": "QmigError",
    "PathError": "UsageError",
    "SnapshotsError": "UsageError",
    "MigrationsError": "UsageError",
    "GapError": "StreamError",
    "OutputError": "UsageError",
    "ClosedError": "QmigError",
    "StreamError": "QmigError",
    "TruncatedError": "StreamError",
    "LimitError": "StreamError",
    "BudgetError": "UnsupportedError",
    "UnsupportedError": "QmigError",
    "UndecidedError": "UnsupportedError",
    "XsaveError": "QmigError",
    "LiveStateError": "XsaveError",
}


def test_the_tree_and_its_exit_codes():
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    found = {name: kind for name, kind in found.items() if issubclass(kind, BaseException)}
    assert {name: kind.exit_code for name, kind in found.items()} == CODES
    assert {name: kind.__base__.__name__ for name, kind in found.items() if kind is not QmigError} == PARENTS


def example(name):
    kind = getattr(errors, name)
    place = {"section": "cpu"}
    if name != "LiveStateError":
        place |= {"offset": 0x1F, "expected": "something"}
    if name == "UnsupportedError":
        return kind("the feature", **place)
    if name == "BudgetError":
        return kind("seconds", "it takes long", option="--max-seconds", offset=0x1F, section="cpu")
    if name == "UndecidedError":
        return kind("the feature", "a message", advice="--option", **place)
    if name == "LiveStateError":
        return kind("lost", components=("PKRU", "AVX"), **place)
    return kind("a message", **place)


@pytest.mark.parametrize("name", CODES)
def test_pickling_keeps_everything(name):
    error = example(name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own
        assert type(back) is type(error)
        assert vars(back) == vars(error)
        assert str(back) == str(error)
        assert back.args == error.args
        assert back.as_dict() == error.as_dict()
    assert str(copy.copy(error)) == str(error)


def test_pickling_keeps_what_was_added_later():
    error = StreamError("x")
    error.section = "late"
    assert pickle.loads(pickle.dumps(error)).section == "late"  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "m"),
        ({"offset": 0}, "at offset 0x0: m"),
        ({"section": "ram"}, "in ram: m"),
        ({"offset": 255, "section": "ram"}, "at offset 0xff in ram: m"),
        ({"offset": 255, "section": "ram", "expected": "e"}, "at offset 0xff in ram: m (expected e)"),
        ({"expected": "e"}, "m (expected e)"),
    ],
)
def test_words(parts, text):
    assert str(StreamError("m", **parts)) == text


def test_parts_for_json():
    assert StreamError("m", offset=1 << 63, section="s", expected="e").as_dict() == {
        "kind": "StreamError",
        "message": "m",
        "offset": 0x8000000000000000,
        "section": "s",
        "expected": "e",
    }
    assert UnsupportedError("a thing").as_dict()["feature"] == "a thing"
    assert str(UnsupportedError("a thing")) == "a thing is not supported yet"
    assert LiveStateError("m", components=("PKRU",)).as_dict()["components"] == ["PKRU"]
