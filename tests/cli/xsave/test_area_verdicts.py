"""``xsave check``, ``convert`` and ``import`` of areas that were judged wrongly once, and variants of them."""

import json
import struct

import pytest

from qmigtool import Rewriter
from qmigtool import open as open_stream
from qmigtool.cli import main
from qmigtool.errors import LiveStateError, XsaveError
from qmigtool.xsave import Format, Layout, XsaveArea, area_notes, check_area, convert, impossible_xcr0, layout
from qmigtool.xsave.components import COMPONENTS
from qmigtool.xsave.vendor import mxcsr_mask, vendor
from tests.support import casefiles, samplefiles

KVM = str(samplefiles.path("kvm-avx512-7.2"))
FLAG = 1 << 63


def run(*arguments, capsys):
    code = main.run(["xsave", *map(str, arguments)])
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


def edited(data, *edits):
    out = bytearray(data)
    for offset, form, value in edits:
        struct.pack_into(form, out, offset, value)
    return bytes(out)


def standard(xstate_bv, size=4096, mxcsr=0x1F80, at=()):
    data = edited(bytes(size), (0, "<H", 0x37F), (24, "<I", mxcsr), (512, "<Q", xstate_bv))
    return edited(data, *((offset, f"{len(raw)}s", raw) for offset, raw in at))


def compacted(xstate_bv, xcomp_bv, size=4096, mxcsr=0x1F80, at=()):
    return edited(standard(xstate_bv, size, mxcsr, at), (520, "<Q", FLAG | xcomp_bv))


def put(path, data):
    path.write_bytes(data)
    return path


# -- MXCSR -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mm_std.bin", "hw_mm.std", "hw_mm.cmp"])
def test_mxcsr_mm_of_a_real_cpu(name, tmp_path, capsys):
    """MXCSR_MASK is 0 in the first and 2ffff in the others; the CPU took all three."""
    path = put(tmp_path / name, casefiles.read("xsave", name))
    assert run("check", path, "--layout", "amd-zen4", capsys=capsys)[0] == 0
    assert run("convert", path, tmp_path / "o", "--to", "standard", "--layout", "amd-zen4", capsys=capsys)[0] == 0
    assert (tmp_path / "o").read_bytes()[24:28] == (0x21F80).to_bytes(4, "little")
    code, _, err = run("convert", path, tmp_path / "x", "--to", "compacted", "--source-layout", "amd-zen4",
                       "--layout", "intel-clx", capsys=capsys)  # fmt: skip
    assert code == 1
    assert "0x20000" in err


def same_rows(name, vendor=""):
    """Zen 1's and Haswell's rows are one layout: nothing tells whose."""
    return Layout.from_leaf_0xd(name, layout("amd-zen1").leaf, vendor=vendor)


@pytest.mark.parametrize(
    ("place", "mask", "takes"),
    [
        (layout("amd-zen1"), 0, True),
        (layout("hygon-dhyana"), 0, True),
        (layout("amd-bulldozer"), 0, True),
        (layout("hyperv-snp"), 0, True),
        (layout("intel-hsw"), 0, False),
        (layout("zhaoxin-kx7000"), 0, False),
        (layout("intel-hsw"), 0x2FFFF, False),  # XRSTOR does not read MXCSR_MASK
        (same_rows("dump"), 0x2FFFF, True),
        (same_rows("dump"), 0xFFFF, False),
        (same_rows("dump"), 0xFFBF, False),
        (same_rows("dump"), 0, True),  # nothing tells: it may be AMD's
        (same_rows("dump"), 0xDEADBEEF, True),  # no mask
        (same_rows("dump", "AuthenticAMD"), 0xFFFF, True),
    ],
)
def test_whose_mxcsr_bits(place, mask, takes):
    data = edited(standard(3, mxcsr=0x21F80), (28, "<I", mask))
    verdicts = {verdict.consumer: verdict.ok for verdict in check_area(data, place)}
    assert verdicts["XRSTOR"] is verdicts["KVM_SET_XSAVE"] is takes
    assert bool(mxcsr_mask(data, place) & 0x20000) is takes


def test_a_dump_tells_its_vendor_by_its_places():
    for name, whose in (("amd-zen3", "AMD"), ("amd-zen4", "AMD"), ("intel-clx", "Intel"), ("intel-lnl", "Intel")):
        assert vendor(Layout.from_leaf_0xd("cpu.txt", layout(name).leaf)) == whose
    assert vendor(layout("qemu")) == vendor(layout("tcg")) == vendor(same_rows("x")) == ""


