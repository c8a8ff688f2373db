"""A bare-metal guest that checks its own registers for ever, while the PIT interrupts it: does it survive a migration?

`build_selfcheck` returns a multiboot image like those of guest.py, made of the same parts. Only the boot vCPU runs it;
the others stay where SeaBIOS left them (HLT, interrupts off) or, with `park`, wait for a SIPI.

What the image does
1. Ring 0: IDT, TSS, PICs (IRQ 0 alone, vector 0x20), PIT channel 0 in mode 2 at 100 Hz, SSE, and XCR0 = the requested
   bits & CPUID's. The tick's handler counts and writes EOI; that of a CPU exception notes vector, error code and RIP,
   and halts for good.
2. Ring 3, interrupts on: it loads x87 (five registers, TOP = 3), FCW, MXCSR, XMM0-15, the upper halves of YMM0-15 and
   twelve general registers, then compares them in a loop with what they were loaded from (selfcheck_loop.py). After
   each tick it writes port 0x80, which the TSS's I/O bitmap allows, so the TSS must have survived, too. (Ring 3, for
   the reason that guest.py gives.)
3. `SelfCheckStatus` is the record that it keeps at `RECORD`. Errors are never taken back.

Ticks stop without an error where the timer does not survive; rounds stop where the vCPU does not run.

KVM without hardware virtualisation shows ring 3 the *host's* TSC and XCR0. The TSC may therefore leap forward, and
XCR0 may have more bits than the guest set: only what is missing is an error.
"""

import struct
import time
from dataclasses import dataclass, replace

from tests.oracle import guest
from tests.oracle.guest import Emitter, Line, VcpuPattern
from tests.oracle.selfcheck_loop import CHECKED_PORT, GENERAL, RECORD, USER_STACK, Error, check_loop, dword, general
from tests.support.qemu.machine import Qemu
from tests.support.qemu.process import QemuError

RECORD_SIZE = 64
BOOT = 60  # seconds
MAGIC = 0x4B454843  # "CHEK"
TICK_HZ = 100

PATTERN = replace(
    guest.distinct_pattern(0),
    fcw=0x0B7F,  # not what FNINIT sets: rounds up
    extra_st=((0x8000000100000001, 0x4001), (0xC000000200000003, 0xC002)),
)

_PIT_HZ = 1193182
_TICK_VECTOR = 0x20
_TSS_SELECTOR = 8 * len(guest._GDT)
_AWAKE = guest.TRAMPOLINE + 0x10  # how many others have come to the trampoline
_KERNEL_STACK = RECORD + 0x3000
_ICW4_8086 = 0x01
_WITH_ERROR_CODE = {8, 10, 11, 12, 13, 14, 17, 21, 29, 30}


@dataclass(frozen=True, slots=True)
class SelfCheckStatus:
    """The record at `RECORD`, as the guest wrote it."""

    ready: bool
    """All is loaded and the checks have begun."""
    errors: Error
    ticks: int
    """Interrupts of the PIT."""
    rounds: int
    """Times that all was checked, modulo 2**32."""
    checks: Error
    """The errors that this guest can find: YMM only with AVX, XCR0 only with XSAVE."""
    xcr0: int
    """What it set XCR0 to; 3 without XSAVE."""
    vector: int
    """With Error.EXCEPTION: which."""
    rip: int
    error_code: int
    tsc: int
    """The last one read."""

    @classmethod
    def parse(cls, raw: bytes) -> "SelfCheckStatus":
        """Read the record from its RECORD_SIZE bytes."""
        magic, errors, ticks, rounds, checks, xcr0, vector, rip, code, tsc = struct.unpack_from("<7I4x3Q", raw)
        return cls(magic == MAGIC, Error(errors), ticks, rounds, Error(checks), xcr0, vector, rip, code, tsc)


def read_status(qemu: Qemu) -> SelfCheckStatus:
    """Return the record of a guest, whether it runs or not."""
    return SelfCheckStatus.parse(qemu.pmemsave(RECORD, RECORD_SIZE))


