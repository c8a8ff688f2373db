"""A bare-metal x86-64 guest that loads known register values in every vCPU and then spins.

`build_guest` returns a multiboot-1 image for `qemu-system-x86_64 -kernel`. It is written as machine code here, so
that no assembler is needed where the tests run: each line of the emitter holds the bytes of one instruction and
the text that objdump (binutils, Intel syntax) prints for them; test_guest.py compares the two where objdump exists.

What the image does
1. The boot vCPU starts at 1 MiB in 32-bit protected mode, copies a real-mode trampoline to 0x8000, enters 64-bit
   mode and starts all others by INIT-SIPI-SIPI. They take the same path from the trampoline on.
2. A vCPU finds its `VcpuPattern` by its initial APIC ID (equal to QEMU's vCPU index for `-smp N`), enables SSE, and
   OSXSAVE if there is XSAVE, and sets XCR0 to the pattern's `xcr0` & what CPUID leaf 0xD has.
3. It goes to ring 3 and loads the components in `touch` & XCR0 by ordinary instructions (FLD, LDMXCSR, MOVUPS,
   VMOVUPS, KMOVQ, WRPKRU, TILELOADD), never by XRSTOR, so that it needs no layout. (Ring 3, because a KVM without
   hardware virtualisation, "kvm-pvm", interprets ring 0, and KVM's interpreter does not know FLDCW, for one.)
4. It writes its `STATUS` record (magic last) and spins by `pause; jmp`. With `self_save` it XSAVEs all of XCR0 into
   its own area at `SAVE_AREA` in that loop, and counts: what the vCPU itself sees, independent of any monitor.

It has no IDT: any exception is a triple fault, which `-no-reboot` turns into the end of QEMU.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

LOAD_ADDRESS = 0x100000
TRAMPOLINE = 0x8000  # page 8: the SIPI vector
STATUS = 0x180000  # STATUS_SIZE bytes per vCPU
STATUS_SIZE = 64
STATUS_MAGIC = 0x4E495053  # "SPIN"
SAVE_AREA = 0x200000  # SAVE_AREA_SIZE bytes per vCPU, used with self_save
SAVE_AREA_SIZE = 0x4000
MAX_VCPUS = 16

X87, SSE, AVX, OPMASK, ZMM_HI256, HI16_ZMM, PKRU, XTILECFG, XTILEDATA = (
    1 << bit for bit in (0, 1, 2, 5, 6, 7, 9, 17, 18)
)
AVX512 = OPMASK | ZMM_HI256 | HI16_ZMM
AMX = XTILECFG | XTILEDATA
ALL = X87 | SSE | AVX | AVX512 | PKRU | AMX

# What FLDPI, FLD1 and FLDL2E load when rounding to nearest (SDM volume 1, 8.3.4):
# (mantissa, sign and exponent).
PI = (0xC90FDAA22168C235, 0x4000)
ONE = (0x8000000000000000, 0x3FFF)
LOG2E = (0xB8AA3B295C17F0BC, 0x3FFF)

# A pattern's table in the image; offsets in bytes.
_T_XCR0, _T_TOUCH, _T_MXCSR, _T_PKRU, _T_FCW, _T_NST = 0, 4, 8, 12, 16, 20
_T_OPMASK, _T_TILECFG, _T_ST, _T_ZMM, _T_TILES = 0x40, 0x80, 0x100, 0x180, 0x980
_T_SIZE = 0x2980

_MULTIBOOT_MAGIC = 0x1BADB002
_MULTIBOOT_AOUT = 1 << 16  # the load addresses are in the header: no ELF needed
_PAGE = 0x1000


def _tile_config() -> bytes:
    """Palette 1, eight tiles of 16 rows of 64 bytes (SDM volume 1, 18.3)."""
    return struct.pack("<BB14x8H16x8B8x", 1, 0, *[64] * 8, *[16] * 8)


@dataclass(frozen=True, slots=True)
class VcpuPattern:
    """The register values of one vCPU. Values are what the registers hold, little-endian where they are bytes."""

    xcr0: int = ALL
    """Requested XCR0; the guest ands it with CPUID.(0DH,0).EAX."""
    touch: int = ALL
    """Components to load, as XCR0 bits; the others stay as the firmware left them."""
    fcw: int = 0x037F
    mxcsr: int = 0x1F80
    pkru: int = 0
    extra_st: tuple[tuple[int, int], ...] = ()
    """(mantissa, sign and exponent) pushed after FLDPI, FLD1, FLDL2E, in this order; at most five."""
    zmm: tuple[bytes, ...] = (bytes(64),) * 32
    """32 registers of 64 bytes; XMM and YMM are their low parts."""
    opmask: tuple[int, ...] = (0,) * 8
    tiles: tuple[bytes, ...] = (bytes(1024),) * 8
    """Eight tiles of 16 rows of 64 bytes."""
    tilecfg: bytes = field(default_factory=_tile_config)

    @property
    def st(self) -> list[tuple[int, int]]:
        """The non-empty part of the x87 stack, ST(0) first."""
        return [PI, ONE, LOG2E, *self.extra_st][::-1]

    @property
    def top(self) -> int:
        """FSW.TOP after the loads."""
        return 8 - len(self.st)

    def _table(self) -> bytes:
        out = bytearray(_T_SIZE)
        struct.pack_into("<IIIIII", out, 0, self.xcr0, self.touch, self.mxcsr, self.pkru, self.fcw, len(self.extra_st))
        struct.pack_into("<8Q", out, _T_OPMASK, *self.opmask)
        out[_T_TILECFG : _T_TILECFG + 64] = self.tilecfg
        for i, (mantissa, exponent) in enumerate(self.extra_st):
            struct.pack_into("<QH", out, _T_ST + 16 * i, mantissa, exponent)
        out[_T_ZMM : _T_ZMM + 2048] = b"".join(self.zmm)
        out[_T_TILES:] = b"".join(self.tiles)
        return bytes(out)


def distinct_pattern(vcpu: int, *, xcr0: int = ALL, touch: int = ALL) -> VcpuPattern:
    """Return a pattern in which every register of every vCPU below 16 has a value of its own.

    Byte b of ZMMn of vCPU v is hash-like but easy to read in a dump: its 8-byte words are
    0xVVNN5A0W_xxxxxxxx with V = vCPU + 1, N = register, W = word, so a swap of vCPUs, registers or words shows.
    """
    if not 0 <= vcpu < MAX_VCPUS:
        raise ValueError(f"vcpu {vcpu} is not in 0..{MAX_VCPUS - 1}")

    def words(register: int, count: int) -> bytes:
        out = bytearray()
        for word in range(count):
            high = (vcpu + 1) << 24 | register << 16 | 0x5A00 | word
            out += struct.pack("<Q", high << 32 | (high * 0x9E3779B1 & 0xFFFFFFFF))
        return bytes(out)

    return VcpuPattern(
        xcr0=xcr0,
        touch=touch,
        # Rounding mode and precision differ, all exceptions stay masked.
        fcw=(0x037F, 0x027F, 0x0F7F, 0x0B7F)[vcpu % 4],
        # vCPU 0: FTZ, DAZ, all masks; others: default, then rounding up, then down.
        mxcsr=(0x9FC0, 0x1F80, 0x5F80, 0x3FA0)[vcpu % 4],
        pkru=0x55550000 | (vcpu + 1) << 2,
        extra_st=tuple((0x8000000000000000 | (vcpu + 1) << 32 | i + 1, 0x4001 + i) for i in range(vcpu % 4)),
        zmm=tuple(words(register, 8) for register in range(32)),
        opmask=tuple((vcpu + 1) << 56 | (k + 1) << 40 | 0x5A5A0000 + k for k in range(8)),
        tiles=tuple(words(0x80 + tile, 128) for tile in range(8)),
    )


@dataclass(frozen=True, slots=True)
class VcpuStatus:
    """One vCPU's record at `STATUS`, as the guest wrote it."""

    spinning: bool
    xcr0: int
    loaded: int
    """XCR0 & touch: the components it loaded."""
    cpuid_xcr0: int
    """CPUID.(0DH,0).EAX as the guest sees it; 0 without XSAVE."""
    saves: int
    """Rounds of the self-save loop, modulo 2**32."""

    @classmethod
    def parse(cls, raw: bytes) -> "VcpuStatus":
        """Read the record from its STATUS_SIZE bytes."""
        magic, xcr0, loaded, cpuid_xcr0, saves = struct.unpack_from("<5I", raw)
        return cls(magic == STATUS_MAGIC, xcr0, loaded, cpuid_xcr0, saves)


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction of the image: where it is, its bytes and its text in objdump's words."""

    address: int
    code: bytes
    text: str
    bits: int


