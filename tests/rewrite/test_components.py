"""Extended state put back, dropped, repaired: the fields and subsections that this means, and no others."""

import struct

import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import LiveStateError, QmigError, UsageError, XsaveError
from qmigtool.rewrite import Rewriter
from qmigtool.xsave import XsaveArea, layout, layout_names
from tests.rewrite.editing import assert_true, bodies, differing, rewritten, sample, stream_of
from tests.support.packedsamples import NAMES as PACKED
from tests.support.packedsamples import OTHER_TARGETS
from tests.support.samplefiles import X86
from tests.support.streamwriter import Vmsd, num, nums, structs, x86_cpu

# -- there and back ---------------------------------------------------------------------------------------------------

STREAMS = [*X86, "novmdesc-7.2", *(n for n in PACKED if n not in OTHER_TARGETS and n not in ("dirtybitmap-10.0",))]


@pytest.mark.parametrize("name", STREAMS)
def test_what_is_exported_and_comes_back_changes_nothing(name):
    """Every vCPU, in every layout that can hold it, in both formats."""
    tried = 0
    with qmigtool.open(sample(name)) as stream:
        rewriter = Rewriter(stream)
        for vcpu in stream.vcpus:
            for where in map(layout, layout_names()):
                try:
                    standard = vcpu.xsave_area(where)
                    areas = [standard]
                    if where.has_xsavec:
                        areas.append(standard.compact(where))
                        areas.append(standard.compact(where, mask=standard.xstate_bv | 1))
                except XsaveError:
                    continue
                for area in areas:
                    # Only the bytes come back, as from a file; supervisor state is not in them.
                    rewriter.import_area(vcpu.index, XsaveArea(area.data + bytes(100), where))
                    tried += 1
        assert (rewriter.changes, rewriter.splices()) == ([], [])
        if "avx512" not in name:
            assert tried >= 20 * len(stream.vcpus)
        assert tried >= 15


# -- one register -----------------------------------------------------------------------------------------------------

KVM = "kvm-avx512-7.2"  # XCR0 = XSTATE_BV = 0xe7
Q = bytes.fromhex("1122334455667788")  # in an area: little-endian
V = 0x8877665544332211
REGISTERS = [
    (0, b"\x7f\x0c", {"env.fpuc": 0x0C7F}),
    (2, b"\x03\x38", {"env.fpus_vmstate": 0x3803}),
    (4, b"\x5a", {"env.fptag_vmstate": 0x5A}),
    (24, b"\xa5\x1f\0\0", {"env.mxcsr": 0x1FA5}),
    (32 + 2 * 16, Q + b"\xcd\xab", {"env.fpregs[2]/tmp/tmp_mant": V, "env.fpregs[2]/tmp/tmp_exp": 0xABCD}),
    (32 + 7 * 16, Q, {"env.fpregs[7]/tmp/tmp_mant": V}),
    (160, Q, {"env.xmm_regs[0][0]/_q_ZMMReg[0]": V}),
    (160 + 5 * 16 + 8, Q, {"env.xmm_regs[0][5]/_q_ZMMReg[1]": V}),
    (576 + 7 * 16, Q, {"env.xmm_regs[1][7]/_q_ZMMReg[2]": V}),
    (576 + 15 * 16 + 8, Q, {"env.xmm_regs[1][15]/_q_ZMMReg[3]": V}),
]
# (layout, where opmask, ZMM_Hi256 and Hi16_ZMM start), from CPUID dumps
AVX512 = [("amd-zen4", 832, 896, 1408), ("intel-spr", 1088, 1152, 1664), ("intel-knl", 1088, 1152, 1664)]
ZMM = [
    (0, 3 * 8, {"cpu/avx512/env.opmask_regs[3]": V}),
    (1, 2 * 32 + 8, {"cpu/avx512/env.xmm_regs[0][2]/_q_ZMMReg[5]": V}),
    (1, 15 * 32 + 24, {"cpu/avx512/env.xmm_regs[0][15]/_q_ZMMReg[7]": V}),
    (2, 1 * 64 + 56, {"cpu/avx512/env.xmm_regs[1][1]/_q_ZMMReg[7]": V}),
    (2, 15 * 64, {"cpu/avx512/env.xmm_regs[1][15]/_q_ZMMReg[0]": V}),
]
CASES = [(name, offset, raw, fields) for offset, raw, fields in REGISTERS for name, *_ in AVX512]
CASES += [(name, starts[which] + at, Q, fields) for name, *starts in AVX512 for which, at, fields in ZMM]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "offset", "raw", "fields"), CASES)
@pytest.mark.parametrize("form", ["standard", "compacted"])
def test_a_register_arrives_in_its_field_and_nowhere_else(name, offset, raw, fields, form):
    source, where = sample(KVM).read_bytes(), layout(name)
    if form == "compacted" and not where.has_xsavec:
        where = layout("intel-clx")  # the same places
    with qmigtool.open(source) as stream:
        data = bytearray(stream.vcpus[0].xsave_area(where).data)
        assert data[offset : offset + len(raw)] != raw
        data[offset : offset + len(raw)] = raw
        area = XsaveArea(bytes(data), where)
        area = area if form == "standard" else area.compact()
        may = bytearray(len(source))
        for path in fields:
            field = stream.field(f"cpu@0/{path}")
            may[field.offset : field.offset + field.length] = b"\1" * field.length
    done = rewritten(source, lambda r: r.import_area(0, area))
    changed = differing(source, done.data)
    assert changed
    assert all(may[i] for i in changed)
    with qmigtool.open(done.data) as stream:
        assert {path: stream.field(f"cpu@0/{path}").value for path in fields} == fields
        vcpu = stream.vcpus[0]
        assert vcpu.xsave_area(where).architectural_state() == area.architectural_state()
        assert vcpu.xstate_bv == 0xE7
    assert {c.where.split("/", 1)[1].split("[")[0] for c in done.changes} == {p.split("[")[0] for p in fields}
    assert all(c.edit == "xsave-import" for c in done.changes)