@pytest.mark.parametrize(
    ("vendor", "takes"),
    [("AuthenticAMD", True), ("HygonGenuine", True), ("GenuineIntel", False), ("  Shanghai  ", True)],
)
def test_leaf_0_of_a_dump_tells_whose_cpu_it_is(vendor, takes, tmp_path, capsys):
    """XCR0 0x7 is alike everywhere. A vendor that is not known may have bit 17 or not: the area's mask is 0 here."""
    b, d, c = struct.unpack("<III", vendor.encode())
    dump = tmp_path / "cpu.txt"
    rows = {(0, 0): (0xD, b, c, d), **{(0xD, i): row for i, row in layout("amd-zen1").leaf.items()}}
    dump.write_text("CPU 0:\n" + "".join(
        f"   0x{leaf:08x} 0x{sub:02x}: eax=0x{r[0]:08x} ebx=0x{r[1]:08x} ecx=0x{r[2]:08x} edx=0x{r[3]:08x}\n"
        for (leaf, sub), r in rows.items()
    ))  # fmt: skip
    path = put(tmp_path / "a", standard(3, mxcsr=0x21F80))
    assert (run("check", path, "--layout", dump, capsys=capsys)[0] == 0) is takes
    for to, code in (("intel-clx", 1), ("amd-zen4", 0 if takes else 1)):
        options = ["--to", "standard", "--source-layout", dump, "--layout", to]
        assert run("convert", path, tmp_path / "o", *options, capsys=capsys)[0] == code


@pytest.mark.parametrize("value", [0x11F80, 0x80001F80])
def test_reserved_bits_are_refused_by_all_three(value, tmp_path, capsys):
    path = put(tmp_path / "a", standard(3, mxcsr=value))
    assert run("check", path, "--layout", "amd-zen4", capsys=capsys)[0] == 1
    code, _, err = run("convert", path, tmp_path / "o", "--to", "compacted", "--layout", "amd-zen4", capsys=capsys)
    assert (code, (tmp_path / "o").exists()) == (3, False)
    assert "MXCSR" in err
    assert run("import", KVM, path, "--vcpu", 0, "--layout", "amd-zen4", "--dry-run", capsys=capsys)[0] == 3


# -- XCR0 and IA32_XSS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "where", "options", "word"),
    [
        ("hw_nozmmhi.std", "intel-hsw", ["--xcr0", "0xe7"], "intel-hsw cannot place opmask"),
        ("hw_nozmmhi.cmp", "intel-hsw", ["--xcr0", "0xe7"], "intel-hsw cannot place opmask"),
        ("fc_cet.bin", "intel-spr", ["--xcr0", "0x1a07"], "supervisor components"),
        ("mpxapx.std", "qemu", [], "exclude each other"),
        ("hw_mm.std", "amd-zen4", ["--xcr0", "0x67"], "not all the same"),
        ("hw_mm.std", "amd-zen4", ["--xcr0", "0xe3"], "without XCR0[2]"),
        ("hw_mm.std", "amd-zen4", ["--xcr0", "0x6"], "x87"),
        ("hw_mm.std", "amd-zen4", ["--xcr0", "0xe7", "--xss", "0x100"], "IA32_XSS cannot be 0x100"),
        ("amx.std", "intel-spr", ["--xcr0", "0x200e7"], "XTILECFG"),
        ("intel.std", "intel-clx", ["--xcr0", "0xef"], "BNDREGS"),
        ("hw_mm.cmp", "intel-knl", ["--xcr0", "0x800e7"], "cannot place APX_F"),
    ],
)
def test_registers_that_the_cpu_cannot_have(name, where, options, word, tmp_path, capsys):
    path = put(tmp_path / name, casefiles.read("xsave", name))
    code, out, _ = run("check", path, "--layout", where, *options, "--json", capsys=capsys)
    assert code == 1
    for verdict in json.loads(out)["verdicts"]:
        assert not verdict["ok"]
        assert any(word in reason for reason in verdict["reasons"])


@pytest.mark.parametrize("name", ["amd-zen4", "intel-spr", "intel-hsw", "intel-skl", "amd-bulldozer", "tcg"])
def test_what_a_cpu_offers_is_possible(name):
    assert impossible_xcr0(layout(name).user_mask, layout(name)) == []
    assert impossible_xcr0(1, layout(name)) == []
    for verdict in check_area(standard(0), layout(name), xss=layout(name).xss_mask):
        assert verdict.ok or verdict.consumer in ("XRSTORS", "MSHV", "WHPX")


