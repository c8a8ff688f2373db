"""Which layouts fit an area: what contradicts one, and what must not."""

import json
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool import Rewriter
from qmigtool import open as open_stream
from qmigtool.cli import main
from qmigtool.errors import LiveStateError, XsaveError
from qmigtool.xsave import Format, XsaveArea, area_notes, convert, fitting_layouts, layout, layout_names, misfits
from tests.support import casefiles, samplefiles
from tests.support.paths import SAMPLES

INTEL = casefiles.read("xsave", "intel.std")  # k1 = 0x0807060504030201, ZMM16 to ZMM19 live, 2696 bytes
AREAS = SAMPLES / "areas"
ZEN4 = (AREAS / "zen4-avx512.standard.bin").read_bytes()  # written by XSAVE on a Zen 4: 2432 bytes
ZEN4_COMPACTED = (AREAS / "zen4-avx512.compacted.bin").read_bytes()
KVM = str(samplefiles.path("kvm-avx512-7.2"))
ONLY_AVX = bytearray(INTEL)
ONLY_AVX[512:520] = (0x7).to_bytes(8, "little")
ONLY_AVX[832:] = bytes(2696 - 832)


def run(*arguments, capsys):
    code = main.run(["xsave", *map(str, arguments)])
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


def area_of(name, tmp_path, data=None):
    path = tmp_path / name
    path.write_bytes(casefiles.read("xsave", name) if data is None else data)
    return path


# -- what contradicts a layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["amd-zen4", "amd-zen5", "amd-zen3", "hygon-dhyana"])
def test_a_length_of_another_vendors_cpus(name):
    data = bytes(ONLY_AVX)  # nothing but the length speaks
    (why,) = misfits(data, layout(name))
    assert "2696 bytes" in why
    assert "intel-clx" in why
    assert "AMD" in why


@pytest.mark.parametrize("name", ["intel-clx", "intel-spr", "intel-skl", "intel-lnl", "intel-hsw"])
def test_any_cpu_of_the_vendor_may_have_that_length(name):
    assert misfits(bytes(ONLY_AVX), layout(name)) == ()


def test_bytes_where_the_layout_has_no_component():
    page = bytearray(INTEL.ljust(4096, b"\0"))  # the length says nothing now
    page[2688:2692] = bytes.fromhex("54555555")  # PKRU of an Intel CPU
    (why,) = misfits(bytes(page), layout("amd-zen4"))
    assert "byte 2688 is 0x54" in why
    assert misfits(bytes(page), layout("intel-clx")) == ()
    zen = ZEN4.ljust(4096, b"\0")  # opmask at 832, in the gap of an Intel layout
    assert "bytes 832 to 959" in misfits(zen, layout("intel-clx"))[0]
    assert misfits(zen, layout("amd-zen4")) == ()


def test_bytes_that_only_another_vendors_layout_has_as_declared():
    """opmask (declared) of an Intel area is inside AMD's ZMM_Hi256, which is not declared here."""
    page = bytearray(INTEL.ljust(4096, b"\0"))
    page[1664:2688] = bytes(1024)
    page[512:520] = (0x27).to_bytes(8, "little")
    (why,) = misfits(bytes(page), layout("amd-zen4"))
    assert "intel-clx" in why or "intel-knl" in why
    assert misfits(bytes(page), layout("intel-clx")) == ()


@pytest.mark.parametrize(
    ("declared", "name", "word"),
    [
        (0x200, "amd-zen1", "PKRU"),
        (0x18, "amd-zen4", "BNDREGS"),
        (1 << 62, "intel-clx", "LWP"),
        (0x800, "amd-zen4", "CET"),
    ],
)
def test_a_standard_header_that_the_layout_cannot_give(declared, name, word):
    data = bytearray(4096)
    data[512:520] = declared.to_bytes(8, "little")
    (why,) = misfits(bytes(data), layout(name))
    assert word in why


def test_a_compacted_header_that_the_layout_cannot_give():
    data = bytearray(ZEN4_COMPACTED)
    struct.pack_into("<Q", data, 520, 1 << 63 | 0x600E7)
    assert "XTILECFG XTILEDATA" in misfits(bytes(data), layout("amd-zen4"))[0]
    assert not any("amd" in one.name for one in fitting_layouts(bytes(data)))
    assert "together" in misfits(casefiles.read("xsave", "mpxapx.std"), layout("qemu"))[0]
    assert fitting_layouts(casefiles.read("xsave", "mpxapx.std")) == ()


# -- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in layout_names() if name != "qemu"])
@pytest.mark.parametrize("padding", [0, 1, 100, 4096])
def test_what_was_made_for_a_layout_fits_it(name, padding):
    """In both formats, with zeros after it, and in memory that was never written."""
    place = layout(name)
    data = bytearray(place.standard_size())
    mask = place.user_mask & 0xE7
    struct.pack_into("<Q", data, 512, mask)
    for bit in (5, 6, 7):
        if bit in place.rows:
            data[place.rows[bit].offset : place.rows[bit].end] = bytes([bit + 1]) * place.rows[bit].size
    standard = bytes(data)
    assert misfits(standard + bytes(padding), place) == ()
    compacted = convert(standard, place, Format.COMPACTED).data
    assert misfits(compacted + bytes(padding), place) == ()
    if padding:
        assert misfits(compacted + b"\xcc" * padding, place) == ()