@pytest.mark.parametrize("top", range(8))
@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_x87_registers_are_stored_where_the_accelerator_has_them(top, accelerator):
    """ST(i) is fpregs[i] from KVM, and fpregs[(TOP + i) & 7] from TCG."""
    before = [(0x8000000000000000 + i, 0x3FF0 + i) for i in range(8)]
    options = {"fpus": top << 11, "fptag": 0xFF, "xcr0": 7, "xstate_bv": 0 if accelerator == "tcg" else 7}
    source = stream_of(("cpu", 0, x86_cpu(fpregs=before, **options)))
    with qmigtool.open(source, accelerator=accelerator) as stream:
        data = bytearray(stream.vcpus[0].xsave_area(layout("amd-zen4")).data)
    data[32 + 16 * 3 : 32 + 16 * 3 + 10] = Q + b"\x34\x12"
    done = rewritten(
        source, lambda r: r.import_area(0, XsaveArea(bytes(data), layout("amd-zen4"))), accelerator=accelerator
    )
    after = list(before)
    after[(top + 3) & 7 if accelerator == "tcg" else 3] = (V, 0x1234)
    assert done.data == stream_of(("cpu", 0, x86_cpu(fpregs=after, **options)))


def fpop(opcode, ip, dp):
    return Vmsd(
        "cpu/fpop_ip_dp",
        1,
        [num("env.fpop", "uint16", opcode), num("env.fpip", "uint64", ip), num("env.fpdp", "uint64", dp)],
    )


def avx512(**k):
    def quads(name, count, first):
        rows = [[num(f"_q_ZMMReg[{first + i}]", "uint64", 0) for i in range(count)] for _ in range(16)]
        return [Vmsd(name, 1, row) for row in rows]

    return Vmsd(
        "cpu/avx512",
        1,
        [
            nums("env.opmask_regs", "uint64", [k.get(f"k{i}", 0) for i in range(8)]),
            structs("env.xmm_regs[0]", quads("zmmh_reg", 4, 4)),
            structs("env.xmm_regs[1]", quads("hi16_zmm_reg", 8, 0)),
        ],
    )


PKRU = Vmsd("cpu/pkru", 1, [num("env.pkru", "uint32", 0x55)])
XSS = Vmsd("cpu/xss", 1, [num("env.xss", "uint64", 0x1800)])


def one_cpu(*subsections, **options):
    return stream_of(("cpu", 0, x86_cpu(subsections=subsections, **options)))


def area_of(stream, where, patches=(), xstate_bv=None, accelerator="kvm"):
    with qmigtool.open(stream, accelerator=accelerator) as opened:
        vcpu = opened.vcpus[0]
        place = layout(where)
        data = bytearray(place.standard_size())
        data[: len(vcpu.xsave_area(place).data)] = vcpu.xsave_area(place).data
    for offset, raw in dict(patches).items():
        data[offset : offset + len(raw)] = raw
    if xstate_bv is not None:
        struct.pack_into("<Q", data, 512, xstate_bv)
    return XsaveArea(bytes(data), place)


