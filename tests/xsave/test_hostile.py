"""Whatever the bytes are, the only exceptions are qmigtool's own."""

import contextlib
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import QmigError
from qmigtool.xsave import Format, XsaveArea, convert, layout, layout_names, make_plan
from qmigtool.xsave.batch import apply_batch

FLAG = 1 << 63
masks = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 3, 7, 0xE7, 0x2E7, 0x1807, 0x602E7, FLAG | 0x2E7, FLAG | 7])


@st.composite
def hostile_areas(draw):
    data = bytearray(draw(st.binary(max_size=700)) + bytes(draw(st.sampled_from([0, 100, 2000, 11000]))))
    if len(data) >= 528 and draw(st.booleans()):
        struct.pack_into("<QQ", data, 512, draw(masks), draw(masks))
    if len(data) >= 576 and draw(st.booleans()):
        data[528:576] = bytes(48)
    return bytes(data)


names = st.sampled_from(layout_names())


@settings(max_examples=300, deadline=None)
@given(
    hostile_areas(),
    names,
    names,
    st.none() | masks,
    st.dictionaries(st.integers(-1, 64), st.binary(max_size=40), max_size=2),
    st.booleans(),
)
def test_only_qmig_errors(data, name, other, mask, supervisor, quirk):
    for to in Format:
        with contextlib.suppress(QmigError):
            convert(data, layout(name), to, target=layout(other), mask=mask, supervisor=supervisor, hyperv_quirk=quirk)
    with contextlib.suppress(QmigError):
        area = XsaveArea(data, layout(name))
        assert area.live >= 0
        area.architectural_state()
    with contextlib.suppress(QmigError):
        XsaveArea(data, layout(name)).redeclared(mask)
    with contextlib.suppress(QmigError):
        XsaveArea(data, layout(name), supervisor)


@settings(max_examples=150, deadline=None)
@given(st.lists(hostile_areas(), min_size=1, max_size=3), names, masks, st.sampled_from(list(Format)), st.booleans())
def test_only_qmig_errors_in_a_batch(areas, name, mask, form, quirk):
    size = min(len(area) for area in areas)
    batch = np.frombuffer(b"".join(area[:size] for area in areas), np.uint8).reshape(len(areas), size)
    cpu = layout(name)
    with contextlib.suppress(QmigError):
        source_mask = cpu.mask & mask if form is Format.COMPACTED else cpu.user_mask
        plan = make_plan(cpu, form, source_mask, cpu, Format.COMPACTED, cpu.user_mask, hyperv_quirk=quirk)
        apply_batch(plan, batch)


@settings(deadline=None)
@given(st.integers(0, 2432), st.sampled_from(list(Format)))
def test_every_truncation_of_a_full_area(size, form):
    cpu = layout("amd-zen4-kvm")
    data = bytearray(b"\1" * 2432)
    data[512:576] = struct.pack("<QQ", 0xE7, FLAG | 0xE7 if form is Format.COMPACTED else 0) + bytes(48)
    data[24:28] = b"\x80\x1f\0\0"
    try:
        assert XsaveArea(bytes(data[:size]), cpu).live == 0xE7
        assert size == 2432
    except QmigError:
        assert size < 2432
