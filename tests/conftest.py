"""Fixtures and skips that all tests share.

A test marked `qemu`, `kvm`, `mshv`, `xsavec` or `needs(PROGRAM...)` is skipped, with the reason, where the machine
cannot do it. With QMIGTOOL_REQUIRE_QEMU=1 in the environment (CI sets it) a missing QEMU or program is a failure
instead. What a run writes is in one temporary folder, which is removed however the run ends
(tests/support/temporary.py).
"""

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest

from tests.oracle import guest, mshv, xsave_cpu
from tests.support import temporary
from tests.support.qemu.machine import Machine, Qemu, why_no_kvm
from tests.support.qemu.process import find_qemu
from tests.support.qemu.registers import MonitorRegisters, parse_registers

# The default tries the same examples every time under CI=true. This one never does, and prints how to see one again:
# `pytest -m hypothesis --hypothesis-profile=fresh`, or, for an hour, `python -m tests.fuzz properties --seconds 3600`.
hypothesis.settings.register_profile("fresh", derandomize=False, database=None, print_blob=True)

# Output is folded to it: a developer's is not the tests'.
for _name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "PAGER", "LESS"):
    os.environ.pop(_name, None)

_DEFAULT_MACHINE = Machine()
_why_no_kvm = functools.cache(why_no_kvm)
_why_no_xsavec = functools.cache(xsave_cpu.why_no_xsavec)


_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "objdump": "binutils",
}
"""The Debian packages of programs that are called otherwise."""


def _missing(program: str) -> None:
    reason = f"no {program} on PATH (Debian: apt install {_PACKAGES.get(program, program)})"
    if os.environ.get("QMIGTOOL_REQUIRE_QEMU") == "1":
        pytest.fail(f"{reason}, and QMIGTOOL_REQUIRE_QEMU=1", pytrace=False)
    pytest.skip(reason)


_TEMPORARY = pytest.StashKey[temporary.Temporary]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give this run a temporary folder of its own."""
    config.stash[_TEMPORARY] = temporary.join() if hasattr(config, "workerinput") else temporary.begin()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    temporary.end(config.stash[_TEMPORARY])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: what a compressor makes may depend on the time, and xdist compares the names."""
    return argname if isinstance(val, bytes | bytearray | memoryview) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot do."""
    needs_kvm = item.get_closest_marker("kvm") is not None
    if (needs_kvm or item.get_closest_marker("qemu") is not None) and find_qemu() is None:
        _missing("qemu-system-x86_64")
    for program in (name for marker in item.iter_markers("needs") for name in marker.args):
        if shutil.which(program) is None:
            _missing(program)
    if needs_kvm and (why := _why_no_kvm()) is not None:
        pytest.skip(f"no KVM: {why}")
    if item.get_closest_marker("mshv") is not None and (why := mshv.why_no_mshv()) is not None:
        pytest.skip(f"no MSHV: {why}")
    if item.get_closest_marker("xsavec") is not None and (why := _why_no_xsavec()) is not None:
        pytest.skip(f"no XSAVEC: {why}")


@dataclass(frozen=True, slots=True)
class QemuStream:
    """A stream that real QEMU wrote, and what is known about the VM it holds."""

    path: Path
    machine: Machine
    patterns: tuple[guest.VcpuPattern, ...]
    """What each vCPU was told to load."""
    status: tuple[guest.VcpuStatus, ...]
    """What each vCPU says that it has loaded (and its XCR0)."""
    registers: tuple[MonitorRegisters, ...]
    """`info registers -a` just before the migration, the guest stopped."""
    info_registers: str
    """The same as text."""
    xsave: tuple[bytes, ...]
    """The XSAVE areas the vCPUs wrote themselves (guest.SAVE_AREA_SIZE bytes each); empty without self_save."""
    qemu_version: tuple[int, int, int]


class QemuStreamFactory(Protocol):
    """Makes a stream, or returns the one made earlier from the same parameters."""

    def __call__(
        self,
        machine: Machine = ...,
        patterns: tuple[guest.VcpuPattern, ...] | None = ...,
        *,
        self_save: bool = ...,
        capabilities: tuple[str, ...] = ...,
    ) -> QemuStream:
        """`patterns` None: `guest.distinct_pattern` for each vCPU, its XCR0 cut down to what QEMU can save."""


@pytest.fixture(scope="session")
def qemu_guest(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function (patterns, self_save=False) -> path of the guest image for -kernel."""

    @functools.cache
    def make(patterns: tuple[guest.VcpuPattern, ...], *, self_save: bool = False) -> Path:
        path = tmp_path_factory.mktemp("guest") / "guest.bin"
        path.write_bytes(guest.build_guest(patterns, self_save=self_save))
        return path

    return make


@pytest.fixture(scope="session")
def usable_xcr0() -> Callable[[Machine], int]:
    """Return a function machine -> the XCR0 bits that QEMU can save there (`Qemu.usable_xcr0`)."""

    @functools.cache
    def ask(machine: Machine) -> int:
        with Qemu(machine) as qemu:
            return qemu.usable_xcr0()

    return ask


@pytest.fixture(scope="session")
def qemu_stream(
    tmp_path_factory: pytest.TempPathFactory,
    qemu_guest: Callable[..., Path],
    usable_xcr0: Callable[[Machine], int],
) -> QemuStreamFactory:
    """Return a factory of real streams: `qemu_stream(Machine(accel="tcg", smp=2))`."""

    @functools.cache
    def make(
        machine: Machine, patterns: tuple[guest.VcpuPattern, ...], self_save: bool, capabilities: tuple[str, ...]
    ) -> QemuStream:
        path = tmp_path_factory.mktemp("stream") / "vm.mig"
        with Qemu(machine, kernel=qemu_guest(patterns, self_save=self_save)) as qemu:
            qemu.cont()
            status = qemu.wait_until_spinning()
            if self_save:
                qemu.wait_for_self_save()
            qemu.stop()
            text = qemu.info_registers()
            areas = tuple(qemu.guest_xsave(vcpu) for vcpu in range(machine.smp)) if self_save else ()
            version = qemu.version()
            qemu.migrate_to_file(path, capabilities=capabilities)
        return QemuStream(
            path=path,
            machine=machine,
            patterns=patterns,
            status=tuple(status),
            registers=tuple(parse_registers(text)),
            info_registers=text,
            xsave=areas,
            qemu_version=version,
        )

    def factory(
        machine: Machine = _DEFAULT_MACHINE,
        patterns: tuple[guest.VcpuPattern, ...] | None = None,
        *,
        self_save: bool = False,
        capabilities: tuple[str, ...] = (),
    ) -> QemuStream:
        chosen = patterns
        if chosen is None:
            xcr0 = usable_xcr0(machine)
            chosen = tuple(guest.distinct_pattern(vcpu, xcr0=xcr0) for vcpu in range(machine.smp))
        return make(machine, chosen, self_save, capabilities)

    return factory
