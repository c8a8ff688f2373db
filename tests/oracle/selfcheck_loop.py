"""One round of the self-checking guest of selfcheck.py: compare every register with what it was loaded from.

The code reads the registers by instructions that change nothing but the next free x87 register and the condition
codes, so that a check never repairs what it looks at. (TOP is one less for moments.) It addresses all memory
absolutely and has RAX, RCX and RDX to itself.
"""

import enum
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from tests.oracle import guest
from tests.oracle.guest import Emitter, VcpuPattern

RECORD = guest.STATUS
USER_STACK = RECORD + 0x4000
CHECKED_PORT = 0x80  # POST codes: nothing listens
# (name, its number in an instruction)
GENERAL = (("rbx", 3), ("rbp", 5), ("rsi", 6), ("rdi", 7), *((f"r{n}", n) for n in range(8, 16)))

_SEEN = RECORD + 0x1000  # copies of the registers: 64 bytes per vector register, then 16 per x87 register
_SEEN_ST = _SEEN + 0x400
_SEEN_FCW = _SEEN + 0x500
_SEEN_MXCSR = _SEEN + 0x504
_SEEN_ENV = _SEEN + 0x510  # what FNSTENV stores, 28 bytes


class Error(enum.IntFlag):
    """What the guest found wrong."""

    X87 = 0x01
    """ST(i), FSW (but the condition codes) or which registers are empty."""
    CONTROL = 0x02
    """FCW or MXCSR."""
    XMM = 0x04
    YMM = 0x08
    """The upper halves."""
    EXCEPTION = 0x10
    """The CPU raised an exception; nothing runs after it."""
    XCR0 = 0x20
    """Bits that the guest had set are missing; YMM is not looked at then."""
    GENERAL = 0x40
    """A general register."""
    TSC = 0x80
    """RDTSC went back."""


def dword(value: int) -> str:
    """Return a 32-bit number as the emitter wants it."""
    return struct.pack("<I", value).hex(" ")


def general(e: Emitter, opcode: int, mnemonic: str, name: str, number: int) -> None:
    """MOV or CMP of a general register with its place in the image, `want_NAME`."""
    code = f"{0x4C if number & 8 else 0x48:02x} {opcode:02x} {number % 8 << 3 | 4:02x} 25 {{want_{name}:abs32}}"
    e.emit(code, f"{mnemonic} {name},QWORD PTR ds:{{want_{name}}}")


class _Checks:
    """The checks of one round; the branches that record an error follow the loop."""

    def __init__(self, e: Emitter) -> None:
        self._e = e
        self._failures: list[tuple[str, Error, str]] = []

    @contextmanager
    def check(self, error: Error, *, on_failure: str | None = None) -> Iterator[str]:
        """Emit a check whose code jumps to the label given if there is an error; then go on, or at `on_failure`."""
        name = f"bad{len(self._failures)}"
        after = f"after_{name}"
        yield name
        self._e.label(after)
        self._failures.append((name, error, on_failure or after))

    def unequal(self, name: str) -> None:
        """Jump if the last comparison was unequal."""
        self._e.emit(f"0f 85 {{{name}:rel32}}", f"jne {{{name}}}")

    def compare(self, name: str, seen: int, want: str, stride: int, count: int) -> None:
        """Compare 16 bytes at each of `count` places in two tables; `want` and `want`_high are labels."""
        e, loop = self._e, f"loop_{name}"
        e.emit("31 c9", "xor ecx,ecx")
        e.label(loop)
        for at, label in ((seen, want), (seen + 8, f"{want}_high")):
            e.emit(f"48 8b 81 {dword(at)}", f"mov rax,QWORD PTR [rcx+{at:#x}]")
            e.emit(f"48 3b 81 {{{label}:abs32}}", f"cmp rax,QWORD PTR [rcx+{{{label}}}]")
            self.unequal(name)
        e.emit(f"83 c1 {stride:02x}", f"add ecx,{stride:#x}")
        e.emit(f"81 f9 {dword(stride * count)}", f"cmp ecx,{stride * count:#x}")
        e.emit(f"0f 85 {{{loop}:rel32}}", f"jne {{{loop}}}")

    def failures(self) -> None:
        """Emit what the failed checks jump to."""
        for name, error, after in self._failures:
            self._e.label(name)
            self._e.emit(f"81 0c 25 {{errors:abs32}} {dword(error)}", f"or DWORD PTR ds:{{errors}},{error:#x}")
            self._e.emit(f"e9 {{{after}:rel32}}", f"jmp {{{after}}}")


def _check_x87(e: Emitter, checks: _Checks, pattern: VcpuPattern) -> None:
    with checks.check(Error.X87) as bad:
        # This would mask all exceptions, but FCW has them masked.
        e.emit(f"d9 34 25 {dword(_SEEN_ENV)}", f"fnstenv ds:{_SEEN_ENV:#x}")
        tags = (1 << 2 * pattern.top) - 1  # empty: 3, normal number: 0; two bits each, by physical register
        for at, mask, value in ((_SEEN_ENV + 4, 0xB8FF, pattern.top << 11), (_SEEN_ENV + 8, 0xFFFF, tags)):
            e.emit(f"8b 04 25 {dword(at)}", f"mov eax,DWORD PTR ds:{at:#x}")
            e.emit(f"25 {dword(mask)}", f"and eax,{mask:#x}")  # FSW: all but C0-C3
            e.emit(f"3d {dword(value)}", f"cmp eax,{value:#x}")
            checks.unequal(bad)
        for i in range(len(pattern.st)):
            at = _SEEN_ST + 16 * i
            e.emit(f"d9 {0xC0 + i:02x}", f"fld st({i})")
            e.emit(f"db 3c 25 {dword(at)}", f"fstp TBYTE PTR ds:{at:#x}")
        checks.compare(bad, _SEEN_ST, "want_st", 16, len(pattern.st))


