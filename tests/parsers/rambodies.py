"""Bodies of the ram section, read alone."""

import pytest

from qmigtool.errors import StreamError
from qmigtool.parsers.ram import RamBody
from qmigtool.parsers.ramruns import RunTable
from qmigtool.parsers.ramstate import RamState
from qmigtool.parsers.window import Window
from tests.support.streamwriter import (
    PAGE,
    eos,
    mem_size,
)


def walk(data, state=None, *, base=0):
    """Walk one body; return the state and the offset behind it."""
    state = state or RamState(PAGE)
    if state.runs is None:
        state.runs = RunTable(state.page_size)
    body = RamBody(state)
    window = Window(data, base=base, final=True)
    pos, ended = base, False
    while not ended:
        pos, ended = body.advance(window, pos)
    return state, pos


def listed(*blocks, page_size=PAGE):
    state = RamState(page_size)
    walk(mem_size(blocks or [("r", 16 * PAGE)]) + eos(), state)
    return state


def fails(data, state=None, kind=StreamError):
    with pytest.raises(kind) as caught:
        walk(data, state if state is not None else listed())
    assert type(caught.value) is kind
    return caught.value
