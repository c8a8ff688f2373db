"""XSAVE, XSAVEC and XRSTOR executed on the CPU that runs the tests.

The machine code below is called through ctypes. `restore_and_save` is the oracle: it XRSTORs an area and at once
XSAVEs (or XSAVECs) what the CPU then holds, inside one routine that first saves and in the end restores the state of
the calling thread. What would fault is asked in a child process (this file run as a script): `fault_signal`.

Masks are RFBM before the CPU ands it with XCR0. Only the standard library and Linux on x86-64 are needed;
`why_no_xsavec` says why not, and nothing here touches the CPU before a function is called.

The kernel may switch away between the XRSTOR and the XSAVE. That keeps all values, but XINUSE may become 1 for a
component in its initial configuration (or 0 for one that was restored explicitly as such): tests compare values, or
components that differ from their initial configuration.
"""

import ctypes
import functools
import mmap
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

AREA_SIZE = 0x4000  # room for every layout known (AMX: 11008 bytes)
FILL = 0xCC
LEGACY_SIZE = 512
HEADER = slice(512, 576)
XTILEDATA = 1 << 18

_SYS_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_PERM = 0x1023

# Every routine takes (rdi, rsi, rdx, rcx, r8) by the System V ABI. The code is position-independent.
CODE: dict[str, list[tuple[str, str]]] = {
    # cpuid(leaf, subleaf, uint32_t out[4])
    "cpuid": [
        ("53", "push rbx"),
        ("49 89 d0", "mov r8,rdx"),
        ("89 f8", "mov eax,edi"),
        ("89 f1", "mov ecx,esi"),
        ("0f a2", "cpuid"),
        ("41 89 00", "mov DWORD PTR [r8],eax"),
        ("41 89 58 04", "mov DWORD PTR [r8+0x4],ebx"),
        ("41 89 48 08", "mov DWORD PTR [r8+0x8],ecx"),
        ("41 89 50 0c", "mov DWORD PTR [r8+0xc],edx"),
        ("5b", "pop rbx"),
        ("c3", "ret"),
    ],
    # uint64_t xgetbv(n)
    "xgetbv": [
        ("89 f9", "mov ecx,edi"),
        ("0f 01 d0", "xgetbv"),
        ("48 c1 e2 20", "shl rdx,0x20"),
        ("48 09 d0", "or rax,rdx"),
        ("c3", "ret"),
    ],
    # xsave(area, mask)
    "xsave": [
        ("89 f0", "mov eax,esi"),
        ("48 89 f2", "mov rdx,rsi"),
        ("48 c1 ea 20", "shr rdx,0x20"),
        ("48 0f ae 27", "xsave64 [rdi]"),
        ("c3", "ret"),
    ],
    # xsavec(area, mask)
    "xsavec": [
        ("89 f0", "mov eax,esi"),
        ("48 89 f2", "mov rdx,rsi"),
        ("48 c1 ea 20", "shr rdx,0x20"),
        ("48 0f c7 27", "xsavec64 [rdi]"),
        ("c3", "ret"),
    ],
    # restore_and_xsave(host, area, out, restore_mask, save_mask)
    "restore_and_xsave": [],
    "restore_and_xsavec": [],
}


def _restore_and(save: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        ("49 89 d1", "mov r9,rdx"),
        ("b8 ff ff ff ff", "mov eax,0xffffffff"),
        ("ba ff ff ff ff", "mov edx,0xffffffff"),
        ("48 0f ae 27", "xsave64 [rdi]"),  # the caller's state
        ("89 c8", "mov eax,ecx"),
        ("48 89 ca", "mov rdx,rcx"),
        ("48 c1 ea 20", "shr rdx,0x20"),
        ("48 0f ae 2e", "xrstor64 [rsi]"),  # the state in question
        ("44 89 c0", "mov eax,r8d"),
        ("4c 89 c2", "mov rdx,r8"),
        ("48 c1 ea 20", "shr rdx,0x20"),
        save,
        ("b8 ff ff ff ff", "mov eax,0xffffffff"),
        ("ba ff ff ff ff", "mov edx,0xffffffff"),
        ("48 0f ae 2f", "xrstor64 [rdi]"),  # the caller's state again
        ("c3", "ret"),
    ]


CODE["restore_and_xsave"] = _restore_and(("49 0f ae 21", "xsave64 [r9]"))
CODE["restore_and_xsavec"] = _restore_and(("49 0f c7 21", "xsavec64 [r9]"))


