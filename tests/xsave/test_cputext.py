"""CPUs as people paste them: every form of text gives the layout that `cpuid -r` gives, or says what is missing."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.cli.main import run
from qmigtool.errors import LimitError, QmigError, UnsupportedError, UsageError, XsaveError
from qmigtool.preflight import read_targets
from qmigtool.xsave import Layout, layout, parse_cpuid_dump
from qmigtool.xsave.cpuid import missing_rows, no_xsave, parse_cpuid_rows, split_choice
from tests.support import casefiles, samplefiles

ZEN4, SPR = layout("amd-zen4"), layout("intel-spr")


def case(name):
    return casefiles.read("xsave", name).decode()


def same(found, cpu):
    """The rows of a CPU, without the sizes for the current XCR0 and IA32_XSS that not every text has."""
    assert dict(found.rows) == dict(cpu.rows)
    assert (found.xcr0_mask, found.xss_mask, found.features) == (cpu.xcr0_mask, cpu.xss_mask, cpu.features)
    return True


# -- lines of registers --------------------------------------------------------------------------------------------


def kcpuid(cpu):
    lines = ["0x00000000: EAX=0x00000010, EBX=0x68747541, ECX=0x444d4163, EDX=0x69746e65", "0x0000000d: subleafs:"]
    lines += [
        f" {i:2}: EAX=0x{a:08x}, EBX=0x{b:08x}, ECX=0x{c:08x}, EDX=0x{d:08x}" for i, (a, b, c, d) in cpu.leaf.items()
    ]
    return "\n".join([*lines, "0x0000000e: EAX=0x00000000, EBX=0x00000000, ECX=0x00000000, EDX=0x00000000", ""])


def xen(cpu, policy="Raw"):
    rows = [f"  0000000d:{i:08x} -> {a:08x}:{b:08x}:{c:08x}:{d:08x}" for i, (a, b, c, d) in cpu.leaf.items()]
    head = [f"{policy} policy: 48 leaves, 2 MSRs", " CPUID:", "  leaf     subleaf  -> eax      ebx      ecx      edx"]
    return "\n".join([*head, "  00000000:ffffffff -> 00000020:756e6547:6c65746e:49656e69", *rows, " MSRs:", ""])


def virtualbox_tables(guest, host):
    lines = ["00:00:00.154942      Leaf/sub-leaf  eax      ebx      ecx      edx"]
    for i, row in host.leaf.items():
        ours, theirs = ((" ".join(f"{word:08x}" for word in one)) for one in (guest.leaf.get(i, (0,) * 4), row))
        lines += [f"00:00:00.154943 Gst: 0000000d/{i:04x}  {ours}", f"00:00:00.154944 Hst:                {theirs}"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("cpu", [ZEN4, SPR], ids=lambda cpu: cpu.name)
def test_lines_of_registers(cpu):
    for text in (kcpuid(cpu), xen(cpu), virtualbox_tables(cpu, cpu), kcpuid(cpu).replace("\n", "\r\n")):
        assert dict(parse_cpuid_dump(text, "pasted").leaf) == dict(cpu.leaf)


def test_kcpuid_names_every_leaf():
    (block,) = parse_cpuid_rows(kcpuid(ZEN4))
    assert [(line.leaf, line.subleaf) for line in block.lines][:3] == [(0, 0), (0xD, 0), (0xD, 1)]
    assert block.lines[-1][:2] == (0xE, 0)


def test_instlatx64_without_colons():
    cpu = parse_cpuid_dump(case("instlat-mendocino-nocolon.txt"), "mendocino")
    assert (cpu.user_mask, cpu.xcr0_mask, cpu.standard_size()) == (0x7, 0x207, 832)
    assert "64" in cpu.absent[9]
    assert len(parse_cpuid_rows(case("instlat-mendocino-nocolon.txt"))) == 8
    with_colons = case("instlat-mendocino-nocolon.txt").replace("  \t", ": ")
    assert parse_cpuid_dump(with_colons, "mendocino") == cpu


def test_xen_has_several_policies():
    text = xen(SPR) + xen(SPR, "Host") + xen(layout("intel-hsw"), "PV Max")
    with pytest.raises(XsaveError, match=r"raw and host: .*0x602e7; pv-max: .*0x7.*: x#raw or x#pv-max$"):
        parse_cpuid_dump(text, "x")
    assert parse_cpuid_dump(text, "x", cpu="PV-Max").user_mask == 7
    cut = parse_cpuid_dump(case("xencpuid.txt"), "xencpuid.txt")
    assert (cut.user_mask, cut.xcr0_mask, cut.xss_mask) == (0x7, 0x602E7, 0xDD00)
    assert "opmask ZMM_Hi256 Hi16_ZMM PT PKRU" in missing_rows(cut)


# -- decoded ---------------------------------------------------------------------------------------------------------

NAMES = {2: "AVX/YMM", 5: "AVX-512 opmask", 6: "AVX-512 ZMM_Hi256", 7: "AVX-512 Hi16_ZMM", 9: "PKRU"}


def decoded(cpu, *, halves=False, head=True):
    """What `cpuid` prints of leaf 0xD; with halves as versions before 2021 did, and one heading for 0 and 1."""

    def mask(register, value):
        if not halves:
            return [f"      {register} valid bit field mask               = 0x{value:016x}"]
        parts = (("lower", value & 0xFFFFFFFF), ("upper", value >> 32))
        return [f"      {register} {half} 32 bits valid bit field mask = 0x{one:08x}" for half, one in parts]

    def yes(bit):
        return "true" if cpu.features >> bit & 1 else "false"

    lines = ["CPU 0:", '   vendor_id = "AuthenticAMD"'] if head else ["CPU:"]
    lines += ["   XSAVE features (0xd/0):", *mask("XCR0", cpu.xcr0_mask), "         x87 state      = true"]
    lines += ["      bytes required by fields in XCR0        = 0x00000988 (2440)"]
    lines += ["      bytes required by XSAVE/XRSTOR area     = 0x00000988 (2440)"]
    lines += [] if halves else ["   XSAVE features (0xd/1):"]
    lines += [f"      XSAVEOPT instruction    = {yes(0)}", f"      XSAVEC instruction    = {yes(1)}"]
    lines += [f"      XGETBV instruction    = {yes(2)}", f"      XSAVES/XRSTORS instructions   = {yes(3)}"]
    lines += [f"      XFD: extended feature disable supported = {yes(4)}"]
    lines += ["      SAVE area size in bytes   = 0x00000990 (2448)", *mask("IA32_XSS", cpu.xss_mask)]
    for bit, row in cpu.rows.items():
        name = NAMES.get(bit, f"state {bit}")
        kind = "IA32_XSS (supervisor state)" if row.supervisor else "XCR0 (user state)"
        lines += [
            f"   {name} features (0xd/{bit}):",
            f"      {name} save state byte size             = 0x{row.size:08x} ({row.size})",
            f"      {name} save state byte offset           = 0x{row.offset:08x} ({row.offset})",
            f"      supported in IA32_XSS or XCR0            = {kind}",
            f"      64-byte alignment in compacted XSAVE     = {'true' if row.align64 else 'false'}",
            f"      XFD faulting supported                   = {'true' if row.xfd else 'false'}",
        ]
    lines += ["   extended feature flags (0x80000001/edx):", "      SYSCALL and SYSRET instructions = true", ""]
    return "\n".join(lines)


@pytest.mark.parametrize("cpu", [ZEN4, SPR, layout("amd-bulldozer")], ids=lambda cpu: cpu.name)
@pytest.mark.parametrize("halves", [False, True])
def test_decoded_cpuid(cpu, halves):
    text = decoded(cpu, halves=halves)
    assert same(parse_cpuid_dump(text, "pasted"), cpu)
    assert same(parse_cpuid_dump("> " + text.replace("\n", "\n> "), "quoted"), cpu)
    assert same(parse_cpuid_dump(text.replace("=", "=3D"), "mailed"), cpu)


def test_decoded_cpuid_of_several_cpus():
    text = decoded(SPR) + decoded(layout("intel-skl")).replace("CPU 0", "CPU 12")
    with pytest.raises(XsaveError, match=r"CPU 0 has .*0x602e7; CPU 12 has .*0x1f\); name one: x#0 or x#12"):
        parse_cpuid_dump(text, "x")
    assert same(parse_cpuid_dump(text, "x", cpu="12"), layout("intel-skl"))


def test_decoded_cpuid_that_is_cut():
    cpu = parse_cpuid_dump(case("dec.cpuid"), "dec.cpuid")
    assert (cpu.xcr0_mask, cpu.xss_mask, cpu.user_mask, cpu.features) == (0x602E7, 0x3900, 0x7, 0x3)
    assert missing_rows(cpu).startswith(
        "dec.cpuid is truncated: it advertises opmask ZMM_Hi256 Hi16_ZMM PT PKRU CET_U CET_S HDC XTILECFG XTILEDATA"
    )
    text = decoded(ZEN4)
    # It ends behind PKRU's size: without its offset PKRU is missing, not at 0.
    cut = parse_cpuid_dump(text[: text.index("PKRU save state byte offset")], "cut")
    assert (cut.user_mask, set(cut.absent)) == (0xE7, {9, 11, 12})


# -- logs ------------------------------------------------------------------------------------------------------------


def test_a_virtualbox_log_has_a_guest_and_a_host():
    text = case("vbox.log")
    with pytest.raises(XsaveError, match=r"guest: .*0x7; host: .*0x1f\); name one: vbox.log#guest or vbox.log#host"):
        parse_cpuid_dump(text, "vbox.log")
    guest = parse_cpuid_dump(text, "vbox.log", cpu="guest")
    assert (guest.user_mask, guest.standard_size(), missing_rows(guest)) == (0x7, 832, None)
    host = parse_cpuid_dump(text, "vbox.log", cpu="host")
    assert (host.rows[2].offset, host.rows[3].offset, host.rows[3].size) == (576, 960, 64)
    assert "BNDCSR" in missing_rows(host)
    assert host.source == "VirtualBox log, host"


def test_a_virtualbox_log_of_an_older_version_and_of_one_kind():
    text = """