def wait_ticks(qemu: Qemu, count: int, *, timeout: float = 5) -> SelfCheckStatus:
    """Wait until a running guest has had `count` more ticks and two more rounds; return its record then.

    It is returned early if the guest died of an exception, and after `timeout` seconds in any case: the caller
    compares. The firmware before the guest may take `BOOT` seconds: a KVM inside a VM is slow at it. A VM that is not
    running (any more), or whose guest does not begin, raises QemuError.
    """
    boot = time.monotonic() + BOOT
    while not (start := read_status(qemu)).ready:
        if (state := qemu.status()) != "running" or time.monotonic() > boot:
            raise QemuError(f"the guest does not begin: it is {state}")
        time.sleep(0.01)
    now, deadline = start, time.monotonic() + timeout
    while (now.ticks - start.ticks) % 2**32 < count or (now.rounds - start.rounds) % 2**32 < 2:
        if now.errors & Error.EXCEPTION or time.monotonic() > deadline:
            break
        if (state := qemu.status()) != "running":
            raise QemuError(f"the guest is {state}: {now}")
        time.sleep(0.01)
        now = read_status(qemu)
    return now


def _define_record(e: Emitter) -> None:
    names = ("magic", "errors", "ticks", "rounds", "checks", "xcr0", "vector", "last_tick")
    for i, name in enumerate(names):
        e.define(name, RECORD + 4 * i)
    for i, name in enumerate(("rip", "error_code", "tsc")):
        e.define(name, RECORD + 0x20 + 8 * i)


def _out(e: Emitter, port: int, value: int) -> None:
    e.emit(f"b0 {value:02x}", f"mov al,{value:#x}")
    e.emit(f"e6 {port:02x}", f"out {port:#x},al")


def _park(e: Emitter, others: int) -> None:
    """INIT-SIPI brings all others to the trampoline; when they are there, INIT makes them wait for a SIPI.

    (TCG lets an INIT alone pend on a vCPU that has halted with interrupts off, as SeaBIOS leaves them.)
    """
    e.emit("bf 00 00 e0 fe", "mov edi,0xfee00000")
    for command in (0x000C4500, 0x000C4600 | guest.TRAMPOLINE >> 12, 0x000C4500):
        e.emit(f"c7 87 00 03 00 00 {dword(command)}", f"mov DWORD PTR [rdi+0x300],{command:#x}")
        if command & 0x700 == 0x600:
            e.label("gather")
            e.emit("f3 90", "pause")
            e.emit(f"83 3c 25 {{awake:abs32}} {others:02x}", f"cmp DWORD PTR ds:{{awake}},{others:#x}")
            e.emit("75 {gather:rel8}", "jne {gather}")


def _trampoline() -> tuple[bytes, list[Line]]:
    """Where the others run in real mode (CS:IP = 0800:0000) until the last INIT."""
    t = Emitter(guest.TRAMPOLINE)
    t.bits = 16
    t.emit("f0 2e ff 06 10 00", f"lock inc WORD PTR cs:{_AWAKE - guest.TRAMPOLINE:#x}")
    t.label("here")
    t.emit("eb {here:rel8}", "jmp {here}")
    t.data(bytes(_AWAKE + 4 - t.here))
    return t.finish()