def test_real_areas_fit_where_they_were_made():
    for name in ("hw_mm.std", "hw_mm.cmp", "hw_nozmmhi.std", "hw_nozmmhi.cmp"):
        assert misfits(casefiles.read("xsave", name), layout("amd-zen4-kvm")) == (), name
    for data in (ZEN4, ZEN4_COMPACTED):
        assert misfits(data, layout("amd-zen4")) == ()
        assert layout("amd-zen4") in fitting_layouts(data)
    assert not [one for one in fitting_layouts(ZEN4) if one.name.startswith("intel")]


@pytest.mark.parametrize("size", [0, 1, 575])
def test_an_area_without_a_header_has_no_layout(size):
    assert misfits(bytes(size), layout("amd-zen4")) == ()


# -- the commands ----------------------------------------------------------------------------------------------------


def test_check_says_that_the_layout_does_not_fit(tmp_path, capsys):
    path = area_of("intel.std", tmp_path)
    code, out, _ = run("check", path, "--layout", "amd-zen4", capsys=capsys)
    assert code == 1
    assert "does not fit amd-zen4" in out
    assert "2696 bytes" in out
    code, out, _ = run("check", path, "--layout", "amd-zen4", "--json", capsys=capsys)
    document = json.loads(out)
    assert (code, document["fits"], len(document["misfits"])) == (1, False, 1)
    code, out, _ = run("check", path, "--layout", "intel-clx", "--json", capsys=capsys)
    assert (code, json.loads(out)["fits"], json.loads(out)["misfits"]) == (0, True, [])


def test_convert_refuses_and_can_be_forced(tmp_path, capsys):
    path, target = area_of("intel.std", tmp_path), tmp_path / "out"
    code, _, err = run("convert", path, target, "--to", "standard", "--layout", "amd-zen4", capsys=capsys)
    assert code == 1
    assert "2696" in err
    assert not target.exists()
    code, _, err = run("convert", path, target, "--to", "standard", "--layout", "amd-zen4", "--force", capsys=capsys)
    assert code == 0
    assert "note: the area has 2696 bytes" in err


def test_convert_tells_a_foreign_layout_from_a_broken_area(tmp_path, capsys):
    foreign = bytearray(ZEN4_COMPACTED)
    struct.pack_into("<Q", foreign, 520, 1 << 63 | 0x2E7)
    path = area_of("foreign", tmp_path, foreign)
    code, _, err = run("convert", path, tmp_path / "o", "--to", "standard", "--layout", "amd-zen4-kvm", capsys=capsys)
    assert code == 1
    assert "PKRU" in err
    broken = bytearray(ZEN4_COMPACTED)
    broken[530] = 1
    path = area_of("broken", tmp_path, broken)
    assert run("convert", path, tmp_path / "o", "--to", "standard", "--layout", "amd-zen4", capsys=capsys)[0] == 3


def test_import_refuses_and_can_be_forced(tmp_path, capsys):
    path, target = area_of("intel.std", tmp_path), tmp_path / "out.mig"
    arguments = ["import", KVM, path, "--vcpu", 0, "--layout", "amd-zen4", "-o", target]
    code, _, err = run(*arguments, capsys=capsys)
    assert (code, target.exists()) == (1, False)
    assert "2696" in err
    assert run(*arguments, "--force", capsys=capsys)[0] == 0
    with open_stream(KVM) as stream, pytest.raises(LiveStateError, match="2696"):
        Rewriter(stream).import_area(0, XsaveArea(INTEL, layout("amd-zen4")))


def test_auto_finds_the_layouts_and_says_which(tmp_path, capsys):
    path, target = area_of("intel.std", tmp_path), tmp_path / "out.mig"
    code, out, _ = run("check", path, "--layout", "auto", "--json", capsys=capsys)
    names = json.loads(out)["layouts"]
    assert code == 0
    assert {"intel-clx", "intel-icl", "intel-spr"} <= set(names)
    assert not [name for name in names if name.startswith(("amd", "hygon"))]
    code, _, err = run("import", KVM, path, "--vcpu", 0, "--layout", "AUTO", "-o", target, capsys=capsys)
    assert code == 0
    assert "intel-clx" in err
    with open_stream(target) as stream:
        assert stream.field("cpu@0/cpu/avx512/env.opmask_regs[1]").value == 0x0807060504030201
    code, _, err = run("convert", path, tmp_path / "o", "--to", "compacted", "--layout", "auto", capsys=capsys)
    assert code == 0
    # By hand: k1 in opmask, which is the first behind AVX.
    assert (tmp_path / "o").read_bytes()[840:848] == bytes(range(1, 9))