class Emitter:
    """Machine code with labels.

    `emit("e9 {spin:rel32}", "jmp {spin}")`: `{label:abs32}`, `{label:abs16}`, `{label:rel32}` and `{label:rel8}` stand
    for that many bits; rel is relative to the end of the instruction. In the text `{label}` is the address in hex.
    """

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self.labels: dict[str, int] = {}
        self.bits = 32
        self._out = bytearray()
        self._lines: list[tuple[int, int, str, str, int]] = []  # address, length, template, text, bits

    @property
    def here(self) -> int:
        """The address of the next byte."""
        return self.origin + len(self._out)

    def label(self, name: str) -> None:
        """Name the next byte's address."""
        self.labels[name] = self.here

    def define(self, name: str, value: int) -> None:
        """Give a constant a name for use in templates."""
        self.labels[name] = value

    def data(self, raw: bytes, align: int = 1) -> None:
        """Place bytes that are not code."""
        self._out += bytes(-len(self._out) % align) + raw

    def emit(self, template: str, text: str) -> None:
        """Add one instruction."""
        size = 0
        for token in template.split():
            size += {"abs32}": 4, "rel32}": 4, "abs16}": 2, "rel8}": 1}[token.split(":")[1]] if ":" in token else 1
        self._lines.append((self.here, size, template, text, self.bits))
        self._out += bytes(size)

    def finish(self) -> tuple[bytes, list[Line]]:
        """Resolve the labels; return the image and its listing."""
        lines = []
        for address, size, template, text, bits in self._lines:
            code = b""
            for token in template.split():
                if not token.startswith("{"):
                    code += bytes.fromhex(token)
                    continue
                name, kind = token.strip("{}").split(":")
                value = self.labels[name]
                if kind.startswith("rel"):
                    value -= address + size
                width = int(kind[3:]) // 8
                code += value.to_bytes(width, "little", signed=kind.startswith("rel"))
            at = address - self.origin
            self._out[at : at + size] = code
            words = re.sub(r"\{(\w+)\}", lambda match: f"{self.labels[match[1]]:#x}", text)
            lines.append(Line(address, code, words, bits))
        return bytes(self._out), lines


