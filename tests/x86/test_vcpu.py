"""The bridge between vmstate and XSAVE: against the map of the facts, real twins, and hand-made vCPUs."""

import json
import struct

import pytest

import qmigtool
from qmigtool.devices.schema.cpusection import XSAVE_FIELDS
from qmigtool.errors import LiveStateError, StreamError
from tests.support import samplefiles
from tests.support.paths import DATA
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, nums, raw, structs, x86_cpu, zero

MAP = json.loads((DATA / "xsave_vmstate_map.json").read_text())


def stream_of(*cpus, **options):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    for i, cpu in enumerate(cpus):
        w.device(2 + i, "cpu", i, cpu)
    return qmigtool.open(w.finish(), **options)


def vcpu_of(tcg=False, **parts):
    return stream_of(x86_cpu(**parts), accelerator="tcg" if tcg else "kvm").vcpus[0]


# -- the map ----------------------------------------------------------------------------------------------------------


def rows_of_the_facts():
    """(section, name, component, absolute or relative offset, stride) of every row that is in an area."""
    for row in MAP:
        if row["dst"] is not None and row["component"] is not None:
            yield (
                row["section"],
                row["vmdesc_name"].split("[")[0],
                row["component"],
                row["dst"][1],
                row["dst_stride"],
            )


def test_every_row_of_the_map_is_there_and_no_other():
    ours = {
        ("/".join(["cpu", *spec.path[:-1]]).replace("cpu/cpu/", "cpu/"), spec.path[-1], spec.component, spec.offset)
        for spec in XSAVE_FIELDS
    }
    ours = {(s.split("/cpu/")[-1] if s.count("cpu/") > 1 else s, *rest) for s, *rest in ours}
    ours = {(s if s == "cpu" or s.startswith("cpu/") else f"cpu/{s}", *rest) for s, *rest in ours}
    facts = {(s.split(" ")[0], name, component, offset) for s, name, component, offset, _ in rows_of_the_facts()}
    assert ours == facts, "add the row of QEMU's vmstate to tests/data/xsave_vmstate_map.json"


def test_strides_of_the_map():
    ours = {(s.path[-1], s.component, s.offset): s.stride for s in XSAVE_FIELDS}
    for _, name, component, offset, stride in rows_of_the_facts():
        assert ours[name, component, offset] == stride, name


# -- real streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samplefiles.X86)
def test_round_trip_of_samples(name):
    with qmigtool.open(samplefiles.path(name)) as stream:
        for vcpu in stream.vcpus:
            encoded = vcpu.vmstate_bytes(vcpu.xsave)
            assert len(encoded) >= 7
            for field, data in encoded.items():
                assert data == field.raw, field


def test_twins_have_the_same_state():
    """One guest, one state, saved under KVM and under TCG: x87 order and XSTATE_BV differ in the file only."""
    with (
        qmigtool.open(samplefiles.path("twin-kvm-10.0")) as kvm,
        qmigtool.open(samplefiles.path("twin-tcg-10.0")) as tcg,
    ):
        one, two = kvm.vcpus[0], tcg.vcpus[0]
        assert (one.xstate_bv, two.xstate_bv) == (7, 0)
        assert one.effective_xstate_bv() == two.effective_xstate_bv() == 7
        assert one.live == two.live == 7
        # FOP, FIP and FDP (bytes 6 to 23): TCG always keeps them, an AMD CPU only with an exception pending.
        assert one.contents(0)[:6] + one.contents(0)[24:] == two.contents(0)[:6] + two.contents(0)[24:]
        assert one.xsave.data[24:512] == two.xsave.data[24:512]
        assert one.xsave.data[576:832] == two.xsave.data[576:832]
        assert one.device.field("env.fpregs").raw != two.device.field("env.fpregs").raw


def test_the_pattern_of_the_guest_program():
    """MANIFEST: bytes 01 02 03 ... in XMM1, log2(e) on top of pi."""
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        area = stream.vcpus[1].xsave
        assert area.xmm(1) == bytes(range(1, 17))
        assert area.st(0)[8:10] == b"\xff\x3f"
        assert area.st(0)[:8] == struct.pack("<Q", 0xB8AA3B295C17F0BC)
        assert area.st(1) == bytes.fromhex("35c26821a2da0fc90040")


