import pytest

from qmigtool.parsers.section import Section, Type
from qmigtool.stream.sectionindex import SectionIndex

SECTIONS = [
    Section(Type.HEADER, 0, 8, 0, 8),
    Section(Type.START, 8, 100, 25, 78, 1, "ram", 0, 4, "records"),
    Section(Type.PART, 108, 18, 113, 8, 1, "ram", 0, 4, "records"),
    Section(Type.PART, 126, 18, 131, 8, 1, "ram", 0, 4, "records"),
    Section(Type.FULL, 144, 1 << 40, 160, (1 << 40) - 21, 0xFFFFFFFF, "x", 0xFFFFFFFF, 0xFFFFFFFF, "vmdesc"),
    Section(Type.UNREADABLE, 1 << 63, 5, 1 << 63, 0, complete=False),
]


@pytest.mark.parametrize("how", ["at once", "one by one"])
def test_is_the_list_it_stands_for(how):
    index = SectionIndex(SECTIONS if how == "at once" else ())
    if how == "one by one":
        for section in SECTIONS:
            index.append(section)
    assert len(index) == len(SECTIONS)
    assert list(index) == SECTIONS
    assert [index[i] for i in range(-len(SECTIONS), len(SECTIONS))] == SECTIONS * 2
    for part in (slice(None), slice(1, 3), slice(None, None, -1), slice(-2, None), slice(4, 1)):
        assert index[part] == SECTIONS[part]
    assert SECTIONS[2] in index
    assert index.index(SECTIONS[3]) == 3
    assert list(reversed(index)) == SECTIONS[::-1]


@pytest.mark.parametrize("at", [6, 99, -7, -99])
def test_beyond_its_ends(at):
    with pytest.raises(IndexError):
        SectionIndex(SECTIONS)[at]
    with pytest.raises(IndexError):
        SectionIndex()[0]


def test_millions_of_parts_stay_small():
    index = SectionIndex()
    for i in range(50_000):
        index.append(Section(Type.PART, 18 * i, 18, 18 * i + 5, 8, 1, "ram", 0, 4, "records"))
    assert len(index._templates) == 1
    assert index._kinds.itemsize + 3 * index._spans.itemsize == 28
    assert index[49_999].offset == 18 * 49_999
