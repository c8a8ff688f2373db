import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import LiveStateError, QmigError, XsaveError
from qmigtool.xsave import Format, layout, make_plan
from qmigtool.xsave.batch import apply_batch
from tests.xsave import model

COMPACTED_FLAG = 1 << 63


def rows_of(areas):
    return np.frombuffer(b"".join(areas), dtype=np.uint8).reshape(len(areas), len(areas[0]))


def some_areas(name, mask, form, seeds, fill):
    walk = model.compacted_walk(mask) if form is Format.COMPACTED else model.standard_walk(name, mask)
    xcomp_bv = COMPACTED_FLAG | mask if form is Format.COMPACTED else 0
    areas = []
    for seed in seeds:
        state = model.some_state(name, mask & seed * 0x9E3779B97F4A7C15 >> 3, seed)
        if seed % 3 == 0:  # declared, but initial
            state = {bit: piece if bit < 2 else bytes(len(piece)) for bit, piece in state.items()}
        memory = (0x1F80, 0x9FC0, 0, 0xCCCCCCCC, 0x1FA0)[seed % 5]
        areas.append(model.write(state, walk, xcomp_bv=xcomp_bv, mxcsr=memory, fill=fill))
    return areas


def one_by_one(plan, areas):
    """The loop that the batch must equal; a carried supervisor component is a refusal in a batch."""
    out = []
    for index, area in enumerate(areas):
        try:
            result = plan.apply(area)
        except QmigError as error:
            return index, type(error), getattr(error, "components", ())
        if result.supervisor:
            return index, LiveStateError, None
        out.append(result.data)
    return out


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(["amd-zen4", "intel-spr", "intel-clx", "intel-skl", "amd-zen2-lwp", "intel-ptl"]),
    st.sampled_from([Format.STANDARD, Format.COMPACTED]),
    st.sampled_from(["amd-zen4", "amd-zen3", "intel-spr", "intel-clx", "qemu", "tcg"]),
    st.sampled_from([Format.STANDARD, Format.COMPACTED]),
    st.lists(st.integers(0, 1 << 20), min_size=1, max_size=8),
    st.sampled_from([0, -1, 0x220]),
    st.sampled_from([0, 0xCC]),
    st.integers(0, (1 << 63) - 1),
    st.booleans(),
)
def test_a_batch_is_the_loop(name, form, other, to, seeds, drop, fill, wanted, quirk):
    source, target = layout(name), layout(other)
    mask = (source.user_mask if form is Format.STANDARD else source.mask) & wanted | 3
    if mask & 0x80018 == 0x80018:
        mask &= ~0x80000
    target_mask = target.user_mask if to is Format.STANDARD else target.mask & (wanted >> 5 | 0x1801)
    # A standard source always has all of its layout's places.
    areas = some_areas(name, source.user_mask if form is Format.STANDARD else mask, form, seeds, fill)
    plan_mask = source.user_mask if form is Format.STANDARD else mask
    plan = make_plan(source, form, plan_mask, target, to, target_mask, drop=drop, hyperv_quirk=quirk)
    expected = one_by_one(plan, areas)
    if isinstance(expected, list):
        result = apply_batch(plan, rows_of(areas))
        assert result.shape == (len(areas), plan.target_size)
        assert [bytes(row) for row in result] == expected
    else:
        index, kind, components = expected
        with pytest.raises(kind, match=f"row {index}: ") as error:
            apply_batch(plan, rows_of(areas))
        if components is not None:
            assert getattr(error.value, "components", ()) == components


def area(size, xstate_bv, xcomp_bv=0, at=None):
    data = bytearray(size)
    data[0:2], data[24:28] = b"\x7f\x03", b"\x80\x1f\x00\x00"
    struct.pack_into("<QQ", data, 512, xstate_bv, xcomp_bv)
    for offset, piece in (at or {}).items():
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def zen4_plan(to=Format.COMPACTED, mask=0x207, form=Format.STANDARD, **options):
    source_mask = 0x2E7 if form is Format.STANDARD else 0x1807
    return make_plan(layout("amd-zen4"), form, source_mask, layout("amd-zen4"), to, mask, **options)