def _check_vectors(e: Emitter, checks: _Checks) -> None:
    """XMM; XCR0 and YMM, where there are any."""
    with checks.check(Error.XMM) as bad:
        for n in range(16):
            at, prefix = _SEEN + 64 * n, "44 " if n >= 8 else ""
            e.emit(f"{prefix}0f 11 {n % 8 << 3 | 4:02x} 25 {dword(at)}", f"movups XMMWORD PTR ds:{at:#x},xmm{n}")
        checks.compare(bad, _SEEN, "want_xmm", 64, 16)
    e.emit(f"f6 04 25 {{checks:abs32}} {Error.XCR0:02x}", f"test BYTE PTR ds:{{checks}},{Error.XCR0:#x}")
    e.emit("0f 84 {vectors_checked:rel32}", "je {vectors_checked}")
    with checks.check(Error.XCR0, on_failure="vectors_checked") as bad:
        e.emit("31 c9", "xor ecx,ecx")
        e.emit("0f 01 d0", "xgetbv")
        e.emit("23 04 25 {xcr0:abs32}", "and eax,DWORD PTR ds:{xcr0}")
        e.emit("3b 04 25 {xcr0:abs32}", "cmp eax,DWORD PTR ds:{xcr0}")
        checks.unequal(bad)
    e.emit(f"f6 04 25 {{checks:abs32}} {Error.YMM:02x}", f"test BYTE PTR ds:{{checks}},{Error.YMM:#x}")
    e.emit("0f 84 {vectors_checked:rel32}", "je {vectors_checked}")
    with checks.check(Error.YMM) as bad:
        for n in range(16):
            at, vex = _SEEN + 64 * n, "c5 7c" if n >= 8 else "c5 fc"
            e.emit(f"{vex} 11 {n % 8 << 3 | 4:02x} 25 {dword(at)}", f"vmovups YMMWORD PTR ds:{at:#x},ymm{n}")
        checks.compare(bad, _SEEN + 16, "want_ymm", 64, 16)
    e.label("vectors_checked")


def check_loop(e: Emitter, pattern: VcpuPattern) -> None:
    """Emit the endless loop.

    Labels that it needs: `checks`, `errors`, `last_tick`, `rounds`, `ticks`, `tsc`, `xcr0` in the record; `want_st`,
    `want_xmm`, `want_ymm`, each with `_high` 8 bytes further, and `want_NAME` for each of GENERAL in the image.
    """
    checks = _Checks(e)
    e.label("round")
    e.emit("f3 90", "pause")
    e.emit("8b 04 25 {ticks:abs32}", "mov eax,DWORD PTR ds:{ticks}")
    e.emit("3b 04 25 {last_tick:abs32}", "cmp eax,DWORD PTR ds:{last_tick}")
    e.emit("74 {no_tick:rel8}", "je {no_tick}")
    e.emit("89 04 25 {last_tick:abs32}", "mov DWORD PTR ds:{last_tick},eax")
    e.emit(f"e6 {CHECKED_PORT:02x}", f"out {CHECKED_PORT:#x},al")
    e.label("no_tick")
    with checks.check(Error.GENERAL) as bad:
        e.emit(f"48 81 fc {dword(USER_STACK)}", f"cmp rsp,{USER_STACK:#x}")
        checks.unequal(bad)
        for name, number in GENERAL:
            general(e, 0x3B, "cmp", name, number)
            checks.unequal(bad)
    with checks.check(Error.CONTROL) as bad:
        e.emit(f"d9 3c 25 {dword(_SEEN_FCW)}", f"fnstcw WORD PTR ds:{_SEEN_FCW:#x}")
        e.emit(f"0f ae 1c 25 {dword(_SEEN_MXCSR)}", f"stmxcsr DWORD PTR ds:{_SEEN_MXCSR:#x}")
        for at, value in ((_SEEN_FCW, pattern.fcw), (_SEEN_MXCSR, pattern.mxcsr)):
            # A word and a doubleword: what follows FCW is zero.
            e.emit(f"81 3c 25 {dword(at)} {dword(value)}", f"cmp DWORD PTR ds:{at:#x},{value:#x}")
            checks.unequal(bad)
    _check_x87(e, checks, pattern)
    _check_vectors(e, checks)
    with checks.check(Error.TSC) as bad:
        e.emit("0f 31", "rdtsc")
        e.emit("48 c1 e2 20", "shl rdx,0x20")
        e.emit("48 09 d0", "or rax,rdx")
        e.emit("48 87 04 25 {tsc:abs32}", "xchg QWORD PTR ds:{tsc},rax")
        e.emit("48 39 04 25 {tsc:abs32}", "cmp QWORD PTR ds:{tsc},rax")
        e.emit(f"0f 82 {{{bad}:rel32}}", f"jb {{{bad}}}")
    e.emit("ff 04 25 {rounds:abs32}", "inc DWORD PTR ds:{rounds}")
    e.emit("e9 {round:rel32}", "jmp {round}")
    checks.failures()