def test_import_takes_no_xcr0_that_the_cpu_cannot_have(tmp_path, capsys):
    path = put(tmp_path / "a", standard(7, 832))
    for xcr0, where in (("0xe7", "intel-hsw"), ("0x1a07", "intel-spr"), ("0x5", "intel-hsw")):
        code, _, err = run(
            "import", KVM, path, "--vcpu", 0, "--layout", where, "--xcr0", xcr0, "--dry-run", capsys=capsys
        )
        assert code == 2
        assert xcr0 in err
    assert (
        run("import", KVM, path, "--vcpu", 0, "--layout", "intel-hsw", "--xcr0", "7", "--dry-run", capsys=capsys)[0]
        == 0
    )


# -- notes -----------------------------------------------------------------------------------------------------------

AMX = "KVM_CAP_XSAVE2"
NOTED = [
    ("gem5_hdr0.bin", None, "not declared in XSTATE_BV", "x87 SSE"),
    ("gem5_avx.bin", None, "not declared in XSTATE_BV", "AVX"),
    ("zero.bin", None, "MXCSR is 0x0", "every SSE exception is unmasked"),
    ("gem5_ftw2.bin", None, "tag word of 16 bits", "0x55"),
    ("opmask", standard(7, at=[(1088, b"\5")]), "not declared in XSTATE_BV", "opmask"),
    ("stale", compacted(5, 7, mxcsr=0x9FC0), "not declared in XSTATE_BV", "SSE"),
    ("unmasked", standard(3, mxcsr=0x3F), "MXCSR is 0x3f", "every SSE exception"),
    ("fcw", edited(standard(3), (0, "<H", 0x1F40 & ~0x3F)), "FCW is 0x1f40", "every x87 exception"),
    ("tags", edited(standard(3), (4, "<H", 0xFFFF)), "tag word of 16 bits", "0xff"),
]