def _boot(e: Emitter, park: int) -> None:
    """Tables, interrupt controllers and timer; interrupts stay off."""
    e.bits = 64
    e.label("long64")
    e.emit(f"bc {dword(_KERNEL_STACK)}", f"mov esp,{_KERNEL_STACK:#x}")
    e.emit("0f 01 1c 25 {idtr:abs32}", "lidt ds:{idtr}")
    e.emit(f"6a {_TSS_SELECTOR:02x}", f"push {_TSS_SELECTOR:#x}")
    e.emit("0f 00 1c 24", "ltr WORD PTR [rsp]")
    if park:
        _park(e, park)
    for base, vector, cascade, mask in ((0x20, _TICK_VECTOR, 4, 0xFE), (0xA0, _TICK_VECTOR + 8, 2, 0xFF)):
        _out(e, base, 0x11)  # ICW1: edge triggered, cascaded, ICW4 follows
        for value in (vector, cascade, _ICW4_8086, mask):
            _out(e, base + 1, value)
    _out(e, 0x43, 0x34)  # channel 0, low byte then high byte, mode 2
    for byte in struct.pack("<H", round(_PIT_HZ / TICK_HZ)):
        _out(e, 0x40, byte)
    e.emit("b8 01 00 00 00", "mov eax,0x1")
    e.emit("0f a2", "cpuid")
    e.emit("41 89 c8", "mov r8d,ecx")
    e.emit("41 be {table:abs32}", "mov r14d,{table}")
    guest._enable(e)  # from r8, r14: r13d = XCR0, ebp = CPUID's XCR0, r15d = what to load
    e.emit("44 89 2c 25 {xcr0:abs32}", "mov DWORD PTR ds:{xcr0},r13d")
    always = Error.X87 | Error.CONTROL | Error.XMM | Error.EXCEPTION | Error.GENERAL | Error.TSC
    e.emit(f"b8 {dword(always)}", f"mov eax,{always:#x}")
    e.emit("85 ed", "test ebp,ebp")
    e.emit("74 {checks_known:rel8}", "je {checks_known}")
    e.emit(f"83 c8 {Error.XCR0:02x}", f"or eax,{Error.XCR0:#x}")
    e.emit("41 f6 c5 04", "test r13b,0x4")
    e.emit("74 {checks_known:rel8}", "je {checks_known}")
    e.emit(f"83 c8 {Error.YMM:02x}", f"or eax,{Error.YMM:#x}")
    e.label("checks_known")
    e.emit("89 04 25 {checks:abs32}", "mov DWORD PTR ds:{checks},eax")
    e.emit("6a 23", "push 0x23")  # SS
    e.emit(f"68 {dword(USER_STACK)}", f"push {USER_STACK:#x}")
    e.emit("68 02 02 00 00", "push 0x202")  # RFLAGS: IF
    e.emit("6a 2b", "push 0x2b")  # CS
    e.emit("68 {ring3:abs32}", "push {ring3}")
    e.emit("48 cf", "iretq")


def _load(e: Emitter) -> None:
    """Ring 3: load all registers, say so."""
    e.label("ring3")
    guest._load_legacy(e)
    guest._load_vectors(e)
    e.label("pkru")  # where the vector loads go on
    for name, number in GENERAL:
        general(e, 0x8B, "mov", name, number)
    e.emit(f"c7 04 25 {{magic:abs32}} {dword(MAGIC)}", f"mov DWORD PTR ds:{{magic}},{MAGIC:#x}")


def _handlers(e: Emitter) -> None:
    """The interrupt handlers: `vector0` to `vector31`, `tick`, and `spurious` for the PIC's IRQ 7."""
    for vector in range(_TICK_VECTOR):
        e.label(f"vector{vector}")
        if vector not in _WITH_ERROR_CODE:
            e.emit("6a 00", "push 0x0")
        e.emit(f"6a {vector:02x}", f"push {vector:#x}")
        e.emit("e9 {exception:rel32}", "jmp {exception}")
    e.label("exception")
    for name in ("vector", "error_code", "rip"):
        e.emit("58", "pop rax")
        if name == "vector":
            e.emit("89 04 25 {vector:abs32}", "mov DWORD PTR ds:{vector},eax")
        else:
            e.emit(f"48 89 04 25 {{{name}:abs32}}", f"mov QWORD PTR ds:{{{name}}},rax")
    e.emit(f"83 0c 25 {{errors:abs32}} {Error.EXCEPTION:02x}", f"or DWORD PTR ds:{{errors}},{Error.EXCEPTION:#x}")
    e.label("dead")
    e.emit("f4", "hlt")
    e.emit("eb {dead:rel8}", "jmp {dead}")
    e.label("tick")
    e.emit("ff 04 25 {ticks:abs32}", "inc DWORD PTR ds:{ticks}")
    e.emit("50", "push rax")
    _out(e, 0x20, 0x20)  # non-specific EOI
    e.emit("58", "pop rax")
    e.label("spurious")
    e.emit("48 cf", "iretq")


