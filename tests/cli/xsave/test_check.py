"""``xsave check`` and ``xsave convert`` judge areas alike: where they differ, a consumer's own rule is the reason."""

import contextlib
import io
import json
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.cli import main
from qmigtool.xsave import Format, layout, layout_names
from qmigtool.xsave.components import bits
from tests.support import samplefiles

OWN_RULES = (
    "hv_x64_xsave_xfem_register",  # MSHV has no bit for PKRU, APX_F, PT, ...
    "does not have LWP",  # Linux does not know it
    "no XSAVEC", "does not record XSAVEC", "no XSAVES",  # the CPU; `convert` says so in a note
)  # fmt: skip
"""Reasons of one consumer that say nothing of the area: it can be converted for another one."""

STALE = 0xCCCCCCCC
"""An MXCSR that nothing declares: KVM passes over it, as `convert` does (and says), and XRSTOR faults."""


def run(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.run(["xsave", *map(str, arguments)])
    assert "Traceback" not in err.getvalue()
    return status, out.getvalue(), err.getvalue()


def area(of, form, mask, declared, mxcsr=0x1F80):
    """An area in which each declared extended component has bytes."""
    offsets = of.compacted_offsets(mask) if form is Format.COMPACTED else of.offsets(form, of.user_mask)
    out = bytearray(of.compacted_size(mask) if form is Format.COMPACTED else of.standard_size())
    struct.pack_into("<H", out, 0, 0x37F)
    struct.pack_into("<I", out, 24, mxcsr)
    for bit in bits(declared & ~3):
        size = of.rows[bit].size
        out[offsets[bit] : offsets[bit] + size] = bytes([bit + 1]) * size
    struct.pack_into("<QQ", out, 512, declared, mask | 1 << 63 if form is Format.COMPACTED else 0)
    return bytes(out)


def judge(data, *options):
    """Return the exit status of `check`, those of `convert` to either format, and why the consumers asked refuse."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "area"
        path.write_bytes(data)
        status, out, _ = run("check", path, *options, "--json")
        converted = [run("convert", path, Path(folder) / "out", "--to", form, *options)[0] for form in Format]
    found = json.loads(out)  # an error, where no layout fits
    reasons = [reason for verdict in found.get("verdicts", ()) if verdict["asked"] for reason in verdict["reasons"]]
    return status, converted, found.get("misfits", []), reasons


@pytest.mark.parametrize("supervisor", [False, True], ids=["user", "supervisor"])
@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("name", layout_names())
def test_whole_areas_of_every_layout(name, form, supervisor):
    of = layout(name)
    mask = of.user_mask | (of.supervisor_mask if supervisor and form is Format.COMPACTED else 0)
    if of.overlapping(mask):
        mask &= ~(1 << 19)  # qemu: no XCR0 has MPX and APX_F
    status, converted, misfits, reasons = judge(area(of, form, mask, mask), "--layout", name)
    assert converted == [0, 0]
    assert not misfits
    assert [reason for reason in reasons if not any(rule in reason for rule in OWN_RULES)] == []
    assert status == bool(reasons)


@st.composite
def areas(draw):
    of = layout(draw(st.sampled_from(layout_names())))
    form = draw(st.sampled_from(list(Format)))
    whole = of.user_mask | (of.supervisor_mask if form is Format.COMPACTED else 0)
    mask = whole & draw(st.one_of(st.just(-1), st.integers(0, (1 << 64) - 1)))
    declared = mask & draw(st.one_of(st.just(-1), st.just(0), st.integers(0, (1 << 64) - 1)))
    mxcsr = draw(st.sampled_from([0x1F80, 0x1F80, 0x9FC0, 0x21F80, 0x11F80, STALE]))
    data = bytearray(area(of, form, mask, declared, mxcsr))
    match draw(st.integers(0, 7)):
        case 0:
            del data[draw(st.integers(500, len(data))) :]
        case 1:
            data[draw(st.integers(512, 575))] ^= 1 << draw(st.integers(0, 7))
        case 2:
            data[draw(st.integers(512, 527))] ^= 1 << draw(st.integers(0, 7))
        case 3:
            data += bytes(draw(st.sampled_from([1, 64, -len(data) % 4096])))
        case 4:
            data += b"\x01" * 16
    quirk = draw(st.sampled_from([[], ["--hyperv-quirk"], ["--no-hyperv-quirk"]]))
    auto = draw(st.booleans())
    return bytes(data), ([] if auto else ["--layout", of.name]) + quirk


@settings(deadline=None)  # 17 layouts are tried where none is named
@given(areas())
def test_any_area(case):
    data, options = case
    status, converted, misfits, reasons = judge(data, *options)
    auto = "--layout" not in options
    if status == 0:
        # Its layouts may agree on the area and lay out its other format differently.
        assert all(done == 0 or (auto and done == 63) for done in converted), converted
    elif 0 in converted:
        assert status == 1
        assert not misfits
        own = (*OWN_RULES, f"MXCSR (byte 24) is {struct.unpack_from('<I', data, 24)[0]:#x}")
        assert [reason for reason in reasons if not any(rule in reason for rule in own)] == []
        if any("MXCSR" in reason for reason in reasons):  # only where nothing declares it
            assert not struct.unpack_from("<Q", data, 512)[0] & 7


SPR = layout("intel-spr")
CET = area(SPR, Format.COMPACTED, 0x1807, 0x1807)


def test_who_is_asked_for_supervisor_components(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CET)
    status, out, _ = run("check", path, "--layout", "intel-spr")
    assert status == 0
    assert "XRSTOR: not asked, XCOMP_BV has supervisor components (CET_U CET_S), which only XRSTORS takes" in out
    assert "KVM_SET_XSAVE: not asked, it takes the other format" in out
    assert "XRSTORS: accepts" in out
    document = json.loads(run("check", path, "--layout", "intel-spr", "--json")[1])
    assert {v["consumer"]: v["asked"] for v in document["verdicts"]} == {
        "XRSTOR": False, "XRSTORS": True, "KVM_SET_XSAVE": False, "MSHV": True, "WHPX": True,
    }  # fmt: skip
    # Whoever is named is asked, and IA32_XSS is what the caller says it is.
    status, out, _ = run("check", path, "--layout", "intel-spr", "--consumer", "XRSTOR")
    assert status == 1
    assert "does not have CET_U, CET_S" in out
    status, out, _ = run("check", path, "--layout", "intel-spr", "--xss", "0")
    assert status == 1
    assert "XCR0 | IA32_XSS 0x602e7 does not have CET_U, CET_S" in out


def test_a_standard_area_found_by_auto_leaves_supervisor_state_beside_it(tmp_path):
    """With the default masks, as with a layout by name: they are no components of a standard area."""
    (tmp_path / "a").write_bytes(CET)
    for options in ([], ["--layout", "intel-spr"]):
        status, out, err = run("convert", tmp_path / "a", tmp_path / "o", "--to", "standard", *options, "--json")
        assert (status, err) == (0, "")
        document = json.loads(out)
        assert document["xstate_bv"] == "0x7"
        assert set(document["msrs"]) == {"CET_U", "CET_S"}


@pytest.mark.parametrize("name", ["intel-spr", "intel-clx", "zhaoxin-kx7000"])
def test_an_area_too_short_for_its_layout_is_of_another_one_for_import_too(name, tmp_path):
    """2440 bytes, as AMD's have: what is declared ends behind that only because the layout is wrong."""
    amd = layout("amd-zen4")
    (tmp_path / "a").write_bytes(area(amd, Format.STANDARD, 0, 0x207))
    stream = str(samplefiles.path("kvm-avx512-7.2"))
    import_area = ["import", stream, tmp_path / "a", "--vcpu", "0", "--layout", name, "--dry-run"]
    convert = ["convert", tmp_path / "a", tmp_path / "o", "--to", "compacted", "--layout", name]
    for command in (import_area, convert):
        status, _, err = run(*command)
        assert status == 1
        assert f"the area does not fit {name}: the area has 2440 bytes, like areas of amd-zen3" in err
    assert run("check", tmp_path / "a", "--layout", name)[0] == 1
