"""A real qemu-system-x86_64 with a machine of ours: start it, stop it, migrate it, ask its monitor."""

import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.oracle import guest
from tests.support.qemu.process import QemuError, QemuProcess, find_qemu
from tests.support.qemu.registers import MonitorRegisters, parse_registers

__all__ = ["Machine", "Qemu", "why_no_kvm"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What is on the command line, hashable so that a stream can be cached by it."""

    accel: str = "tcg"
    machine: str = "pc"
    smp: int = 1
    cpu: str = "max"
    memory: str = "16M"
    extra: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Return the arguments, without the binary and without -kernel."""
        return [
            *("-nodefaults", "-display", "none", "-no-reboot", "-S"),
            *("-accel", self.accel, "-M", self.machine, "-cpu", self.cpu, "-smp", str(self.smp), "-m", self.memory),
            *self.extra,
        ]


def why_no_kvm() -> str | None:
    """Return why QEMU cannot use KVM here, or None if a vCPU starts and runs."""
    if find_qemu() is None:
        return "no qemu-system-x86_64"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    try:
        with Qemu(Machine(accel="kvm", machine="pc", cpu="host"), timeout=20) as qemu:
            reset = qemu.hmp("info registers")
            qemu.cont()
            qemu.wait_for("a vCPU to run", lambda: qemu.running() and qemu.hmp("info registers") != reset)
            return None
    except QemuError as error:
        return f"QEMU runs no vCPU with KVM: {error}"


class Qemu(QemuProcess):
    """One running QEMU, made by `with Qemu(machine, ...) as qemu`; it starts stopped (-S)."""

    def __init__(
        self,
        machine: Machine,
        *,
        kernel: Path | None = None,
        incoming: bool = False,
        timeout: float = 60,
        binary: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Take the QEMU of `find_qemu` unless `binary` is another; `environment` is added to ours."""
        command = [
            str(binary or find_qemu() or "qemu-system-x86_64"),
            *machine.arguments(),
            *(("-kernel", str(kernel)) if kernel else ()),
            *(("-incoming", "defer") if incoming else ()),
        ]
        super().__init__(command, timeout=timeout, environment=environment)
        self.machine = machine
        self._incoming = incoming

    def __enter__(self) -> Self:
        if find_qemu() is None and not Path(self.command[0]).exists():
            raise QemuError("no qemu-system-x86_64")
        self._directory = tempfile.TemporaryDirectory(prefix="qmigtool-qemu-")
        return super().__enter__()

    def _close(self) -> None:
        super()._close()
        self._directory.cleanup()

    def hmp(self, text: str) -> str:
        """Run a human monitor command and return what it prints."""
        printed: str = self.execute("human-monitor-command", command_line=text)
        return printed.replace("\r\n", "\n")

    def status(self) -> str:
        """Return the run state, e.g. "running"."""
        status: str = self.execute("query-status")["status"]
        return status

    def running(self) -> bool:
        """Return True, or raise QemuError with the run state of the guest."""
        if (state := self.status()) != "running":
            raise self.gone(f"the guest is {state}")
        return True

    def cont(self) -> None:
        """Let the vCPUs run."""
        self.execute("cont")

    def stop(self) -> None:
        """Stop the vCPUs."""
        self.execute("stop")

    def version(self) -> tuple[int, int, int]:
        """Return QEMU's version."""
        parts = self.execute("query-version")["qemu"]
        return parts["major"], parts["minor"], parts["micro"]

    def cpu_feature(self, name: str, vcpu: int = 0) -> bool:
        """Return a CPU property by QEMU's name, e.g. "avx512f": what QEMU believes that the vCPU has."""
        path = self.execute("query-cpus-fast")[vcpu]["qom-path"]
        return bool(self.execute("qom-get", path=path, property=name))

    def usable_xcr0(self) -> int:
        """Return the XCR0 bits (of those `guest` can load) whose CPUID features QEMU believes that vCPU 0 has.

        QEMU saves only these, whatever else the guest can reach: KVM without hardware virtualisation may let CPUID
        and the vector registers of the host shine through that it does not announce (KVM_GET_SUPPORTED_CPUID).
        """
        usable = guest.X87 | guest.SSE
        if self.cpu_feature("xsave"):
            for name, bits in (("avx", guest.AVX), ("avx512bw", guest.AVX512), ("pku", guest.PKRU)):
                usable |= bits if self.cpu_feature(name) else 0
            usable |= guest.AMX if self.cpu_feature("amx-tile") else 0
        return usable

    def pmemsave(self, address: int, size: int) -> bytes:
        """Return guest-physical memory."""
        path = Path(self._directory.name, "memory")
        self.execute("pmemsave", val=address, size=size, filename=str(path))
        data = path.read_bytes()
        path.unlink()
        return data

    def guest_status(self) -> list[guest.VcpuStatus]:
        """Return every vCPU's record of the guest of `guest.build_guest`."""
        raw = self.pmemsave(guest.STATUS, guest.STATUS_SIZE * self.machine.smp)
        return [guest.VcpuStatus.parse(raw[i : i + guest.STATUS_SIZE]) for i in range(0, len(raw), guest.STATUS_SIZE)]

    def guest_xsave(self, vcpu: int) -> bytes:
        """Return the XSAVE area that a self_save guest last wrote (SAVE_AREA_SIZE bytes, the rest zero)."""
        return self.pmemsave(guest.SAVE_AREA + vcpu * guest.SAVE_AREA_SIZE, guest.SAVE_AREA_SIZE)

    def wait_until_spinning(self) -> list[guest.VcpuStatus]:
        """Wait until every vCPU of the running guest has loaded its registers; return the records."""

        def spinning() -> bool:
            return self.running() and all(record.spinning for record in self.guest_status())

        self.wait_for("all vCPUs to spin", spinning)
        return self.guest_status()

    def wait_for_self_save(self) -> None:
        """Wait until every vCPU (that has XSAVE) of a running self_save guest has done two more whole rounds."""
        start = self.guest_status()
        self.wait_for(
            "the self-save loops",
            lambda: all(
                (now.saves - then.saves) % 2**32 >= 2 or not now.cpuid_xcr0
                for now, then in zip(self.guest_status(), start, strict=True)
            ),
        )

    def info_registers(self) -> str:
        """Return the text of `info registers -a`."""
        return self.hmp("info registers -a")

    def all_registers(self) -> list[MonitorRegisters]:
        """Return every vCPU's registers as the monitor prints them."""
        return parse_registers(self.info_registers())

    def registers(self, vcpu: int) -> MonitorRegisters:
        """Return one vCPU's registers as the monitor prints them."""
        return self.all_registers()[vcpu]

    def migrate_to_file(self, path: Path, *, capabilities: Sequence[str] = ()) -> None:
        """Save the VM as a migration stream, whole when this returns; afterwards it is stopped for good."""
        if capabilities:
            self.execute(
                "migrate-set-capabilities",
                capabilities=[{"capability": name, "state": True} for name in capabilities],
            )
        self.save_to(path)

        def ended() -> bool:
            return self._migration_completed() and path.exists()

        self.wait_for("the migration", ended)

    def _migration_completed(self) -> bool:
        answer = self.execute("query-migrate")
        if answer.get("status") in {"failed", "cancelled"}:
            raise self.gone(f"migration {answer['status']}: {answer.get('error-desc', '')}")
        return bool(answer.get("status") == "completed")

    def load(self, path: Path) -> None:
        """Load a stream (`-incoming exec:cat PATH`, deferred) into a QEMU made with incoming=True.

        A stream that QEMU refuses raises QemuError with what it says. The vCPUs stay stopped.
        """
        if not self._incoming:
            raise ValueError("this QEMU was not started with incoming=True")
        self.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(path.absolute()))}")
        self.wait_for("the incoming migration", lambda: self._migration_completed() and self.status() != "inmigrate")
