"""Data frames that pandas can concatenate and write: categories are kept, values of several types become text."""

import pandas as pd
import pytest

from qmigtool.util.frame import Frame, encodable, in_order


def frame(*rows):
    made = Frame(list(rows), columns=["name", "bit", "value"])
    made["name"] = made["name"].astype("category")
    return in_order(made, {"name": "bit"})


ONE = frame(("AVX", 2, 7), ("x87", 0, "text"))
OTHER = frame(("PKRU", 9, b"\x01\xff"), ("SSE", 1, None))


def test_categories_are_in_the_order_of_another_column():
    assert list(ONE["name"].cat.categories) == ["x87", "AVX"]
    assert ONE["name"].cat.ordered


def test_concatenated_frames_have_the_categories_of_all():
    both = pd.concat([ONE, OTHER], ignore_index=True)
    assert isinstance(both, Frame)
    assert list(both["name"]) == ["AVX", "x87", "PKRU", "SSE"]
    assert list(both["name"].cat.categories) == ["x87", "SSE", "AVX", "PKRU"]


def test_values_of_several_types_are_text():
    plain = pd.concat([ONE, OTHER], ignore_index=True).plain()
    assert list(plain["value"].dropna()) == ["7", "text", "01ff"]
    assert plain["value"].isna().tolist() == [False, False, False, True]
    assert list(plain["bit"]) == [2, 0, 9, 1]


@pytest.mark.parametrize(("name", "text"), [("pc.ram", "pc.ram"), ("caf\u00e9", "caf\u00e9"), ("a\udcff", "a\\xff")])
def test_a_name_is_encodable(name, text):
    assert encodable(name) == text
    assert text.encode("utf-8")
