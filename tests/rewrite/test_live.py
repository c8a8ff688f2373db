"""Which pages of a block are written with their contents."""

from types import SimpleNamespace

import numpy as np
import pytest

from qmigtool.rewrite.live import contents, live_stretches

PAGE = 16
PAGES = np.zeros((8, PAGE), np.uint8)
PAGES[[1, 2, 4], [0, 15, 7]] = 1


def pages(name, first, last):
    """Two pages at a time, so that stretches cross the pieces."""
    assert name == "pc.ram"
    for at in range(first, last, 2):
        yield at, PAGES[at : min(at + 2, last)]


def live(sent, *, squeeze=False, scrub=False, length=8 * PAGE):
    ram = SimpleNamespace(stretches=lambda name, absent: sent, read_pages=pages)
    memory = SimpleNamespace(ram=ram, page_size=PAGE, absent="error", squeeze=squeeze)
    block = SimpleNamespace(block=SimpleNamespace(idstr="pc.ram"), sent=length, scrub=scrub)
    return live_stretches(memory, block)


def test_pages_that_were_sent_with_contents_are_written_whatever_they_contain():
    assert live([(0, 3), (5, 8)]) == [(0, 3), (5, 8)]


@pytest.mark.parametrize(("length", "found"), [(6 * PAGE, [(0, 3), (5, 6)]), (6 * PAGE + 1, [(0, 3), (5, 7)]), (0, [])])
def test_a_smaller_block_has_no_pages_beyond_its_end(length, found):
    assert live([(0, 3), (5, 8)], length=length) == found


def test_squeezed_only_pages_that_are_not_zero_are_written():
    assert live([(0, 8)], squeeze=True) == [(1, 3), (4, 5)]
    assert live([(2, 5)], squeeze=True) == [(2, 3), (4, 5)]
    assert live([(5, 8)], squeeze=True) == []


def test_a_scrubbed_block_has_no_contents():
    assert live([(0, 8)], scrub=True) == []


def test_contents_are_those_of_the_block():
    memory = SimpleNamespace(ram=SimpleNamespace(read_pages=pages))
    block = SimpleNamespace(block=SimpleNamespace(idstr="pc.ram"))
    assert [(at, some.any(axis=1).tolist()) for at, some in contents(memory, block, 1, 4)] == [
        (1, [True, True]),
        (3, [False]),
    ]
