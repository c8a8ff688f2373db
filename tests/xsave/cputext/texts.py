"""Writers of CPUs as text: every form, for any layout."""

from qmigtool.xsave import layout
from tests.support import casefiles

ZEN4, SPR = layout("amd-zen4"), layout("intel-spr")


def case(name):
    return casefiles.read("xsave", name).decode()


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


def dmesg(mask, states, size, form="compacted", cpu=""):
    lines = [f"[    0.000000] x86/fpu: xstate_offset[{i}]: {o:4d}, xstate_sizes[{i}]: {s:4d}" for i, o, s in states]
    enabled = f"Enabled xstate features {mask:#x}, context size is {size} bytes, using '{form}' format."
    lines.append(f"[    0.000000] x86/fpu: {enabled}")
    return "\n".join([*lines, f"[    0.086105] smpboot: CPU0: {cpu} (family: 0x6, model: 0x8f)" if cpu else "", ""])


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


def cpudata(cpu):
    rows = [
        f"<cpuid eax_in='0x0000000d' ecx_in='{i:#04x}' eax='{a:#x}' ebx='{b:#x}' ecx='{c:#010x}' edx='{d:#010x}'/>"
        for i, (a, b, c, d) in cpu.leaf.items()
    ]
    return "<cpudata arch='x86'>\n  " + "\n  ".join(rows) + "\n  <msr index='0x10a' edx='0x0' eax='0xd'/>\n</cpudata>\n"