@pytest.mark.parametrize(
    ("name", "data", "first", "second"), NOTED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_notes_in_check_convert_and_import(name, data, first, second, tmp_path, capsys):
    path = put(tmp_path / name, casefiles.read("xsave", name) if data is None else data)
    code, out, _ = run("check", path, "--layout", "intel-clx", capsys=capsys)
    text = [out]
    code, _, err = run("convert", path, tmp_path / "o", "--to", "standard", "--layout", "intel-clx", capsys=capsys)
    assert code == 0
    text.append(err)
    code, _, err = run("import", KVM, path, "--vcpu", 0, "--layout", "intel-clx", "--dry-run", capsys=capsys)
    assert code == 0
    text.append(err)
    for one in text:
        (line,) = [line for line in one.splitlines() if "note:" in line and first in line]
        assert second in line


def test_what_kvm_wants_for_amx(tmp_path, capsys):
    path = put(tmp_path / "a", casefiles.read("xsave", "amx.std"))
    xfd = str(put(tmp_path / "x.mig", casefiles.read("xsave", "xfd.mig")))
    for arguments in (
        ["check", path, "--layout", "intel-spr"],
        ["convert", path, tmp_path / "o", "--to", "standard", "--layout", "intel-spr"],
        ["import", xfd, path, "--vcpu", 0, "--layout", "intel-spr", "--dry-run"],
        ["export", xfd, "--vcpu", 0, "--format", "standard", "--layout", "intel-spr", "-o", tmp_path / "e"],
    ):
        code, out, err = run(*arguments, capsys=capsys)
        assert code == 0
        assert AMX in out + err
        assert "ARCH_REQ_XCOMP_GUEST_PERM" in out + err
    small = standard(0xE7, 11008)  # room for tiles, none declared
    assert not [note for note in area_notes(small, layout("intel-spr")) if AMX in note]


@pytest.mark.parametrize("name", ["zen4-avx512.standard.bin", "zen4-avx512.compacted.bin"])
def test_nothing_is_noted_of_a_real_area(name):
    """Their buffers were filled with 0xcc before XSAVE wrote into them."""
    (note,) = area_notes((samplefiles.SAMPLES / "areas" / name).read_bytes(), layout("amd-zen4-kvm"))
    assert "0xcc: uninitialised memory" in note


# -- state that no field takes ---------------------------------------------------------------------------------------

SUPERVISOR = casefiles.read("xsave", "only-pt-pasid-uintr-hwp.compacted")
GNR = layout("intel-gnr")


def test_import_refuses_supervisor_state_without_fields(tmp_path, capsys):
    path = put(tmp_path / "a", SUPERVISOR)
    arguments = ["import", KVM, path, "--vcpu", 0, "--layout", "intel-gnr", "--accelerator", "mshv"]
    code, _, err = run(*arguments, "--dry-run", capsys=capsys)
    assert code == 1
    assert all(name in err for name in ("PT", "PASID", "UINTR", "HWP", "cpu/intel_pt"))
    code, _, err = run(*arguments, "--lossy", "-o", tmp_path / "o", capsys=capsys)
    assert code == 0
    assert len([line for line in err.splitlines() if line.startswith("lost:")]) == 4
    with open_stream(KVM) as stream, pytest.raises(LiveStateError) as caught:
        Rewriter(stream).import_area(0, XsaveArea(SUPERVISOR, GNR))
    assert caught.value.components == ("PT", "PASID", "UINTR", "HWP")
    with open_stream(KVM) as stream, pytest.raises(LiveStateError) as caught:
        stream.vcpus[0].vmstate_bytes(XsaveArea(SUPERVISOR, GNR))
    assert caught.value.components == ("PT", "PASID", "UINTR", "HWP")


@pytest.mark.parametrize("bit", [8, 10, 13, 14, 16])
@pytest.mark.parametrize("declared", [True, False])
def test_each_component_without_fields(bit, declared):
    """Declared and live is refused; initial (HDC 1, HWP 8000FF01) or not declared, it is nothing to lose."""
    size = COMPONENTS[bit].size
    for contents, live in ((b"\x5a" * size, True), (COMPONENTS[bit].initial, False)):
        data = compacted(3 | declared << bit, 3 | 1 << bit, 576 + size, at=[(576, contents)])
        place = layout("intel-gnr") if bit != 13 else layout("intel-tgl")
        with open_stream(KVM) as stream:
            rewriter = Rewriter(stream)
            if live and declared:
                with pytest.raises(LiveStateError, match=COMPONENTS[bit].name):
                    rewriter.import_area(0, XsaveArea(data, place))
            else:
                rewriter.import_area(0, XsaveArea(data, place))
                assert rewriter.losses == []


def test_lwp(tmp_path, capsys):
    path = put(tmp_path / "a", casefiles.read("xsave", "lwp.standard"))
    arguments = ["import", KVM, path, "--vcpu", 0, "--layout", "amd-bulldozer", "--xcr0", "0x4000000000000007"]
    code, _, err = run(*arguments, "--dry-run", capsys=capsys)
    assert code == 1
    assert "LWP" in err
    code, _, err = run(*arguments, "--lossy", "-o", tmp_path / "o", capsys=capsys)
    assert code == 0
    assert "lost:" in err
    with open_stream(tmp_path / "o") as stream:
        assert not stream.vcpus[0].xstate_bv >> 62  # what is not there is not declared
    assert {v.consumer: v.ok for v in check_area(path.read_bytes(), layout("amd-bulldozer"))}["KVM_SET_XSAVE"] is False


def lbr(ler, records):
    contents = bytearray(808)
    contents[8] = 32
    contents[16:24] = ler.to_bytes(8, "little")
    contents[40:48] = records.to_bytes(8, "little")
    return compacted(3 | 1 << 15, 3 | 1 << 15, 576 + 808, at=[(576, bytes(contents))])


def test_the_last_event_records_have_no_field():
    spr = layout("intel-spr")
    with open_stream(KVM) as stream:
        rewriter = Rewriter(stream)
        rewriter.import_area(0, XsaveArea(lbr(0, 0x1234), spr))
        assert any("lbr_records" in change.where for change in rewriter.changes)
    with open_stream(KVM) as stream, pytest.raises(LiveStateError, match="LER_FROM_IP") as caught:
        Rewriter(stream).import_area(0, XsaveArea(lbr(0x77, 0x1234), spr))
    assert caught.value.components == ("LBR",)
    with open_stream(KVM) as stream:
        rewriter = Rewriter(stream, lossy=True)
        rewriter.import_area(0, XsaveArea(lbr(0x77, 0x1234), spr))
        assert any("lbr_records" in change.where for change in rewriter.changes)
        (loss,) = rewriter.losses
        assert "LER" in loss


def test_reserved_bytes_of_pkru_are_not_dropped_silently():
    data = compacted(0x203, 0x207, 840, at=[(832, bytes.fromhex("5400000001000000"))])
    with open_stream(KVM) as stream, pytest.raises(LiveStateError, match="PKRU's reserved bytes from 4"):
        Rewriter(stream).import_area(0, XsaveArea(data, layout("intel-clx")))


@pytest.mark.parametrize(
    "edits",
    [[(528, "B", 1)], [(512, "<Q", FLAG | 0xE7)], [(520, "<Q", 0xE7)], [(575, "B", 9)]],
)
def test_import_refuses_a_header_that_convert_refuses(edits, tmp_path, capsys):
    data = edited((samplefiles.SAMPLES / "areas" / "zen4-avx512.standard.bin").read_bytes(), *edits)
    path = put(tmp_path / "a", data)
    codes = {
        run("check", path, "--layout", "amd-zen4", capsys=capsys)[0],
        run("convert", path, tmp_path / "o", "--to", "standard", "--layout", "amd-zen4", capsys=capsys)[0],
        run("import", KVM, path, "--vcpu", 0, "--layout", "amd-zen4", "--dry-run", capsys=capsys)[0],
    }
    assert 0 not in codes
    with open_stream(KVM) as stream, pytest.raises(XsaveError):
        Rewriter(stream).import_area(0, XsaveArea(data, layout("amd-zen4")))


# -- Hyper-V ---------------------------------------------------------------------------------------------------------

PAGE = casefiles.read("xsave", "hyperv-page-quirk.compacted")
QUIRK = "CET_U CET_S: not declared in XSTATE_BV"
CET_PATHS = ("cpu@0/cpu/cet/env.u_cet", "cpu@0/cpu/cet/cpu/cet_shstk/env.pl3_ssp", "cpu@0/cpu/msr_pl0_ssp/env.pl0_ssp")


@pytest.fixture
def cet_guest(tmp_path):
    return str(put(tmp_path / "cet-guest.mig", casefiles.read("xsave", "cet-guest.mig")))


@pytest.mark.parametrize(
    ("accelerator", "option", "live"),
    [
        ("mshv", [], True),
        ("whpx", [], True),
        ("kvm", [], False),
        ("kvm", ["--hyperv-quirk"], True),
        ("mshv", ["--no-hyperv-quirk"], False),
    ],
)
def test_import_of_a_hyperv_page(accelerator, option, live, cet_guest, tmp_path, capsys):
    path, out = put(tmp_path / "page", PAGE), tmp_path / "out.mig"
    code, _, err = run("import", cet_guest, path, "--vcpu", 0, "--layout", "amd-zen4", "--accelerator", accelerator,
                       *option, "-o", out, capsys=capsys)  # fmt: skip
    assert code == 0
    assert QUIRK in err
    with open_stream(out) as stream:
        values = [stream.device("cpu@0").number(path.removeprefix("cpu@0/")) or 0 for path in CET_PATHS]
    assert values == ([3, 0x7FFF0000, 0xFEED0000] if live else [0, 0, 0])


def test_convert_and_check_of_a_hyperv_page(tmp_path, capsys):
    path = put(tmp_path / "page", casefiles.read("xsave", "mshv_cet.bin"))
    arguments = ["convert", path, tmp_path / "o", "--to", "standard", "--layout", "intel-spr", "--json"]
    code, out, _ = run(*arguments, capsys=capsys)
    assert (code, json.loads(out)["msrs"]) == (0, {})
    assert any("--hyperv-quirk" in note for note in json.loads(out)["notes"])
    code, out, _ = run(*arguments, "--hyperv-quirk", capsys=capsys)
    msrs = json.loads(out)["msrs"]
    raw = path.read_bytes()
    assert msrs == {"CET_U": raw[832:848].hex(), "CET_S": raw[848:872].hex()}
    code, out, _ = run("check", path, "--layout", "intel-spr", capsys=capsys)
    assert "CET_U CET_S: not declared" in out


def test_pasid_is_in_the_quirk(tmp_path):
    data = compacted(7, 0x407, 840, at=[(832, b"\x11\0\0\x80\0\0\0\0")])
    area = XsaveArea(data, layout("intel-spr"))
    assert area.live == 0
    assert area.with_hyperv_quirk().live == 1 << 10
    with open_stream(KVM, accelerator="mshv") as stream, pytest.raises(LiveStateError, match="PASID"):
        Rewriter(stream).import_area(0, area)
    with open_stream(KVM, accelerator="kvm") as stream:
        rewriter = Rewriter(stream)
        rewriter.import_area(0, area)
        assert any("PASID" in note for note in rewriter.notes)


def test_the_quirk_touches_nothing_else():
    standard_area = XsaveArea(standard(7, 832), layout("amd-zen1"))
    assert standard_area.with_hyperv_quirk().data == standard_area.data
    declared = XsaveArea(casefiles.read("xsave", "mshv-page-cet.compacted"), layout("amd-zen4"))
    assert declared.with_hyperv_quirk().data == declared.data
    assert not [note for note in area_notes(declared.data, declared.layout) if "Hyper-V" in note]
    assert convert(PAGE, layout("amd-zen4"), Format.STANDARD, hyperv_quirk=True).supervisor.keys() == {11, 12}