def _tables(e: Emitter, pattern: VcpuPattern) -> None:
    """GDT, IDT, TSS, page tables and the values to load."""
    tss = bytearray(104)
    struct.pack_into("<Q", tss, 4, _KERNEL_STACK)  # RSP0
    struct.pack_into("<H", tss, 102, len(tss))  # where the I/O bitmap is
    bitmap = bytearray(b"\xff" * (CHECKED_PORT // 8 + 2))  # and one byte of ones at its end
    bitmap[CHECKED_PORT // 8] &= ~(1 << CHECKED_PORT % 8)
    tss += bitmap
    e.data(b"", align=16)
    at = e.here
    e.data(bytes(tss))
    gdt_at = e.here
    descriptor = len(tss) - 1 | (at & 0xFFFFFF) << 16 | 0x89 << 40 | at >> 24 << 56  # available 64-bit TSS
    e.data(struct.pack(f"<{len(guest._GDT)}QQQ", *guest._GDT, descriptor, at >> 32))
    e.label("gdtr")
    e.data(struct.pack("<HI", e.here - gdt_at - 1, gdt_at))
    idt_at = e.here
    names = [*(f"vector{n}" for n in range(_TICK_VECTOR)), "tick", *["spurious"] * 7]
    for handler in (e.labels[name] for name in names):
        e.data(struct.pack("<HHHHQ", handler & 0xFFFF, 0x18, 0x8E00, handler >> 16, 0))  # interrupt gate
    e.label("idtr")
    e.data(struct.pack("<HQ", e.here - idt_at - 1, idt_at))
    e.data(b"", align=0x1000)
    e.label("pml4")
    e.data(guest._page_tables(e.here))
    e.label("table")
    for name, offset in (("want_xmm", 0), ("want_ymm", 16)):
        e.define(name, e.here + guest._T_ZMM + offset)
        e.define(f"{name}_high", e.here + guest._T_ZMM + offset + 8)
    e.data(pattern._table())
    e.define("want_st", e.here)
    e.define("want_st_high", e.here + 8)
    e.data(b"".join(struct.pack("<QH6x", *value) for value in pattern.st))
    for name, number in GENERAL:
        e.label(f"want_{name}")
        e.data(struct.pack("<Q", 0x5A000000A5000001 + (number << 32 | number)))


def assemble(*, xcr0: int = guest.X87 | guest.SSE | guest.AVX, park: int = 0) -> tuple[bytes, list[Line]]:
    """Return the image of `build_selfcheck` and its listing."""
    if not xcr0 & guest.X87 or xcr0 & ~(guest.X87 | guest.SSE | guest.AVX):
        raise ValueError(f"XCR0 {xcr0:#x}: x87 must, SSE and AVX may be in it")
    pattern = replace(PATTERN, xcr0=xcr0, touch=xcr0)
    e = Emitter(guest.LOAD_ADDRESS)
    e.data(bytes(32))  # the multiboot header, filled in below
    _define_record(e)
    trampoline, trampoline_lines = _trampoline()
    e.define("trampoline_at", guest.TRAMPOLINE)
    e.define("trampoline_size", len(trampoline))
    e.define("awake", _AWAKE)
    guest._protected_mode(e)
    _boot(e, park)
    _load(e)
    check_loop(e, pattern)
    _handlers(e)
    e.label("trampoline")
    e.data(trampoline)
    _tables(e, pattern)
    code, listing = e.finish()
    end = guest.LOAD_ADDRESS + len(code)
    magic, flags = guest._MULTIBOOT_MAGIC, guest._MULTIBOOT_AOUT
    addresses = (guest.LOAD_ADDRESS, guest.LOAD_ADDRESS, end, USER_STACK, e.labels["entry"])
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, *addresses)
    return header + code[32:], [*listing, *trampoline_lines]


def build_selfcheck(*, xcr0: int = guest.X87 | guest.SSE | guest.AVX, park: int = 0) -> bytes:
    """Return the multiboot image.

    `xcr0` is cut down to what CPUID has; give less where QEMU cannot save all that (`Qemu.usable_xcr0`). `park` is
    the number of vCPUs but one, for these to wait for a SIPI; with 0 they are halted in SeaBIOS. The machine needs
    4 MiB of RAM or more, a PIT, PICs, a CPU with long mode, and xAPIC mode at its reset address.
    """
    return assemble(xcr0=xcr0, park=park)[0]