_GDT = (
    0,
    0x00CF9A000000FFFF,  # 08: 32-bit code
    0x00CF92000000FFFF,  # 10: data
    0x00AF9A000000FFFF,  # 18: 64-bit code
    0x00CFF2000000FFFF,  # 20: data, DPL 3
    0x00AFFA000000FFFF,  # 28: 64-bit code, DPL 3
)


def _disp32(value: int) -> str:
    return struct.pack("<I", value).hex(" ")


def _protected_mode(e: Emitter) -> None:
    """Boot vCPU from the entry point; the others join at start32 from the trampoline."""
    e.label("entry")
    e.emit("fa", "cli")
    e.emit("be {trampoline:abs32}", "mov esi,{trampoline}")
    e.emit("bf {trampoline_at:abs32}", "mov edi,{trampoline_at}")
    e.emit("b9 {trampoline_size:abs32}", "mov ecx,{trampoline_size}")
    e.emit("f3 a4", "rep movs BYTE PTR es:[edi],BYTE PTR ds:[esi]")
    e.emit("0f 01 15 {gdtr:abs32}", "lgdtd ds:{gdtr}")
    e.emit("ea {start32:abs32} 08 00", "jmp 0x8:{start32}")
    e.label("start32")
    e.emit("66 b8 10 00", "mov ax,0x10")
    e.emit("8e d8", "mov ds,eax")
    e.emit("8e c0", "mov es,eax")
    e.emit("8e d0", "mov ss,eax")
    e.emit("0f 20 e0", "mov eax,cr4")
    e.emit("83 c8 20", "or eax,0x20")  # PAE
    e.emit("0f 22 e0", "mov cr4,eax")
    e.emit("b8 {pml4:abs32}", "mov eax,{pml4}")
    e.emit("0f 22 d8", "mov cr3,eax")
    e.emit("b9 80 00 00 c0", "mov ecx,0xc0000080")  # IA32_EFER
    e.emit("0f 32", "rdmsr")
    e.emit("0d 00 01 00 00", "or eax,0x100")  # LME
    e.emit("0f 30", "wrmsr")
    e.emit("0f 20 c0", "mov eax,cr0")
    e.emit("0d 01 00 00 80", "or eax,0x80000001")  # PG, PE
    e.emit("0f 22 c0", "mov cr0,eax")
    e.emit("ea {long64:abs32} 18 00", "jmp 0x18:{long64}")