00:00:00.155098 Processor Extended State Enumeration (leaf 0xd):
00:00:00.155098    XSAVE area cur/max size by XCR0, Guest: 0x340/0x340
00:00:00.155099    XSAVE area cur/max size by XCR0,  Host: 0x340/0x340
00:00:00.155100                    Valid XCR0 bits, Guest: 0x00000000`00000007 ( x87 SSE YMM_Hi128 )
00:00:00.155101                    Valid XCR0 bits,  Host: 0x00000000`00000007 ( x87 SSE YMM_Hi128 )
00:00:00.155103                     XSAVE features, Guest
00:00:00.155103                     XSAVE features,  Host
00:00:00.155105                Valid IA32_XSS bits, Guest: 0x00000000`00000000
00:00:00.155106                Valid IA32_XSS bits,  Host: 0x00000000`00000000
00:00:00.155107   State #2, Guest: off=0x0240, cb=0x0100 IA32_XSS-bit -- YMM_Hi128
00:00:00.155108   State #2,  Host:  off=0x0240, cb=0x0100 IA32_XSS-bit -- YMM_Hi128
"""
    cpu = parse_cpuid_dump(text, "VBox.log")
    assert (cpu.user_mask, cpu.leaf[0], cpu.features) == (7, (7, 0x340, 0x340, 0), 0)
    assert parse_cpuid_dump(text.replace("Host XSAVE", "Host"), "VBox.log", cpu="host").user_mask == 7
    features = text.replace("features,  Host", "features,  Host XSAVEOPT XSAVEC")
    assert parse_cpuid_dump(features, "VBox.log", cpu="host").features == 3


def test_the_tables_of_a_virtualbox_log_win():
    text = virtualbox_tables(layout("intel-hsw"), SPR) + case("vbox.log")
    assert parse_cpuid_dump(text, "v", cpu="host").leaf == SPR.leaf


def dmesg(mask, states, size, form="compacted", cpu=""):
    lines = [f"[    0.000000] x86/fpu: xstate_offset[{i}]: {o:4d}, xstate_sizes[{i}]: {s:4d}" for i, o, s in states]
    enabled = f"Enabled xstate features {mask:#x}, context size is {size} bytes, using '{form}' format."
    lines.append(f"[    0.000000] x86/fpu: {enabled}")
    return "\n".join([*lines, f"[    0.086105] smpboot: CPU0: {cpu} (family: 0x6, model: 0x8f)" if cpu else "", ""])


def test_dmesg_has_compacted_offsets():
    with pytest.raises(
        UnsupportedError, match=r"neither the standard offsets nor the vendor: PKRU is at 2688 on Intel, 2432 on AMD"
    ):
        parse_cpuid_dump(case("dmesg.txt"), "dmesg.txt")
    told = case("dmesg.txt") + "[    0.1] smpboot: CPU0: {} (family: 0x19, model: 0x1, stepping: 0x1)\n"
    assert parse_cpuid_dump(told.format("AMD EPYC 7763 64-Core Processor"), "d").standard_offset(9) == 2432
    cpu = parse_cpuid_dump(told.format("Intel(R) Core(TM) Ultra 5"), "d")
    assert (cpu.standard_offset(9), cpu.standard_size(), cpu.compacted_size(0x207)) == (2688, 2696, 840)


def test_dmesg_where_only_one_family_is_possible():
    mpx = dmesg(0x1F, [(2, 576, 256), (3, 832, 64), (4, 896, 64)], 960)
    cpu = parse_cpuid_dump(mpx, "d")
    assert ([cpu.standard_offset(bit) for bit in (2, 3, 4)], cpu.standard_size()) == ([576, 960, 1024], 1088)
    assert parse_cpuid_dump(dmesg(7, [(2, 576, 256)], 832), "d").standard_size() == 832
    tiles = [
        (2, 576, 256),
        (5, 832, 64),
        (6, 896, 512),
        (7, 1408, 1024),
        (9, 2432, 8),
        (17, 2496, 64),
        (18, 2560, 8192),
    ]
    cpu = parse_cpuid_dump(dmesg(0x602E7, tiles, 10752), "d")
    assert (cpu.standard_size(), cpu.compacted_size(0x602E7)) == (11008, 10752)


@pytest.mark.parametrize(("cpu", "word"), [("AMD EPYC 9654", "AuthenticAMD"), ("Intel(R) Xeon(R)", "GenuineIntel")])
def test_dmesg_tells_the_vendor(cpu, word):
    assert parse_cpuid_dump(dmesg(7, [(2, 576, 256)], 832, cpu=cpu), "d").vendor == word


def test_dmesg_with_supervisor_state_and_standard_offsets():
    cet = dmesg(0xA07, [(2, 576, 256), (9, 832, 8), (11, 840, 16)], 856, cpu="AMD EPYC 9654")
    cpu = parse_cpuid_dump(cet, "d")
    assert (cpu.user_mask, cpu.supervisor_mask, cpu.standard_offset(9)) == (0x207, 0x800, 2432)
    standard = dmesg(0x207, [(2, 576, 256), (9, 2688, 8)], 2696, "standard")
    assert parse_cpuid_dump(standard, "d").standard_offset(9) == 2688


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (dmesg(0x207, [(2, 576, 256)], 840), r"no line xstate_offset\[9\]"),
        (dmesg(0x207, [(2, 576, 256), (9, 840, 8)], 848, cpu="AMD X"), "PKRU at 840 .* put it at 832"),
        (dmesg(7, [(2, 576, 256)], 832).replace("Enabled", "Disabled"), "Enabled xstate features"),
    ],
)
def test_dmesg_that_contradicts_itself(text, words):
    with pytest.raises(XsaveError, match=words):
        parse_cpuid_dump(text, "d")


# -- documents -------------------------------------------------------------------------------------------------------


def kvm_entries(cpu):
    return [
        {"function": 0xD, "index": i, "flags": 1, "eax": a, "ebx": b, "ecx": c, "edx": d, "padding": [0, 0, 0]}
        for i, (a, b, c, d) in cpu.leaf.items()
    ]


def firecracker(cpu):
    return {
        "cpuid_modifiers": [
            {
                "leaf": "0xd",
                "subleaf": hex(i),
                "flags": 1,
                "modifiers": [
                    {"register": name, "bitmap": f"0b{value:032b}"}
                    for name, value in zip(("eax", "ebx", "ecx", "edx"), row, strict=True)
                ],
            }
            for i, row in cpu.leaf.items()
        ],
        "msr_modifiers": [],
    }


def test_json_of_virtual_machine_monitors():
    inside = json.dumps({"cpuid": kvm_entries(SPR), "other": [1, 2]})
    for document in (
        {"cpuid": kvm_entries(SPR)},
        kvm_entries(SPR),
        {"snapshots": {"cpu-manager": {"snapshot_data": {"state": inside}}}},
        firecracker(SPR),
        {"firecracker_version": "1.7", "guest_cpu_config": firecracker(SPR)},
        {"vcpus": [{"cpuid": kvm_entries(SPR)}, {"cpuid": kvm_entries(SPR)}]},
    ):
        assert parse_cpuid_dump(json.dumps(document), "j").leaf == SPR.leaf
    text = json.dumps({"vcpus": [{"cpuid": kvm_entries(SPR)}, {"cpuid": kvm_entries(ZEN4)}]})
    assert parse_cpuid_dump(text, "j", cpu=1).leaf == ZEN4.leaf
    with pytest.raises(XsaveError, match="j#0 or j#1"):
        parse_cpuid_dump(text, "j")


def test_a_cpu_of_json_is_the_one_of_its_key():
    """Cloud Hypervisor sorts its keys as strings: 10 before 2."""
    both = {"10": {"state": json.dumps({"cpuid": kvm_entries(SPR)})}, "2": {"cpuid": kvm_entries(ZEN4)}}
    text = json.dumps({"id": "vm", "snapshots": both})
    assert parse_cpuid_dump(text, "j", cpu=2).leaf == ZEN4.leaf
    assert parse_cpuid_dump(text, "j", cpu=10).leaf == SPR.leaf
    with pytest.raises(XsaveError, match="j#2 or j#10"):
        parse_cpuid_dump(text, "j")


def test_a_template_that_leaves_bits_to_the_host_is_not_guessed():
    document = firecracker(SPR)
    document["cpuid_modifiers"][0]["modifiers"][0]["bitmap"] = "0bxxxxxxxxxxxxx00xxxxxxxxxxxxxxxxx"
    with pytest.raises(XsaveError, match="leaves eax of CPUID leaf 0xd, subleaf 0x0 to the host"):
        parse_cpuid_dump(json.dumps(document), "t2.json")


def cpudata(cpu):
    rows = [
        f"<cpuid eax_in='0x0000000d' ecx_in='{i:#04x}' eax='{a:#x}' ebx='{b:#x}' ecx='{c:#010x}' edx='{d:#010x}'/>"
        for i, (a, b, c, d) in cpu.leaf.items()
    ]
    return "<cpudata arch='x86'>\n  " + "\n  ".join(rows) + "\n  <msr index='0x10a' edx='0x0' eax='0xd'/>\n</cpudata>\n"


def test_cpudata_of_libvirt():
    assert parse_cpuid_dump(cpudata(SPR), "x.xml").leaf == SPR.leaf
    assert parse_cpuid_dump(cpudata(SPR).replace("'", '"'), "x.xml").leaf == SPR.leaf
    assert parse_cpuid_dump(f"<capabilities><host>{cpudata(ZEN4)}</host></capabilities>", "x.xml").leaf == ZEN4.leaf
    without = "<capabilities><host><cpu><model>EPYC-Genoa</model><feature name='xsave'/></cpu></host></capabilities>"
    with pytest.raises(XsaveError, match=r"no <cpudata> .*; --layout EPYC-Genoa is QEMU's model of that name"):
        parse_cpuid_dump(without, "capabilities.xml")
    with pytest.raises(XsaveError, match=r"no <cpudata> with registers \("):
        parse_cpuid_dump(without.replace("EPYC-Genoa", "core9trio"), "capabilities.xml")


CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model name\t: AMD EPYC 9654 96-Core Processor
flags\t\t: fpu vme de pse xsave avx avx2 xsaveopt xsavec xgetbv1 xsaves
bugs\t\t: sysret_ss_attrs
"""
LSCPU = """Architecture:            x86_64
  CPU op-mode(s):        32-bit, 64-bit
Model name:              Intel(R) Core(TM)2 Duo
  Flags:                 fpu vme de sse3
"""
KCPUID = "CPU features:\n=============\n\n\tsse3                \n\txsave               \n\tclflush_size        : 0x8\n"
KCPUID_D = "CPUID_0xd_EAX[0x0]:\n\t xcr0_x87\t- x87 state\n"
LEAF_1 = "CPU:\n   version information (1/eax):\n      family = 0xf\n   miscellaneous (1/ebx):\n      brand id = 0x0\n"
SUBLEAF_2 = "CPU:\n   AVX/YMM features (0xd/2):\n      AVX/YMM save state byte size             = 0x00000100 (256)\n"
WHERE = "but not CPUID leaf 0xD, which has the components' offsets"