def test_auto_on_real_zen4_areas(tmp_path, capsys):
    for name, data in (("s", ZEN4), ("c", ZEN4_COMPACTED)):
        path = area_of(name, tmp_path, data)
        assert run("check", path, "--layout", "auto", capsys=capsys)[0] == 0
        assert run("import", KVM, path, "--vcpu", 0, "--layout", "auto", "--dry-run", capsys=capsys)[0] == 0
        to = "compacted" if name == "s" else "standard"
        options = ["--to", to, "--source-layout", "auto", "--layout", "amd-zen4-kvm"]
        assert run("convert", path, tmp_path / f"{name}2", *options, capsys=capsys)[0] == 0
    assert (tmp_path / "s2").read_bytes()[576:2432] == ZEN4_COMPACTED[576:2432]


def test_auto_does_not_decide_between_layouts_that_read_it_differently(tmp_path, capsys):
    """opmask is declared; at both vendors' places bytes are 0 in one and 1 in the other, all inside components."""
    data = bytearray(4096)
    data[24:28] = (0x1F80).to_bytes(4, "little")
    data[512:520] = (0xE7).to_bytes(8, "little")
    data[1100] = 1  # Intel: k1; AMD: ZMM_Hi256
    path = area_of("both", tmp_path, data)
    code, _, err = run("import", KVM, path, "--vcpu", 0, "--layout", "auto", "--dry-run", capsys=capsys)
    assert code == 63
    assert "amd-zen4" in err
    assert "intel-clx" in err
    code, _, err = run("convert", path, tmp_path / "o", "--to", "compacted", "--layout", "auto", capsys=capsys)
    assert (code, (tmp_path / "o").exists()) == (63, False)
    area = XsaveArea(bytes(data), layout("intel-clx"))
    assert area.component("opmask")[8:16] == bytes(4) + b"\1" + bytes(3)
    assert not any(XsaveArea(bytes(data), layout("amd-zen4")).component("opmask"))


def test_auto_with_an_area_of_nobody(tmp_path, capsys):
    path = area_of("mpxapx.std", tmp_path)
    for arguments in (["check", path], ["convert", path, tmp_path / "o", "--to", "compacted"]):
        code, _, err = run(*arguments, "--layout", "auto", capsys=capsys)
        assert code == 63
        assert "no built-in layout fits" in err


def test_auto_is_for_areas(tmp_path, capsys):
    path = area_of("intel.std", tmp_path)
    assert (
        run("convert", path, "o", "--to", "compacted", "--layout", "auto", "--policy", "qemu-v1", capsys=capsys)[0] == 2
    )
    assert run("convert", path, "o", "--to", "compacted", "--layout", "auto", "--source-layout", "intel-clx",
               capsys=capsys)[0] == 2  # fmt: skip


CASES = (
    "intel.std",
    "hw_mm.std",
    "hw_nozmmhi.cmp",
    "amx.std",
    "lwp.standard",
    "hyperv-page-quirk.compacted",
    "fc_cet.bin",
)


@pytest.mark.parametrize(
    "name", [*CASES, "hyperv-page-quirk.compacted", "mpxapx.std", "zero.bin", "only-pt-pasid-uintr-hwp.compacted"]
)
def test_check_and_convert_never_disagree(name, tmp_path, capsys):
    """In every layout: what fits and is taken by those who take its format, is converted, and nothing else is."""
    path = area_of(name, tmp_path)
    data = path.read_bytes()
    consumer = "WHPX" if data[527] >> 7 else "XRSTOR"
    for where in layout_names():
        if data[527] >> 7 and not layout(where).has_xsavec:
            continue
        taken = run("check", path, "--layout", where, "--consumer", consumer, capsys=capsys)[0]
        made = run("convert", path, tmp_path / "o", "--to", "standard", "--layout", where, capsys=capsys)[0]
        assert (taken == 0) == (made == 0), where


def test_help_names_the_options():
    for command, options in {
        "check": ["--hyperv-quirk", "auto"],
        "convert": ["--hyperv-quirk", "--force", "auto"],
        "import": ["--hyperv-quirk", "--force", "--lossy", "auto"],
    }.items():
        arguments = [sys.executable, "-m", "qmigtool", "xsave", command, "--help"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert all(option in done.stdout for option in options), command


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=640), st.sampled_from(layout_names()), st.sampled_from([0, 500, 3500, 11000]), st.booleans())
def test_any_bytes_are_judged(data, name, more, quirk):
    """Whatever the bytes: reasons and notes, no error; where an area cannot have a format, that is said."""
    area = data + bytes(more)
    misfits(area, layout(name))
    area_notes(area, layout(name), hyperv_quirk=quirk)
    if len(area) < 576:
        with pytest.raises(XsaveError):
            fitting_layouts(area)
    else:
        assert all(misfits(area, one) == () for one in fitting_layouts(area))