def _start_others(e: Emitter) -> None:
    """The boot vCPU sends INIT, SIPI, SIPI to all but itself (ICR shorthand 3)."""
    e.emit("b9 1b 00 00 00", "mov ecx,0x1b")  # IA32_APIC_BASE
    e.emit("0f 32", "rdmsr")
    e.emit("f6 c4 01", "test ah,0x1")  # BSP
    e.emit("0f 84 {enable:rel32}", "je {enable}")
    e.emit("bf 00 00 e0 fe", "mov edi,0xfee00000")
    e.emit("81 8f f0 00 00 00 00 01 00 00", "or DWORD PTR [rdi+0xf0],0x100")  # the APIC's software enable
    for i, command in enumerate((0x000C4500, 0x000C4600 | TRAMPOLINE >> 12, 0x000C4600 | TRAMPOLINE >> 12)):
        e.emit(
            f"c7 87 00 03 00 00 {_disp32(command)}",
            f"mov DWORD PTR [rdi+0x300],{command:#x}",
        )
        e.emit("b9 00 01 00 00", "mov ecx,0x100")
        e.label(f"delay{i}")
        e.emit("f3 90", "pause")
        e.emit("ff c9", "dec ecx")
        e.emit(f"75 {{delay{i}:rel8}}", f"jne {{delay{i}}}")


def _enable(e: Emitter) -> None:
    """SSE, OSXSAVE, XCR0, PKE; leaves XCR0 in r13d, CPUID's mask in ebp, XCR0 & touch in r15d."""
    e.label("enable")
    e.emit("0f 20 c0", "mov rax,cr0")
    e.emit("83 e0 f3", "and eax,0xfffffff3")  # EM, TS off
    e.emit("83 c8 22", "or eax,0x22")  # NE, MP
    e.emit("0f 22 c0", "mov cr0,rax")
    e.emit("0f 20 e0", "mov rax,cr4")
    e.emit("0d 00 06 00 00", "or eax,0x600")  # OSFXSR, OSXMMEXCPT
    e.emit("0f 22 e0", "mov cr4,rax")
    e.emit("41 bd 03 00 00 00", "mov r13d,0x3")  # without XSAVE: x87 and SSE
    e.emit("31 ed", "xor ebp,ebp")
    e.emit("41 0f ba e0 1a", "bt r8d,0x1a")  # CPUID.1:ECX.XSAVE
    e.emit("73 {have_xcr0:rel8}", "jae {have_xcr0}")
    e.emit("0f 20 e0", "mov rax,cr4")
    e.emit("0d 00 00 04 00", "or eax,0x40000")  # OSXSAVE
    e.emit("0f 22 e0", "mov cr4,rax")
    e.emit("b8 0d 00 00 00", "mov eax,0xd")
    e.emit("31 c9", "xor ecx,ecx")
    e.emit("0f a2", "cpuid")
    e.emit("89 c5", "mov ebp,eax")
    e.emit("41 23 06", "and eax,DWORD PTR [r14]")
    e.emit("41 89 c5", "mov r13d,eax")
    e.emit("31 d2", "xor edx,edx")
    e.emit("31 c9", "xor ecx,ecx")
    e.emit("0f 01 d1", "xsetbv")
    e.label("have_xcr0")
    e.emit("45 8b 7e 04", "mov r15d,DWORD PTR [r14+0x4]")
    e.emit("45 21 ef", "and r15d,r13d")
    e.emit("41 0f ba e5 09", "bt r13d,0x9")
    e.emit("73 {ring3_entry:rel8}", "jae {ring3_entry}")
    e.emit("0f 20 e0", "mov rax,cr4")
    e.emit("0d 00 00 40 00", "or eax,0x400000")  # PKE
    e.emit("0f 22 e0", "mov cr4,rax")
    e.label("ring3_entry")


def _enter_ring3(e: Emitter) -> None:
    """IRETQ to CPL 3 on the vCPU's own stack, interrupts off."""
    e.emit("44 89 e4", "mov esp,r12d")
    e.emit("c1 e4 08", "shl esp,0x8")
    e.emit("81 c4 {stacks:abs32}", "add esp,{stacks}")
    e.emit("6a 23", "push 0x23")  # SS
    e.emit("54", "push rsp")
    e.emit("6a 02", "push 0x2")  # RFLAGS
    e.emit("6a 2b", "push 0x2b")  # CS
    e.emit("68 {ring3:abs32}", "push {ring3}")
    e.emit("48 cf", "iretq")
    e.label("ring3")