@pytest.mark.parametrize(
    ("text", "what", "give"),
    [
        (KCPUID, "kcpuid prints registers only with -r", "`kcpuid -r`"),
        (KCPUID_D, "kcpuid prints registers only with -r", "`kcpuid -r`"),
        (CPUINFO, f"/proc/cpuinfo has a CPU's name and flags (they have xsave), {WHERE}", "`cpuid -1 -r`"),
        (CPUINFO.replace("\n", "\r\n"), "/proc/cpuinfo has a CPU's name and flags (they have xsave)", "`cpuid -1 -r`"),
        ("> " + CPUINFO.replace("\n", "\n> "), "/proc/cpuinfo has a CPU's name and flags", "`cpuid -1 -r`"),
        (
            CPUINFO.split("\n")[4],
            "/proc/cpuinfo has a CPU's name and flags (they have xsave)",
            "| grep x86/fpu`",
        ),
        (CPUINFO.split("\n")[3], f"/proc/cpuinfo has a CPU's name, {WHERE}", "`kcpuid -r`"),
        (LEAF_1, "cpuid's text has (1/eax, 1/ebx) here, but not (0xd/0)", "`cpuid -1 -r`"),
        (SUBLEAF_2, "cpuid's text has (0xd/2) here, but not (0xd/0)", "without -l and -s"),
        (LSCPU, f"lscpu has a CPU's name and flags (they do not have xsave), {WHERE}", "`cpuid -1 -r`"),
    ],
    ids=["kcpuid", "kcpuid-d", "cpuinfo", "crlf", "quoted", "flags-line", "model-line", "leaf-1", "subleaf-2", "lscpu"],
)
def test_texts_without_registers_say_which_command_has_them(text, what, give, tmp_path, capsys):
    with pytest.raises(XsaveError) as raised:
        parse_cpuid_dump(text, "pasted.txt")
    assert what in str(raised.value)
    assert give in (raised.value.expected or "")
    path = tmp_path / "pasted"
    path.write_text(text, encoding="utf-8")
    stream, area = str(samplefiles.path("kvm-avx512-7.2")), str(tmp_path / "area")
    (tmp_path / "area").write_bytes(bytes(4096))
    for command in (
        ["xsave", "layouts", str(path)],
        ["xsave", "check", area, "--layout", str(path)],
        ["preflight", stream, "--target", str(path)],
    ):
        status = run(command)
        err = capsys.readouterr().err
        assert status in (2, 3)
        assert what in err
        assert give in err


