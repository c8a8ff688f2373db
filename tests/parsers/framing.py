"""A stream that cannot be read, and the error."""

import pytest

from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.window import Window


def error_of(data: bytes, **options):
    reader = Reader(Window(data, final=True), **options)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at the type
        list(reader.sections())
    return caught.value