def test_the_refusal_names_the_row_and_the_components():
    good = area(2440, 0x7)
    bad = area(2440, 0x20, at={832: b"\1"})
    with pytest.raises(LiveStateError, match=r"^row 2: .*opmask$") as error:
        apply_batch(zen4_plan(), rows_of([good, good, bad, good, bad]))
    assert error.value.components == ("opmask",)
    assert apply_batch(zen4_plan(drop=0x20), rows_of([good, bad])).shape == (2, 840)


@pytest.mark.parametrize(
    "bad",
    [
        area(2440, 1 << 63),
        area(2440, 0x800),
        area(2440, 0, 7),
        area(2440, 0, COMPACTED_FLAG | 7),
        area(2440, 0, at={528: b"\1"}),
        area(2440, 0, at={575: b"\1"}),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(bad):
    with pytest.raises(XsaveError, match="row 1: "):
        apply_batch(zen4_plan(), rows_of([area(2440, 0), bad]))


def test_a_component_past_the_end():
    with pytest.raises(XsaveError, match=r"row 1: .*PKRU"):
        apply_batch(zen4_plan(), rows_of([area(2432, 0x7), area(2432, 0x200)]))
    with pytest.raises(XsaveError, match=r"row 0: .*Hi16_ZMM"):
        apply_batch(zen4_plan(), rows_of([area(832, 0x80)]))
    assert apply_batch(zen4_plan(), rows_of([area(832, 0x7)])).shape == (1, 840)


def test_supervisor_state_cannot_leave_a_batch():
    plan = zen4_plan(Format.STANDARD, 0x7, Format.COMPACTED)
    idle, live = (area(872, 0x800, COMPACTED_FLAG | 0x1807, {832: piece}) for piece in (b"", b"\1"))
    assert apply_batch(plan, rows_of([idle])).shape == (1, 832)
    with pytest.raises(LiveStateError, match=r"row 1: .*CET_U") as error:
        apply_batch(plan, rows_of([idle, live]))
    assert error.value.components == ("CET_U",)


def test_mpx_and_apx_in_a_batch():
    qemu = layout("qemu")
    plan = make_plan(qemu, Format.COMPACTED, 0x8001B, qemu, Format.STANDARD, 0x8001B)
    mpx, apx = (area(832, 0x80008, COMPACTED_FLAG | 0x8001B, {at: b"\1"}) for at in (576, 704))
    result = apply_batch(plan, rows_of([mpx, apx]))
    assert [bytes(row[512:520]) for row in result] == [(8).to_bytes(8, "little"), (0x80000).to_bytes(8, "little")]
    assert result[:, 960].tolist() == [1, 1]
    both = area(832, 0x80008, COMPACTED_FLAG | 0x8001B, {576: b"\1", 704: b"\1"})
    with pytest.raises(XsaveError, match=r"row 2: .*BNDREGS and APX_F"):
        apply_batch(plan, rows_of([mpx, apx, both]))


@pytest.mark.parametrize(
    "batch", [np.zeros(832, np.uint8), np.zeros((1, 832), np.uint16), np.zeros((1, 575), np.uint8)]
)
def test_what_is_not_a_batch(batch):
    with pytest.raises(XsaveError):
        apply_batch(zen4_plan(), batch)


def test_an_empty_batch():
    assert apply_batch(zen4_plan(), np.zeros((0, 2440), np.uint8)).shape == (0, 840)


def test_a_strided_batch_and_its_source_are_left_alone():
    wide = np.zeros((4, 2, 2440), np.uint8)
    wide[:, 0] = np.frombuffer(area(2440, 0x200, at={2432: b"PKRU----"}), np.uint8)
    before = wide.copy()
    result = apply_batch(zen4_plan(), wide[:, 0])
    assert all(bytes(row[832:840]) == b"PKRU----" for row in result)
    assert (wide == before).all()