def test_text_about_xml_is_none():
    with pytest.raises(XsaveError) as raised:
        parse_cpuid_dump("libvirt's `<cpudata>` and <cpuinfo>", "README.md")
    assert "libvirt's XML" not in str(raised.value)


def test_registers_count_whatever_else_a_text_has():
    assert parse_cpuid_dump(CPUINFO + KCPUID + kcpuid(ZEN4), "all.txt").leaf == ZEN4.leaf


# -- several kinds of core, none, and cut ones -----------------------------------------------------------------------


def test_several_kinds_of_core():
    text = case("hyb.cpuid")
    with pytest.raises(
        XsaveError, match=r"CPU 0 has .*0x2e7; CPU 16 has .*0x207\); name one: hyb.cpuid#0 or hyb.cpuid#16"
    ):
        parse_cpuid_dump(text, "hyb.cpuid")
    assert parse_cpuid_dump(text, "hyb.cpuid", cpu="16").user_mask == 0x207
    assert split_choice("a/hyb.cpuid#16") == ("a/hyb.cpuid", "16")
    assert split_choice("hyb.cpuid") == ("hyb.cpuid", None)
    assert split_choice("#16") == ("#16", None)


def test_no_xsave_at_all():
    assert no_xsave(case("nehalem.cpuid")) == "CPUID.1:ECX[26] is 0"
    with pytest.raises(UnsupportedError, match=r"no XSAVE: CPUID.1:ECX\[26\] is 0"):
        parse_cpuid_dump(case("nehalem.cpuid"), "nehalem.cpuid")
    leaf_0 = "0x00000000: EAX=0x0000000a, EBX=0x756e6547, ECX=0x6c65746e, EDX=0x49656e69\n"
    assert no_xsave(leaf_0) == "its highest CPUID leaf is 0xa"
    assert no_xsave(leaf_0.replace("a,", "d,", 1)) is None
    assert no_xsave("nothing") is None
    assert no_xsave(case("hyb.cpuid")) is None