class _Machine:
    """The routines, in one page that was written first and then made executable (never both at once)."""

    def __init__(self) -> None:
        self._page = mmap.mmap(
            -1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
        )
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        offsets: dict[str, int] = {}
        for name, lines in CODE.items():
            offsets[name] = self._page.tell()
            self._page.write(b"".join(bytes.fromhex(code) for code, _ in lines))
            self._page.write(bytes(-self._page.tell() % 16))
        libc = ctypes.CDLL(None, use_errno=True)
        self.syscall = libc.syscall
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if libc.mprotect(base, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
            code = ctypes.get_errno()
            raise OSError(code, f"mprotect(PROT_EXEC): {os.strerror(code)}")
        u32, u64, pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p

        def routine(name: str, result: type | None, *arguments: type) -> Callable[..., int]:
            made: Callable[..., int] = ctypes.CFUNCTYPE(result, *arguments)(base + offsets[name])
            return made

        self.cpuid = routine("cpuid", None, u32, u32, pointer)
        self.xgetbv = routine("xgetbv", u64, u32)
        self.save = {name: routine(name, None, pointer, u64) for name in ("xsave", "xsavec")}
        self.restore_and = {
            name: routine(f"restore_and_{name}", None, pointer, pointer, pointer, u64, u64)
            for name in ("xsave", "xsavec")
        }


@functools.cache
def _machine() -> _Machine:
    return _Machine()


class _Buffer:
    """AREA_SIZE bytes at a 64-byte boundary."""

    def __init__(self, content: bytes = b"", fill: int = 0) -> None:
        if len(content) > AREA_SIZE:
            raise ValueError(f"{len(content)} bytes are more than {AREA_SIZE}")
        self._raw = ctypes.create_string_buffer(AREA_SIZE + 128)
        self.address = (ctypes.addressof(self._raw) + 63) & ~63
        ctypes.memset(self.address, fill, AREA_SIZE)
        ctypes.memmove(self.address, content, len(content))

    def clear_header(self) -> None:
        ctypes.memset(self.address + LEGACY_SIZE, 0, 64)

    def bytes(self) -> bytes:
        return ctypes.string_at(self.address, AREA_SIZE)


def why_no_xsavec() -> str | None:
    """Return why XSAVE, XSAVEC and XRSTOR cannot be executed here, or None if they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or struct.calcsize("P") != 8:
        return f"{sys.platform} on {platform.machine()}, not 64-bit Linux on x86-64"
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError as error:
        return f"/proc/cpuinfo: {error.strerror}"
    flags = next((line.split(":")[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    missing = {"xsave", "xsavec", "avx"} - set(flags)
    if missing:
        return f"the CPU (or its hypervisor) lacks {', '.join(sorted(missing))}"
    try:
        _machine()
    except OSError as error:
        return f"no executable memory: {error.strerror}"
    return None


def has_xsavec() -> bool:
    """Return whether this machine can; `why_no_xsavec` has the reason."""
    return why_no_xsavec() is None


def cpuid(leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    """Return (EAX, EBX, ECX, EDX)."""
    out = (ctypes.c_uint32 * 4)()
    _machine().cpuid(leaf, subleaf, ctypes.addressof(out))
    return out[0], out[1], out[2], out[3]


def xgetbv(n: int = 0) -> int:
    """Return XCR0 (n = 0), or XCR0 & XINUSE (n = 1)."""
    return _machine().xgetbv(n)


@functools.cache
def request_amx() -> bool:
    """Ask the kernel to let this process use XTILEDATA; return whether it may."""
    if not xgetbv(0) & XTILEDATA:
        return False
    result: int = _machine().syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, 18)
    return result == 0


def usable_xcr0() -> int:
    """Return XCR0 without XTILEDATA if the kernel refuses it to this process."""
    xcr0 = xgetbv(0)
    return xcr0 if request_amx() else xcr0 & ~XTILEDATA


def components() -> dict[int, tuple[int, int, bool]]:
    """Return {bit: (size, standard offset, 64-byte aligned when compacted)} of XCR0's components 2 and above."""
    rows = {bit: cpuid(0xD, bit) for bit in range(2, 63) if xgetbv(0) >> bit & 1}
    return {bit: (eax, ebx, bool(ecx & 2)) for bit, (eax, ebx, ecx, _) in rows.items()}


def standard_size(mask: int) -> int:
    """Return the size of a standard-format area for the components in mask."""
    return max([576, *(offset + size for bit, (size, offset, _) in components().items() if mask >> bit & 1)])


def compacted_offsets(mask: int) -> tuple[dict[int, int], int]:
    """Return ({bit: offset}, size) of the compacted format with XCOMP_BV[62:0] = mask (SDM volume 1, 13.4.3)."""
    offsets, end = {}, 576
    for bit, (size, _, aligned) in sorted(components().items()):
        if mask >> bit & 1:
            offsets[bit] = (end + 63) & ~63 if aligned else end
            end = offsets[bit] + size
    return offsets, end


def _save(instruction: str, mask: int, fill: int, *, clear_header: bool) -> bytes:
    buffer = _Buffer(fill=fill)
    if clear_header:
        buffer.clear_header()
    _machine().save[instruction](buffer.address, mask)
    return buffer.bytes()


def xsave(mask: int, *, fill: int = FILL, clear_header: bool = True) -> bytes:
    """XSAVE this thread's state, whatever it is, into AREA_SIZE bytes filled beforehand.

    The header must be clear for a usable area: XSAVE keeps XSTATE_BV's bits outside RFBM and never writes the rest.
    """
    return _save("xsave", mask, fill, clear_header=clear_header)


def xsavec(mask: int, *, fill: int = FILL, clear_header: bool = True) -> bytes:
    """XSAVEC this thread's state, whatever it is, into AREA_SIZE bytes filled beforehand."""
    return _save("xsavec", mask, fill, clear_header=clear_header)


def restore_and_save(
    area: bytes,
    mask: int,
    instruction: str = "xsave",
    *,
    save_mask: int | None = None,
    fill: int = FILL,
    clear_header: bool = True,
) -> bytes:
    """XRSTOR `area` with `mask`, then `instruction` with `save_mask` (default: mask); return AREA_SIZE bytes.

    The area is copied to a 64-byte boundary and padded with zeros. Bytes that the instruction does not write are
    `fill` (the header's are 0, or also `fill` without `clear_header`). An area that XRSTOR refuses kills the process:
    ask `fault_signal` first.
    """
    if mask & XTILEDATA and not request_amx():
        raise ValueError("the kernel refuses XTILEDATA to this process")
    host, source, out = _Buffer(), _Buffer(area), _Buffer(fill=fill)
    if clear_header:
        out.clear_header()
    call = _machine().restore_and[instruction]
    call(host.address, source.address, out.address, mask, mask if save_mask is None else save_mask)
    return out.bytes()


def fault_signals(cases: Iterable[tuple[bytes, int, int]]) -> list[signal.Signals | None]:
    """For each (area, mask, misalignment), XRSTOR it in a child process; return its deadly signal, or None."""
    # A subprocess, not a fork: a fork of a process with threads (numpy's) is a warning, and may hang.
    running = []
    for area, mask, misalignment in cases:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, hex(mask), str(misalignment)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert child.stdin is not None
        with child.stdin:
            child.stdin.write(area)
        running.append(child)
    results: list[signal.Signals | None] = []
    errors = []
    for child in running:
        assert child.stderr is not None
        with child.stderr:
            text = child.stderr.read()
        status = child.wait(60)
        if status > 0:
            errors.append(f"exit status {status}: {text.decode(errors='replace')}")
        results.append(signal.Signals(-status) if status < 0 else None)
    if errors:
        raise RuntimeError(f"a child failed in another way: {errors}")
    return results


def fault_signal(area: bytes, mask: int, *, misalignment: int = 0) -> signal.Signals | None:
    """Return the signal that XRSTOR of `area` raises (SIGSEGV for #GP), or None if it is taken."""
    return fault_signals([(area, mask, misalignment)])[0]


def would_fault(area: bytes, mask: int) -> bool:
    """Return whether XRSTOR of `area` faults."""
    return fault_signal(area, mask) is not None


def _child() -> None:
    """XRSTOR stdin's area: argv is the mask and the distance from a 64-byte boundary."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mask, misalignment = int(sys.argv[1], 16), int(sys.argv[2])
    if mask & XTILEDATA:
        request_amx()
    source = _Buffer(bytes(misalignment) + sys.stdin.buffer.read())
    host, out = _Buffer(), _Buffer()
    _machine().restore_and["xsave"](host.address, source.address + misalignment, out.address, mask, mask)


if __name__ == "__main__":
    _child()