def _load_legacy(e: Emitter) -> None:
    """x87, then MXCSR and XMM0-15."""
    e.emit("41 f6 c7 01", "test r15b,0x1")
    e.emit("74 {sse:rel8}", "je {sse}")
    e.emit("db e3", "fninit")
    e.emit("d9 eb", "fldpi")
    e.emit("d9 e8", "fld1")
    e.emit("d9 ea", "fldl2e")
    e.emit("41 8b 4e 14", "mov ecx,DWORD PTR [r14+0x14]")
    e.emit("49 8d b6 00 01 00 00", "lea rsi,[r14+0x100]")
    e.label("next_st")
    e.emit("85 c9", "test ecx,ecx")
    e.emit("74 {fcw:rel8}", "je {fcw}")
    e.emit("db 2e", "fld TBYTE PTR [rsi]")
    e.emit("48 83 c6 10", "add rsi,0x10")
    e.emit("ff c9", "dec ecx")
    e.emit("eb {next_st:rel8}", "jmp {next_st}")
    e.label("fcw")  # last: rounding control would change what FLDPI loads
    e.emit("41 d9 6e 10", "fldcw WORD PTR [r14+0x10]")
    e.label("sse")
    e.emit("41 f6 c7 02", "test r15b,0x2")
    e.emit("0f 84 {avx:rel32}", "je {avx}")
    e.emit("41 0f ae 56 08", "ldmxcsr DWORD PTR [r14+0x8]")
    for n in range(16):
        offset = _T_ZMM + 64 * n
        rex, modrm = (0x45, 0x86 | (n - 8) << 3) if n >= 8 else (0x41, 0x86 | n << 3)
        e.emit(f"{rex:02x} 0f 10 {modrm:02x} {_disp32(offset)}", f"movups xmm{n},XMMWORD PTR [r14+{offset:#x}]")


def _load_vectors(e: Emitter) -> None:
    """YMM0-15; ZMM0-31 and k0-k7."""
    e.label("avx")
    e.emit("41 f6 c7 04", "test r15b,0x4")
    e.emit("0f 84 {avx512:rel32}", "je {avx512}")
    for n in range(16):
        offset = _T_ZMM + 64 * n
        # VEX.256.0F.WIG 10 /r: byte 1 is R' X' B' mmmmm with R, X, B inverted (B = 0 for r14), byte 2 W vvvv L pp.
        byte1 = (0x80 if n < 8 else 0) | 0x41
        e.emit(
            f"c4 {byte1:02x} 7c 10 {0x86 | n % 8 << 3:02x} {_disp32(offset)}",
            f"vmovups ymm{n},YMMWORD PTR [r14+{offset:#x}]",
        )
    e.label("avx512")
    e.emit("44 89 f8", "mov eax,r15d")
    e.emit("25 e0 00 00 00", "and eax,0xe0")
    e.emit("3d e0 00 00 00", "cmp eax,0xe0")
    e.emit("0f 85 {pkru:rel32}", "jne {pkru}")
    for n in range(32):
        offset = _T_ZMM + 64 * n
        # EVEX.512.0F.W0 10 /r: P0 = R' X' B' R2' 0 mmm, all four inverted; disp8 is scaled by 64, so a disp32 is used.
        p0 = (0 if n & 8 else 0x80) | 0x40 | (0 if n & 16 else 0x10) | 0x01
        e.emit(
            f"62 {p0:02x} 7c 48 10 {0x86 | n % 8 << 3:02x} {_disp32(offset)}",
            f"vmovups zmm{n},ZMMWORD PTR [r14+{offset:#x}]",
        )
    e.emit("b8 07 00 00 00", "mov eax,0x7")
    e.emit("31 c9", "xor ecx,ecx")
    e.emit("0f a2", "cpuid")
    e.emit("0f ba e3 1e", "bt ebx,0x1e")  # AVX512BW has KMOVQ
    e.emit("73 {pkru:rel8}", "jae {pkru}")
    for n in range(8):
        offset = _T_OPMASK + 8 * n
        # VEX.L0.0F.W1 90 /r
        modrm = 0x46 | n << 3
        e.emit(f"c4 c1 f8 90 {modrm:02x} {offset:02x}", f"kmovq k{n},QWORD PTR [r14+{offset:#x}]")