def test_what_is_missing_is_said_with_its_line():
    text = case("gml.cpuid")
    with pytest.raises(XsaveError, match=r"line 3 is the first of CPUID leaf 0xD for CPU 0, but .* subleaf 0"):
        parse_cpuid_dump(text.replace("0x0000000d 0x00", "0x0000000e 0x00"), "g")
    only = "CPU 0:\n   0x00000007 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n"
    with pytest.raises(XsaveError, match=r"found no row of CPUID leaf 0xD, only rows of 0x7, the last in line 2"):
        parse_cpuid_dump(only, "g")


def test_right_before_and_kept():
    atom = parse_cpuid_dump(case("gml.cpuid"), "gml")
    assert (atom.user_mask, atom.compacted_size(0x1B), atom.standard_size()) == (0x1B, 704, 1088)
    diamond = parse_cpuid_dump(case("dmr.cpuid"), "dmr")
    assert diamond.user_mask == 0xE02E7
    assert (diamond.compacted_size(0xE02E7), diamond.standard_size()) == (10880, 11008)
    assert (diamond.standard_offset(19), diamond.compacted_offsets(0xE02E7)[19]) == (960, 10752)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"cpuid": []}', "<cpudata>", "x86/fpu:", "Valid XCR0 bits", "(0xd/0):"]
)
def test_the_beginning_of_a_form_is_no_cpu(text):
    with pytest.raises(QmigError):
        parse_cpuid_dump(text, "x")


