"""`parsers/README.md` is what `python -m tests.support.book` makes, and has every record."""

import re

from qmigtool.layers import known
from tests.support import book


def test_the_book_is_what_its_maker_makes() -> None:
    assert book.PATH.read_text(encoding="utf-8") == book.text()


def test_every_record_is_in_it() -> None:
    heads = re.findall(r"^### (\w+)$", book.PATH.read_text(encoding="utf-8"), re.MULTILINE)
    layers = [getattr(known, name) for name in known.__all__]
    assert sorted(heads) == sorted(one.__name__ for one in layers if one.record is not None)