def test_kvm_with_avx512():
    with qmigtool.open(samplefiles.path("kvm-avx512-7.2")) as stream:
        (vcpu,) = stream.vcpus
        assert (vcpu.xcr0, vcpu.xstate_bv, vcpu.mxcsr) == (0xE7, 0xE7, 0x9FC0)
        assert b"\x0f\x0f" in vcpu.contents(5)
        assert b"\x44\x44" in vcpu.contents(6)
        assert b"\x55\x55" in vcpu.contents(7)


# -- x87 --------------------------------------------------------------------------------------------------------------

REGISTERS = tuple((0x8000000000000000 + i, 0x3FFF + i) for i in range(8))


@pytest.mark.parametrize("top", range(8))
def test_x87_order(top):
    fpus = top << 11
    stack = vcpu_of(fpregs=REGISTERS, fpus=fpus)
    physical = vcpu_of(tcg=True, fpregs=REGISTERS, fpus=fpus)
    for i in range(8):
        at = 32 + 16 * i
        assert stack.xsave.data[at : at + 10] == struct.pack("<QH", *REGISTERS[i])
        assert physical.xsave.data[at : at + 10] == struct.pack("<QH", *REGISTERS[(top + i) % 8])
    for vcpu in (stack, physical):
        assert all(field.raw == data for field, data in vcpu.vmstate_bytes(vcpu.xsave).items())


def test_the_legacy_region_byte_by_byte():
    pointers = Vmsd(
        "cpu/fpop_ip_dp",
        1,
        [
            num("env.fpop", "uint16", 0x0102),
            num("env.fpip", "uint64", 0x1112131415161718),
            num("env.fpdp", "uint64", 5),
        ],
    )
    vcpu = vcpu_of(fpuc=0x1234, fpus=0x3801, fptag=0xC1, mxcsr=0x9FC0, xmm=[(1, 2)], subsections=[pointers])
    data = vcpu.xsave.data
    assert data[0:24].hex() == "34120138c100020118171615141312110500000000000000"
    assert data[24:32].hex() == "c09f000000000000"
    assert data[160:176] == struct.pack("<QQ", 1, 2)
    assert struct.unpack_from("<QQ", data, 512) == (7, 0)
    assert len(data) == 832


# -- every component --------------------------------------------------------------------------------------------------


def quads(name, count, elements, start=1):
    return [
        Vmsd(name, 1, [num(f"q{j}", "uint64", start + i * count + j) for j in range(count)]) for i in range(elements)
    ]


def little(*values):
    return struct.pack(f"<{len(values)}Q", *values)