def kvm(source, *edits):
    return rewritten(source, *edits, accelerator="kvm")


def test_a_subsection_that_is_needed_comes_in_its_place_and_goes_when_it_is_not():
    tsc = Vmsd("cpu/tsc_khz", 1, [num("env.tsc_khz", "int64", 5)])
    misc = Vmsd("cpu/msr_ia32_misc_enable", 1, [num("env.msr_ia32_misc_enable", "uint64", 1)])
    plain = one_cpu(misc, tsc, PKRU, xcr0=0x2E7, xstate_bv=0x207)
    area = area_of(plain, "intel-spr", {1088 + 8: Q}, xstate_bv=0x227)
    there = kvm(plain, lambda r: r.import_area(0, area))
    assert there.data == one_cpu(misc, avx512(k1=V), tsc, PKRU, xcr0=0x2E7, xstate_bv=0x227)
    assert_true(there.data)
    assert [c.edit for c in there.changes] == ["xsave-import"] * 3
    assert there.changes[0].where == "cpu@0/cpu/avx512"
    # Declared no more: the bytes are stale, the component is in its initial configuration.
    stale = XsaveArea(area.data[:512] + struct.pack("<Q", 0x207) + area.data[520:], layout("intel-spr"))
    back = kvm(there.data, lambda r: r.import_area(0, stale))
    assert back.data == plain


def test_opcode_and_pointers_of_x87():
    plain = one_cpu(fptag=1)
    done = kvm(plain, lambda r: r.import_area(0, area_of(plain, "amd-zen4", {6: b"\x34\x02", 16: Q})))
    assert done.data == one_cpu(fpop(0x234, 0, V), fptag=1)
    back = kvm(done.data, lambda r: r.import_area(0, area_of(done.data, "amd-zen4", {6: bytes(2), 16: bytes(8)})))
    assert back.data == plain


def test_pkru_of_intel_and_amd():
    plain = one_cpu(xcr0=0x207)
    for name, offset in (("amd-zen4", 2432), ("intel-spr", 2688), ("amd-zen3", 2432), ("intel-ptl", 2688)):
        area = area_of(plain, name, {offset: b"\x55\0\0\0"}, xstate_bv=0x207)
        assert kvm(plain, lambda r, area=area: r.import_area(0, area)).data == one_cpu(
            PKRU, xcr0=0x207, xstate_bv=0x207
        )


def test_the_real_thing():
    """One state that a Zen 4 wrote by XSAVE and by XSAVEC gives the same stream."""
    folder = sample(KVM).parent / "areas"
    outs = []
    for form in ("standard", "compacted"):
        area = XsaveArea((folder / f"zen4-avx512.{form}.bin").read_bytes(), layout("amd-zen4"))
        assert area.format == form
        outs.append(rewritten(sample(KVM), lambda r, area=area: r.import_area(0, area)).data)
    assert outs[0] == outs[1] != sample(KVM).read_bytes()
    with qmigtool.open(outs[0]) as stream:
        assert stream.vcpus[0].xsave.architectural_state() == area.architectural_state()
    assert_true(outs[0])


def test_a_component_that_the_area_has_no_place_for_keeps_its_state():
    source = one_cpu(PKRU, xcr0=0x207, xstate_bv=0x207)
    with qmigtool.open(source, accelerator="kvm") as stream:
        small = stream.vcpus[0].xsave.expand(layout("amd-zen2"), drop=0x200)
    assert kvm(source, lambda r: r.import_area(0, small)).data == source


def test_xstate_bv_of_tcg_stays_0():
    source = one_cpu(xstate_bv=0)
    area = area_of(source, "amd-zen4", {160: Q}, xstate_bv=7, accelerator="tcg")
    done = rewritten(source, lambda r: r.import_area(0, area), accelerator="tcg")
    assert done.data == one_cpu(xstate_bv=0, xmm=[(V, 0)])


def test_mxcsr_alone():
    source = one_cpu(xstate_bv=1)
    done = kvm(source, lambda r: r.import_area(0, area_of(source, "amd-zen4", {24: b"\xa0\x1f"}, xstate_bv=3)))
    assert done.data == one_cpu(xstate_bv=3, mxcsr=0x1FA0)


LIVE_512 = {"xcr0": 0xE7, "xstate_bv": 0xE7}