def _load_rest(e: Emitter) -> None:
    """PKRU, TILECFG and the tiles."""
    e.label("pkru")
    e.emit("41 0f ba e7 09", "bt r15d,0x9")
    e.emit("73 {amx:rel8}", "jae {amx}")
    e.emit("41 8b 46 0c", "mov eax,DWORD PTR [r14+0xc]")
    e.emit("31 c9", "xor ecx,ecx")
    e.emit("31 d2", "xor edx,edx")
    e.emit("0f 01 ef", "wrpkru")
    e.label("amx")
    e.emit("41 0f ba e7 12", "bt r15d,0x12")
    e.emit("73 {done:rel8}", "jae {done}")
    e.emit("c4 c2 78 49 86 80 00 00 00", "ldtilecfg [r14+0x80]")
    e.emit("bb 40 00 00 00", "mov ebx,0x40")
    for n in range(8):
        offset = _T_TILES + 1024 * n
        # VEX.128.F2.0F38.W0 4B !(11):rrr:100, SIB = rbx*1 + r14
        e.emit(
            f"c4 c2 7b 4b {0x84 | n << 3:02x} 1e {_disp32(offset)}",
            f"tileloadd tmm{n},[r14+rbx*1+{offset:#x}]",
        )


def _spin(e: Emitter, *, self_save: bool) -> None:
    """Tell that all is loaded, then spin."""
    e.label("done")
    e.emit("45 89 69 04", "mov DWORD PTR [r9+0x4],r13d")
    e.emit("45 89 79 08", "mov DWORD PTR [r9+0x8],r15d")
    e.emit("41 89 69 0c", "mov DWORD PTR [r9+0xc],ebp")
    e.emit(f"41 c7 01 {_disp32(STATUS_MAGIC)}", f"mov DWORD PTR [r9],{STATUS_MAGIC:#x}")
    e.label("spin")
    e.emit("f3 90", "pause")
    if self_save:
        e.emit("85 ed", "test ebp,ebp")  # no XSAVE, no self-save
        e.emit("74 {spin:rel8}", "je {spin}")
        e.emit("b8 ff ff ff ff", "mov eax,0xffffffff")
        e.emit("ba ff ff ff ff", "mov edx,0xffffffff")
        e.emit("49 0f ae 22", "xsave64 [r10]")
        e.emit("41 ff 41 10", "inc DWORD PTR [r9+0x10]")
    e.emit("eb {spin:rel8}", "jmp {spin}")


def _long_mode(e: Emitter, vcpus: int, *, self_save: bool) -> None:
    """r8d = CPUID.1:ECX, r9 = status record, r10 = save area, r12d = APIC ID, r14 = pattern table."""
    e.bits = 64
    e.label("long64")
    e.emit("b8 01 00 00 00", "mov eax,0x1")
    e.emit("0f a2", "cpuid")
    e.emit("41 89 c8", "mov r8d,ecx")
    e.emit("c1 eb 18", "shr ebx,0x18")
    e.emit("41 89 dc", "mov r12d,ebx")
    e.label("check_id")
    e.emit(f"83 fb {vcpus:02x}", f"cmp ebx,{vcpus:#x}")
    e.emit("73 {check_id:rel8}", "jae {check_id}")  # no pattern for this one: stay here
    e.emit(f"45 69 f4 {_disp32(_T_SIZE)}", f"imul r14d,r12d,{_T_SIZE:#x}")
    e.emit("49 81 c6 {tables:abs32}", "add r14,{tables}")
    e.emit("45 69 cc 40 00 00 00", f"imul r9d,r12d,{STATUS_SIZE:#x}")
    e.emit("49 81 c1 {status:abs32}", "add r9,{status}")
    e.emit(f"45 69 d4 {_disp32(SAVE_AREA_SIZE)}", f"imul r10d,r12d,{SAVE_AREA_SIZE:#x}")
    e.emit("49 81 c2 {save_area:abs32}", "add r10,{save_area}")
    _start_others(e)
    _enable(e)
    _enter_ring3(e)
    _load_legacy(e)
    _load_vectors(e)
    _load_rest(e)
    _spin(e, self_save=self_save)


