"""JSON written as it is made."""

import io
import json

from qmigtool.util.jsontext import Items, Pairs, Tokens, json_document, materialised, write_json


def test_json_is_that_of_json() -> None:
    value = {"a": [1, {"b": None}, [], {}], "c": '\u202e\x1b"', "d": True, "e": {"f": [[1], [2, 3]]}}
    assert json_document(value) == json.dumps(value, indent=2) + "\n"
    lazy = Pairs(
        [
            ("a", Items([1, Pairs([("b", None)]), Items([]), Pairs([])])),
            ("t", Tokens([[], ["1", "2"], ["3"]])),
            ("empty", Tokens([])),
        ]
    )
    plain = {"a": [1, {"b": None}, [], {}], "t": [1, 2, 3], "empty": []}
    out = io.StringIO()
    write_json(out, lazy, 4)
    assert out.getvalue() == json.dumps(plain, indent=4)


def test_what_is_lazy_can_be_made() -> None:
    lazy = Pairs([("a", Items([Tokens([["1"], ["2"]])])), ("b", {"c": (1, 2)})])
    assert materialised(lazy) == {"a": [[1, 2]], "b": {"c": [1, 2]}}