SUBSECTIONS = {
    3: (
        Vmsd(
            "cpu/mpx",
            1,
            [
                structs("env.bnd_regs", quads("bnd_regs", 2, 4)),
                num("env.bndcs_regs.cfgu", "uint64", 77),
                num("env.bndcs_regs.sts", "uint64", 88),
                num("env.msr_bndcfgs", "uint64", 99),
            ],
        ),
        {3: little(*range(1, 9)), 4: little(77, 88) + bytes(48)},
    ),
    5: (
        Vmsd(
            "cpu/avx512",
            1,
            [
                nums("env.opmask_regs", "uint64", range(1, 9)),
                structs("env.xmm_regs[0]", quads("zmmh_reg", 4, 16)),
                structs("env.xmm_regs[1]", quads("hi16_zmm_reg", 8, 16)),
            ],
        ),
        {5: little(*range(1, 9)), 6: little(*range(1, 65)), 7: little(*range(1, 129))},
    ),
    9: (Vmsd("cpu/pkru", 1, [num("env.pkru", "uint32", 0x55555554)]), {9: struct.pack("<II", 0x55555554, 0)}),
    11: (
        Vmsd(
            "cpu/cet",
            1,
            [num("env.u_cet", "uint64", 1), num("env.s_cet", "uint64", 9)],
            [
                Vmsd(
                    "cpu/cet_shstk",
                    1,
                    [
                        num("env.pl0_ssp", "uint64", 99),
                        num("env.pl1_ssp", "uint64", 3),
                        num("env.pl2_ssp", "uint64", 4),
                        num("env.pl3_ssp", "uint64", 2),
                    ],
                )
            ],
        ),
        {11: little(1, 2), 12: little(0, 3, 4)},
    ),
    12: (Vmsd("cpu/msr_pl0_ssp", 1, [num("env.pl0_ssp", "uint64", 6)]), {12: little(6, 0, 0)}),
    15: (
        Vmsd(
            "cpu/arch_lbr",
            1,
            [
                num("env.msr_lbr_ctl", "uint64", 5),
                num("env.msr_lbr_depth", "uint64", 32),
                structs("env.lbr_records", quads("lbr_records_var", 3, 32)),
            ],
        ),
        {15: little(5, 32, 0, 0, 0, *range(1, 97))},
    ),
    17: (
        Vmsd(
            "cpu/intel_amx_xtile",
            1,
            [nums("env.xtilecfg", "uint8", range(64)), nums("env.xtiledata", "uint8", [i % 251 for i in range(8192)])],
        ),
        {17: bytes(range(64)), 18: bytes(i % 251 for i in range(8192))},
    ),
    19: (Vmsd("cpu/apx", 1, [nums("env.regs", "uint64", range(100, 116))]), {19: little(*range(100, 116))}),
}


@pytest.mark.parametrize("bit", SUBSECTIONS)
def test_each_subsection(bit):
    subsection, contents = SUBSECTIONS[bit]
    vcpu = vcpu_of(subsections=[subsection])
    for component, expected in contents.items():
        assert vcpu.contents(component) == expected
        assert vcpu.carried >> component & 1
        assert vcpu.live >> component & 1
    assert vcpu.carried == 7 | sum(1 << component for component in contents)
    encoded = vcpu.vmstate_bytes(vcpu.xsave_area(xstate_bv="recomputed"))
    assert all(field.raw == data for field, data in encoded.items() if field.name != "env.xstate_bv")
    # What an area does not declare is in its initial configuration, whatever its bytes say.
    user = [component for component in contents if component not in (11, 12, 15)]
    for field, data in vcpu.vmstate_bytes(vcpu.xsave_area(xstate_bv="declared")).items():
        if user and field.name != "env.xstate_bv" and field.offset > vcpu.device.field(subsection.name).offset:
            assert data == bytes(field.length), field
    assert set(vcpu.supervisor) == set(contents) & {11, 12, 15}


def test_all_of_the_state_at_once():
    """MPX and APX exclude each other; everything else is side by side in the layout that QEMU uses by itself."""
    subsections = [subsection for bit, (subsection, _) in SUBSECTIONS.items() if bit != 19]
    offsets = {3: 960, 4: 1024, 5: 1088, 6: 1152, 7: 1664, 9: 2688, 17: 2752, 18: 2816}
    covered = {bit for key, (_, contents) in SUBSECTIONS.items() if key != 19 for bit in contents}
    assert covered - set(offsets) <= {11, 12, 15}, "add the component's offset in QEMU's area to offsets"
    every = 7 | sum(1 << bit for bit in offsets)
    vcpu = vcpu_of(subsections=subsections, xcr0=every, xstate_bv=every)
    data = vcpu.xsave.data
    for bit, offset in offsets.items():
        expected = next(found[bit] for _, found in SUBSECTIONS.values() if bit in found)
        assert data[offset : offset + len(expected)] == expected, bit
    assert len(data) == 2816 + 8192
    written = vcpu.vmstate_bytes(vcpu.xsave)
    assert {field: raw_ for field, raw_ in written.items() if field.raw != raw_} == {}


def test_apx_takes_the_place_of_mpx():
    vcpu = vcpu_of(subsections=[SUBSECTIONS[19][0]], xcr0=0x80007, xstate_bv=0x80007)
    assert vcpu.xsave.data[960:1088] == SUBSECTIONS[19][1][19]