def test_xcr0_has_to_allow_what_the_vcpu_had_before():
    """State that does not change is live outside of the new XCR0 all the same."""
    source = one_cpu(avx512(k1=V), **LIVE_512)
    area = area_of(source, "amd-zen4", {}, xstate_bv=0xE7)

    def narrow(rewriter):
        rewriter.set_xcr0(0, 7)
        rewriter.import_area(0, area)

    with qmigtool.open(source, accelerator="kvm") as stream, pytest.raises(LiveStateError) as caught:
        narrow(Rewriter(stream))
    assert caught.value.components == ("opmask",)
    done = rewritten(source, narrow, accelerator="kvm", lossy=True)
    with qmigtool.open(done.data, accelerator="kvm") as stream:
        assert (stream.vcpus[0].xcr0, stream.vcpus[0].xstate_bv & 0x20, stream.vcpus[0].live & 0x20) == (7, 0, 0)
    assert done.losses == ["cpu@0: XCR0 0x7 does not enable live components of the area: opmask"]
    # A guest that disabled what it used: that it was so before needs no leave.
    disabled = one_cpu(avx512(k1=V), xcr0=7, xstate_bv=0xE7)
    assert kvm(disabled, lambda r: r.import_area(0, area)).data == disabled


def test_what_xcr0_no_longer_enables_is_said():
    source = one_cpu(avx512(k1=V), **LIVE_512)
    done = kvm(source, lambda r: r.set_xcr0(0, 7))
    assert done.notes == [
        "vCPU 0 keeps components that XCR0 0x7 no longer enables: live opmask; declared in XSTATE_BV opmask ZMM_Hi256 "
        "Hi16_ZMM (--drop-component removes them)"
    ]

    def both(rewriter):
        rewriter.set_xcr0(0, 7)
        rewriter.drop_component("avx512")

    assert kvm(source, both).notes == []
    assert kvm(one_cpu(**LIVE_512 | {"xstate_bv": 7}), lambda r: r.set_xcr0(0, 7)).notes == []
    assert kvm(one_cpu(xcr0=7, xstate_bv=0xE7), lambda r: r.set_xcr0(0, 3)).notes == [
        "vCPU 0 keeps components that XCR0 0x3 no longer enables: declared in XSTATE_BV AVX "
        "(--drop-component removes them)"
    ]


def test_xcr0_has_to_allow_it():
    source = one_cpu(xcr0=7)
    area = area_of(source, "amd-zen4", {832: Q, 2432: b"\1"}, xstate_bv=0x227)
    with qmigtool.open(source, accelerator="kvm") as stream:
        rewriter = Rewriter(stream)
        with pytest.raises(LiveStateError) as caught:
            rewriter.import_area(0, area)
        assert caught.value.components == ("opmask", "PKRU")
        assert rewriter.changes == []
        with pytest.raises(UsageError):
            rewriter.set_xcr0(0, 0x27)  # opmask alone
        rewriter.set_xcr0(0, "0x2e7")
        rewriter.import_area(0, area)
    # What is idle needs no permission.
    idle = area_of(source, "amd-zen4", {}, xstate_bv=0x2E7)
    assert kvm(source, lambda r: r.import_area(0, idle)).data == source


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.set_xcr0(1, 7),
        lambda r: r.set_xcr0(0, 0),
        lambda r: r.set_xcr0(0, 6),
        lambda r: r.set_xcr0(0, 0x807),
        lambda r: r.set_xcr0(0, 1 << 63 | 7),
        lambda r: r.set_xcr0(0, -1),
        lambda r: r.set_xcr0(0, 1 << 64 | 7),
        lambda r: r.set_xcr0(0, "x"),
        lambda r: r.import_area(1, area_of(one_cpu(), "amd-zen4")),
        lambda r: r.drop_component(1),
        lambda r: r.drop_component("sse"),
        lambda r: r.drop_component("x87,avx"),
        lambda r: r.drop_component("none"),
        lambda r: r.drop_component(-1),
        lambda r: r.repair("all"),
        lambda r: r.require_layout("none"),
    ],
)
def test_what_cannot_be(edit):
    with qmigtool.open(one_cpu(), accelerator="kvm") as stream:
        rewriter = Rewriter(stream)
        with pytest.raises(QmigError):
            edit(rewriter)
        assert rewriter.splices() == []