def _trampoline(gdtr: bytes, start32: int) -> tuple[bytes, list[Line]]:
    """The other vCPUs' way from real mode (CS:IP = 0800:0000) into protected mode."""
    t = Emitter(TRAMPOLINE)
    t.bits = 16
    t.define("start32", start32)
    t.emit("fa", "cli")
    t.emit("31 c0", "xor ax,ax")
    t.emit("8e d8", "mov ds,ax")
    t.emit("66 0f 01 16 {gdtr:abs16}", "lgdtd ds:{gdtr}")
    t.emit("0f 20 c0", "mov eax,cr0")
    t.emit("0c 01", "or al,0x1")
    t.emit("0f 22 c0", "mov cr0,eax")
    t.emit("66 ea {start32:abs32} 08 00", "jmp 0x8:{start32}")
    t.label("gdtr")
    t.data(gdtr)
    return t.finish()


def _page_tables(at: int) -> bytes:
    """Identity map of 0..1 GiB and 3..4 GiB (the APIC) by 2 MiB pages; four pages: PML4, PDPT, PD, PD."""
    pml4, pdpt, low, high = (bytearray(_PAGE) for _ in range(4))
    struct.pack_into("<Q", pml4, 0, at + _PAGE | 7)
    struct.pack_into("<Q", pdpt, 0, at + 2 * _PAGE | 7)
    struct.pack_into("<Q", pdpt, 24, at + 3 * _PAGE | 7)
    for i in range(512):
        struct.pack_into("<Q", low, 8 * i, i << 21 | 0x87)
        struct.pack_into("<Q", high, 8 * i, 3 << 30 | i << 21 | 0x93)  # uncached
    return bytes(pml4 + pdpt + low + high)


def assemble(patterns: Sequence[VcpuPattern], *, self_save: bool = False) -> tuple[bytes, list[Line]]:
    """Return the image of `build_guest` and its listing."""
    if not 1 <= len(patterns) <= MAX_VCPUS:
        raise ValueError(f"{len(patterns)} patterns: 1 to {MAX_VCPUS} are possible")
    e = Emitter(LOAD_ADDRESS)
    e.data(bytes(32))  # the multiboot header, filled in below
    _protected_mode(e)
    _long_mode(e, len(patterns), self_save=self_save)
    e.data(b"", align=16)
    gdt_at = e.here
    e.data(struct.pack("<6Q", *_GDT))
    e.label("gdtr")
    gdtr = struct.pack("<HI", 8 * len(_GDT) - 1, gdt_at)
    e.data(gdtr)
    trampoline, trampoline_lines = _trampoline(gdtr, e.labels["start32"])
    e.label("trampoline")
    e.data(trampoline)
    e.define("trampoline_at", TRAMPOLINE)
    e.define("trampoline_size", len(trampoline))
    e.define("status", STATUS)
    e.define("save_area", SAVE_AREA)
    e.define("stacks", STATUS + MAX_VCPUS * STATUS_SIZE + 0x100)
    e.data(b"", align=_PAGE)
    e.label("pml4")
    e.data(_page_tables(e.here))
    e.label("tables")
    for pattern in patterns:
        e.data(pattern._table())
    code, listing = e.finish()
    end = LOAD_ADDRESS + len(code)
    if end > STATUS:
        raise ValueError("the image reaches into the status records")
    header = struct.pack(
        "<8I",
        _MULTIBOOT_MAGIC,
        _MULTIBOOT_AOUT,
        -(_MULTIBOOT_MAGIC + _MULTIBOOT_AOUT) & 0xFFFFFFFF,
        LOAD_ADDRESS,  # where this header is
        LOAD_ADDRESS,  # load_addr
        end,  # load_end_addr
        STATUS + 2 * _PAGE,  # bss_end_addr: status records and stacks
        e.labels["entry"],
    )
    return header + code[32:], [*listing, *trampoline_lines]


def build_guest(patterns: Sequence[VcpuPattern], *, self_save: bool = False) -> bytes:
    """Return a multiboot image in which vCPU i loads patterns[i] and spins.

    `patterns` must have one entry per vCPU of the machine; a vCPU beyond them spins without a status record. The
    machine needs 4 MiB of RAM or more, a CPU with long mode, and xAPIC mode at its reset address. With `self_save`
    each vCPU XSAVEs its state (standard format, mask all ones, XCR0's layout in the CPUID it sees) at
    SAVE_AREA + vcpu * SAVE_AREA_SIZE, over and over.
    """
    return assemble(patterns, self_save=self_save)[0]