def test_i386_has_eight_registers():
    vcpu = vcpu_of(registers=8, xmm=[(i, i + 100) for i in range(8)], ymmh=[(7, 8)])
    assert vcpu.xsave.data[160:288] == little(*(q for i in range(8) for q in (i, i + 100)))
    assert vcpu.xsave.data[288:416] == bytes(128)
    assert vcpu.contents(2) == little(7, 8) + bytes(240)
    assert all(field.raw == data for field, data in vcpu.vmstate_bytes(vcpu.xsave).items())


# -- masks ------------------------------------------------------------------------------------------------------------


def test_initial_state_is_not_live():
    vcpu = vcpu_of(xcr0=7, xstate_bv=0)
    assert (vcpu.live, vcpu.carried, vcpu.undeclared) == (0, 7, 0)
    assert vcpu_of(mxcsr=0x1F81).live == 2
    assert vcpu_of(fpuc=0x27F).live == 1


@pytest.mark.parametrize(
    ("tcg", "declared", "how", "expected"),
    [
        (False, 5, "auto", 5),
        (False, 0, "auto", 6),
        (True, 5, "auto", 6),
        (False, 5, "declared", 5),
        (False, 5, "recomputed", 6),
        (True, 0, "declared", 0),
    ],
)
def test_which_components_count_as_in_use(tcg, declared, how, expected):
    vcpu = vcpu_of(tcg=tcg, xstate_bv=declared, xmm=[(1, 0)], ymmh=[(1, 0)])
    assert vcpu.live == 6
    assert vcpu.effective_xstate_bv(how) == expected
    assert vcpu.xsave_area(xstate_bv=how).xstate_bv == expected


def test_xss_and_registers():
    vcpu = vcpu_of(subsections=[Vmsd("cpu/xss", 1, [num("env.xss", "uint64", 0x1800)])], xcr0=(1 << 64) - 1)
    assert (vcpu.xss, vcpu.xcr0, vcpu.enabled) == (0x1800, (1 << 64) - 1, (1 << 64) - 1)
    assert vcpu_of().xss == 0


def test_a_number_that_is_none():
    cpu = x86_cpu()
    cpu.fields = [item if item.entries[0][0][1] != "env.xcr0" else raw("env.xcr0", bytes(8)) for item in cpu.fields]
    vcpu = stream_of(cpu).vcpus[0]
    with pytest.raises(StreamError, match="a number"):
        _ = vcpu.xcr0


def test_a_register_has_no_sign():
    cpu = x86_cpu()
    cpu.fields = [
        item if item.entries[0][0][1] != "env.xstate_bv" else num("env.xstate_bv", "int64", -1) for item in cpu.fields
    ]
    assert stream_of(cpu).vcpus[0].xstate_bv == (1 << 64) - 1


def test_fields_that_do_not_fit_their_component():
    vcpu = vcpu_of(subsections=[Vmsd("cpu/avx512", 1, [nums("env.opmask_regs", "uint64", range(9))])])
    with pytest.raises(StreamError, match="do not fit opmask") as caught:
        _ = vcpu.live
    assert caught.value.offset is not None


def test_vcpus_are_in_the_order_of_their_instances():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    for section, instance in ((5, 2), (6, 0), (7, 1)):
        w.device(section, "cpu", instance, x86_cpu(xcr0=instance))
    with qmigtool.open(w.finish()) as stream:
        assert [v.index for v in stream.vcpus] == [v.xcr0 for v in stream.vcpus] == [0, 1, 2]


def test_another_target_has_no_x86_vcpus():
    with qmigtool.open(samplefiles.path("arm-7.2")) as stream:
        assert stream.vcpus == ()
        assert sum(device.name == "cpu" for device in stream.devices) == 2


def test_live_state_without_fields_is_not_lost_silently():
    """The area has AVX-512, the stream no subsection for it."""
    with_it = vcpu_of(subsections=[SUBSECTIONS[5][0]])
    without = vcpu_of()
    with pytest.raises(LiveStateError) as caught:
        without.vmstate_bytes(with_it.xsave_area(xstate_bv="recomputed"))
    assert caught.value.components == ("opmask", "ZMM_Hi256", "Hi16_ZMM")