def test_a_component_that_nobody_knows():
    source = one_cpu(xcr0=7)
    data = bytearray(area_of(source, "amd-zen4").data)
    struct.pack_into("<Q", data, 512, 7 | 1 << 40)
    with qmigtool.open(source, accelerator="kvm") as stream, pytest.raises(XsaveError):
        Rewriter(stream).import_area(0, XsaveArea(bytes(data), layout("amd-zen4")))


# -- by the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "index"), [(KVM, 0), ("pc-7.2", 2)])
@pytest.mark.parametrize("form", ["standard", "compacted"])
def test_the_program_does_it_too(name, index, form, tmp_path, capsys):
    with qmigtool.open(sample(name)) as stream:
        area = stream.vcpus[index].xsave_area(layout("intel-clx"))
        area = area if form == "standard" else area.compact()
    (tmp_path / "area").write_bytes(area.data.ljust(4096, b"\0"))
    out = tmp_path / "out"
    arguments = ["xsave", "import", str(sample(name)), str(tmp_path / "area"), "--vcpu", str(index)]
    assert main.run([*arguments, "--layout", "intel-clx", "-o", str(out)]) == 0
    assert out.read_bytes() == sample(name).read_bytes()
    data = bytearray(area.data)
    data[160:168] = Q
    struct.pack_into("<Q", data, 512, area.xstate_bv | 2)
    (tmp_path / "area").write_bytes(data)
    assert main.run([*arguments, "--layout", "intel-clx", "-o", str(out), "--json"]) == 0
    with qmigtool.open(out) as stream:
        assert stream.field(f"cpu@{index}/env.xmm_regs[0][0]/_q_ZMMReg[0]").value == V
    for path in (str(sample(name)), str(tmp_path / "area")):
        assert main.run([*arguments, "--layout", "intel-clx", "-o", path]) == 2
    assert (tmp_path / "area").read_bytes() == data
    assert main.run(["xsave", "import", *arguments[2:5], "9", "--layout", "intel-clx", "-o", str(out)]) == 2
    assert "Traceback" not in "".join(capsys.readouterr())


# -- components that go -----------------------------------------------------------------------------------------------


def test_a_component_goes_with_its_subsection_and_its_bits():
    live = {"ymmh": [(1, 2)], "xmm": [(3, 4)]}
    source = one_cpu(avx512(k1=V), XSS, PKRU, xcr0=0x2E7, xstate_bv=0x2E7, **live)
    done = kvm(source, lambda r: r.drop_component("pkru"))
    assert done.data == one_cpu(avx512(k1=V), XSS, xcr0=0xE7, xstate_bv=0xE7, **live)
    (loss,) = done.losses
    assert "vCPU 0" in loss
    assert "PKRU" in loss
    assert "5500000000000000" in loss
    done = kvm(source, lambda r: r.drop_component("avx512"))
    assert done.data == one_cpu(XSS, PKRU, xcr0=0x207, xstate_bv=0x207, **live)
    assert [loss.split(" was")[0] for loss in done.losses] == ["vCPU 0: opmask"]
    done = kvm(source, lambda r: r.drop_component("avx,avx512,0x1a00"))
    assert done.data == one_cpu(Vmsd("cpu/xss", 1, [num("env.xss", "uint64", 0)]), xcr0=3, xstate_bv=3, xmm=[(3, 4)])
    assert [loss.split(" was")[0] for loss in done.losses] == [f"vCPU 0: {n}" for n in ("AVX", "opmask", "PKRU")]
    assert_true(done.data)


def test_what_is_idle_goes_without_a_loss():
    source = one_cpu(xcr0=0xE7, xstate_bv=0xE7)
    done = kvm(source, lambda r: r.drop_component("avx512"))
    assert (done.data, done.losses) == (one_cpu(xcr0=7, xstate_bv=7), [])
    assert kvm(one_cpu(), lambda r: r.drop_component("amx,pkru,apx")).splices == []


def test_every_vcpu_loses_it():
    cpus = [("cpu", i, x86_cpu(subsections=[PKRU] if i != 1 else [], xcr0=0x207, xstate_bv=0x207)) for i in range(3)]
    done = kvm(stream_of(*cpus), lambda r: r.drop_component(0x200))
    assert done.data == stream_of(*[("cpu", i, x86_cpu()) for i in range(3)])
    assert [loss.split(":")[0] for loss in done.losses] == ["vCPU 0", "vCPU 2"]