# -- where the command line takes them -------------------------------------------------------------------------------


def test_the_command_line_chooses(tmp_path, capsys):
    path = casefiles.put("xsave", "hyb.cpuid", tmp_path)
    assert run(["xsave", "layouts", path]) == 3
    assert "hyb.cpuid#16" in capsys.readouterr().err
    assert run(["xsave", "layouts", f"{path}#16", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["layouts"]
    assert (found["xcr0_mask"], found["compacted_size"]) == ("0x207", 840)
    assert run(["xsave", "layouts", f"{path}#1"]) == 2
    assert "expected 0, 16" in capsys.readouterr().err
    literal = tmp_path / "a#1"
    literal.write_text(case("gml.cpuid"))
    assert run(["xsave", "layouts", str(literal), "--json"]) == 0


def test_the_command_line_says_what_a_cut_text_lacks(tmp_path, capsys):
    assert run(["xsave", "layouts", casefiles.put("xsave", "dec.cpuid", tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["layouts"][0]["mask"] == "0x7"
    assert err.startswith("note: dec.cpuid is truncated: it advertises opmask")
    assert run(["xsave", "layouts", casefiles.put("xsave", "nehalem.cpuid", tmp_path)]) == 63
    assert run(["xsave", "layouts", casefiles.put("xsave", "dmesg.txt", tmp_path)]) == 63


def test_targets(tmp_path):
    nehalem = read_targets([casefiles.put("xsave", "nehalem.cpuid", tmp_path)])
    assert (nehalem.xcr0, nehalem.xss, nehalem.layout) == (0x3, 0, None)
    assert "without XSAVE" in nehalem.evidence["xcr0"]
    hybrid = casefiles.put("xsave", "hyb.cpuid", tmp_path)
    assert read_targets([f"{hybrid}#16"]).xcr0 == 0x207
    with pytest.raises(XsaveError, match=r"hyb.cpuid#0 or hyb.cpuid#16"):
        read_targets([hybrid])
    with pytest.raises(UsageError, match="CPU 3"):
        read_targets([f"{hybrid}#3"])
    document = tmp_path / "template.json"
    document.write_text(json.dumps(firecracker(ZEN4)))
    assert read_targets([str(document)]).xcr0 == 0x2E7
    listed = tmp_path / "t.toml"
    listed.write_text('files = ["hyb.cpuid#0"]\n')
    assert read_targets([str(listed)]).xcr0 == 0x2E7


def test_a_target_without_xsave_loses_avx(tmp_path, capsys):
    target = casefiles.put("xsave", "nehalem.cpuid", tmp_path)
    assert run(["preflight", str(samplefiles.path("kvm-avx512-7.2")), "--target", target]) in (1, 63)
    assert "AVX opmask ZMM_Hi256 Hi16_ZMM live; the target has 0x3" in capsys.readouterr().out


FORMS = [
    kcpuid(SPR),
    xen(SPR),
    virtualbox_tables(ZEN4, SPR),
    decoded(ZEN4),
    decoded(SPR, halves=True),
    json.dumps(kvm_entries(ZEN4)),
    json.dumps(firecracker(ZEN4)),
    cpudata(SPR),
    *map(case, ("dec.cpuid", "dmesg.txt", "vbox.log", "xencpuid.txt", "hyb.cpuid", "nehalem.cpuid")),
]


@settings(deadline=None)
@given(
    st.sampled_from(FORMS),
    st.lists(st.tuples(st.integers(0, 4000), st.text("0123456789abcdefx/:=()[]{}\",'<> \n-", max_size=6)), max_size=8),
    st.integers(0, 9000),
    st.sampled_from([None, "0", "guest", "raw"]),
)
def test_any_text_of_a_form_gives_a_layout_or_a_qmig_error(text, changes, length, choice):
    for at, piece in changes:
        text = text[:at] + piece + text[at + len(piece) :]
    with contextlib.suppress(QmigError):
        assert isinstance(parse_cpuid_dump(text[:length], "any", cpu=choice), Layout)


@pytest.mark.parametrize("number", ["08", "010", "0x", "99999999999", "0xffffffffffffffffff", "-1", ""])
def test_odd_numbers_in_decoded_text(number):
    text = decoded(ZEN4)
    for old in ("0xd/9", "0x00000988", "0x0000000000001800", "0x00000100"):
        with contextlib.suppress(QmigError):
            parse_cpuid_dump(text.replace(old, old.replace(old.rsplit("/", 1)[-1], number)), "odd")


def test_json_that_is_too_long():
    with pytest.raises(LimitError):
        parse_cpuid_dump('["function",' + "0," * (2 << 20) + "0]", "j")
    underscored = firecracker(ZEN4)
    for leaf in underscored["cpuid_modifiers"]:
        for one in leaf["modifiers"]:
            digits = one["bitmap"][2:]
            one["bitmap"] = "0b" + "_".join(digits[at : at + 4] for at in range(0, 32, 4))
    assert parse_cpuid_dump(json.dumps(underscored), "j").leaf == ZEN4.leaf