@pytest.mark.parametrize(
    ("xcr0", "mask", "legal"),
    [
        (0xE7, "opmask", False),
        (0xE7, "avx", False),
        (0xE7, "0xc0", False),
        (0xE7, "avx,avx512", True),
        (0x1F, "bndregs", False),
        (0x1F, "mpx", True),
        (0x600E7, "xtiledata", False),
        (0x600E7, "amx", True),
        (0x600E7, "0x600e4", True),
        (0x80007, "apx", True),
    ],
)
def test_xcr0_stays_one_that_a_cpu_takes(xcr0, mask, legal):
    source = one_cpu(xcr0=xcr0, xstate_bv=1)
    if legal:
        with qmigtool.open(kvm(source, lambda r: r.drop_component(mask)).data) as stream:
            assert stream.vcpus[0].xcr0 == xcr0 & ~qmigtool.xsave.parse_mask(mask)
        return
    with qmigtool.open(source, accelerator="kvm") as stream:
        rewriter = Rewriter(stream)
        with pytest.raises(UsageError):
            rewriter.drop_component(mask)
        assert rewriter.splices() == []


@pytest.mark.parametrize("name", [KVM, "twin-kvm-10.0", "pc-7.2", "pc-11.1", "compress-7.2"])
def test_real_vcpus_lose_avx(name):
    done = rewritten(sample(name), lambda r: r.drop_component("avx,avx512,mpx,pkru"))
    assert_true(done.data)
    old, new = bodies(sample(name)), bodies(done.data)
    assert {k: v for k, v in old.items() if k[0] != "cpu"} == {k: v for k, v in new.items() if k[0] != "cpu"}
    with qmigtool.open(done.data) as stream, qmigtool.open(sample(name)) as before:
        for vcpu, was in zip(stream.vcpus, before.vcpus, strict=True):
            assert vcpu.xcr0 == was.xcr0 & 3
            assert vcpu.live == was.live & 3
            assert vcpu.xstate_bv == was.xstate_bv & 3
            assert vcpu.contents(0) == was.contents(0)
            assert vcpu.contents(1) == was.contents(1)
            assert vcpu.mxcsr == was.mxcsr
        lost = sum((was.live & ~3).bit_count() for was in before.vcpus)
    assert len(done.losses) == lost > 0


# -- XSTATE_BV --------------------------------------------------------------------------------------------------------


def test_repair():
    live = {"xmm": [(1, 1)], "ymmh": [(1, 1)], "fptag": 1}
    done = kvm(one_cpu(xstate_bv=0, **live), lambda r: r.repair("xstate-bv"))
    assert done.data == one_cpu(xstate_bv=7, **live)
    assert [(c.where, c.old, c.new) for c in done.changes] == [("cpu@0/env.xstate_bv", 0, 7)]
    # Bits that are set stay; supervisor components have none.
    cet = [XSS, Vmsd("cpu/msr_pl0_ssp", 1, [num("env.pl0_ssp", "uint64", 8)])]
    done = kvm(one_cpu(*cet, PKRU, xcr0=0x2E7, xstate_bv=0x80), lambda r: r.repair("xstate-bv"))
    assert done.data == one_cpu(*cet, PKRU, xcr0=0x2E7, xstate_bv=0x280)
    assert kvm(done.data, lambda r: r.repair("xstate-bv")).splices == []


# -- a layout that is required ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "subsections", "words"),
    [
        ({"xcr0": 0x207, "xstate_bv": 0}, (), "enabled PKRU"),
        ({"xcr0": 7, "xstate_bv": 0x200}, (), "declared PKRU"),
        ({"xcr0": 7, "xstate_bv": 0}, (PKRU,), "live PKRU"),
    ],
)
def test_a_required_layout(parts, subsections, words, tmp_path):
    source = one_cpu(*subsections, **parts)
    with qmigtool.open(source, accelerator="kvm") as stream:
        rewriter = Rewriter(stream)
        rewriter.require_layout("amd-zen2")
        with pytest.raises(LiveStateError) as caught:
            rewriter.splices()
        assert words in str(caught.value)
        assert caught.value.components == ("PKRU",)
        with pytest.raises(LiveStateError):
            rewriter.save(tmp_path / "out")
        assert not list(tmp_path.iterdir())
        # It is the result that counts: later edits may still make it fit.
        rewriter.drop_component("pkru")
        assert rewriter.splices()
    assert kvm(source, lambda r: r.require_layout("amd-zen3")).data == source
    assert kvm(source, lambda r: r.require_layout(layout("intel-clx"))).data == source


def test_drop_of_nothing_is_nothing():
    assert kvm(one_cpu(), lambda r: r.drop_component(0)).splices == []
