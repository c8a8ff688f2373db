"""A small harness around the real qemu-system-x86_64: start it, stop it, migrate it, ask its monitor.

QMP goes over a socket pair that is handed to QEMU as a file descriptor: there is no path to choose, to wait for or to
clean up. Every wait has a deadline, the process never outlives its `with` block (nor, where setpriv exists, pytest
itself), and every error carries QEMU's own stderr.

What `info registers` prints (read in QEMU 7.2's output; later versions print the same lines)
* `FCW=037f FSW=2800 [ST=5] FTW=e0 MXCSR=00009fc0`: all hex but ST, which is FSW.TOP. FSW has TOP in place. FTW is the
  abridged tag byte (bit set = not empty), by physical register.
* `FPR0=<16 hex digits mantissa> <4 hex digits sign and exponent>`, two to a line, is env.fpregs[0], whatever that means
  to the accelerator: under TCG the *physical* register 0, under KVM *ST(0)*. The tag byte is physical under both.
* One kind of vector line, chosen by the vCPU's XCR0: `XMMnn` (two to a line), `YMMnn` if XCR0 has bits 2:0, `ZMMnn`
  (and, before them, `Opmask00`-`Opmask07`, four to a line) if it also has 7:5. 64-bit words, the *most* significant
  first. nn is decimal, 00-15, or 00-31 for ZMM, in 64-bit code; 00-07 in any other mode.
* Never printed: FOP, FIP, FDP, XCR0, PKRU, the tiles, XSTATE_BV.
"""

import json
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.oracle import guest

_POLL = 0.01  # seconds between two looks


class QemuError(Exception):
    """QEMU died, refused a command or was too slow; the text has its stderr."""


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


@dataclass(frozen=True, slots=True)
class MonitorRegisters:
    """One vCPU as `info registers` prints it."""

    fcw: int
    fsw: int
    """With TOP in bits 13:11."""
    top: int
    ftw: int
    """Abridged, by physical register."""
    mxcsr: int
    fpr: tuple[tuple[int, int], ...]
    """env.fpregs as printed: (mantissa, sign and exponent); see the module's text for the order."""
    vector_kind: str
    """XMM, YMM or ZMM: which lines were printed."""
    vectors: tuple[bytes, ...]
    """16, 32 or 64 bytes each, as in memory (least significant byte first)."""
    opmask: tuple[int, ...]
    """k0-k7; empty if not printed."""
    other: dict[str, int]
    """RIP, RAX, CR0, CR4, EFER and so on: every other NAME=hex word."""

    def st(self, *, accel: str) -> list[tuple[int, int]]:
        """Return ST(0)..ST(7), knowing the accelerator."""
        if accel == "tcg":
            return [self.fpr[(self.top + i) % 8] for i in range(8)]
        return list(self.fpr)


def parse_registers(text: str) -> list[MonitorRegisters]:
    """Parse the output of `info registers -a` (or of one vCPU), in the order printed."""
    parts = re.split(r"^CPU#\d+\s*$", text, flags=re.MULTILINE)
    bodies = parts[1:] if len(parts) > 1 else parts
    return [_parse_one(body) for body in bodies]


def _parse_one(text: str) -> MonitorRegisters:
    control = re.search(
        r"FCW=([0-9a-f]{4}) FSW=([0-9a-f]{4}) \[ST=([0-7])\] FTW=([0-9a-f]{2}) MXCSR=([0-9a-f]{8})", text
    )
    if control is None:
        raise ValueError(f"no FCW line in {text!r}")
    fcw, fsw, top, ftw, mxcsr = (int(word, 16) for word in control.groups())
    fpr = re.findall(r"FPR([0-7])=([0-9a-f]{16}) ([0-9a-f]{4})", text)
    vectors = re.findall(r"([XYZ]MM)(\d\d)=((?:[0-9a-f]{16} ?)+)", text)
    opmask = re.findall(r"Opmask0([0-7])=([0-9a-f]{16})", text)
    for names in ([int(row[0]) for row in fpr], [int(row[1]) for row in vectors], [int(row[0]) for row in opmask]):
        if names != list(range(len(names))):
            raise ValueError(f"registers out of order: {names}")
    kinds = {row[0] for row in vectors}
    if len(kinds) != 1 or len(fpr) != 8:
        raise ValueError(f"{len(fpr)} FPR values and vector lines of kinds {kinds}")
    head = text[: control.start()]
    return MonitorRegisters(
        fcw=fcw,
        fsw=fsw,
        top=top,
        ftw=ftw,
        mxcsr=mxcsr,
        fpr=tuple((int(mantissa, 16), int(exponent, 16)) for _, mantissa, exponent in fpr),
        vector_kind=kinds.pop(),
        vectors=tuple(
            b"".join(struct.pack("<Q", int(word, 16)) for word in reversed(words.split())) for _, _, words in vectors
        ),
        opmask=tuple(int(value, 16) for _, value in opmask),
        other={name: int(value, 16) for name, value in re.findall(r"\b([A-Z][A-Z0-9]+) *=([0-9a-f]+)", head)},
    )


def find_qemu() -> Path | None:
    """Return qemu-system-x86_64: $QMIGTOOL_QEMU, or the one on PATH."""
    named = os.environ.get("QMIGTOOL_QEMU")
    found = shutil.which(named or "qemu-system-x86_64")
    return Path(found) if found else None


def dies_with_us(command: list[str]) -> list[str]:
    """Return the command so that the kernel kills its process when this one ends (where setpriv exists)."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []), *command]


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


class Qemu:
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
        self.machine = machine
        self._binary = binary
        self._environment = {**os.environ, **(environment or {})}
        self.timeout = timeout
        self.events: list[dict[str, Any]] = []
        self._kernel = kernel
        self._incoming = incoming
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> Self:
        binary = self._binary or find_qemu()
        if binary is None:
            raise QemuError("no qemu-system-x86_64")
        self._directory = tempfile.TemporaryDirectory(prefix="qmigtool-qemu-")
        self._log = tempfile.TemporaryFile()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.command = [
                str(binary),
                *self.machine.arguments(),
                *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
                *(("-kernel", str(self._kernel)) if self._kernel else ()),
                *(("-incoming", "defer") if self._incoming else ()),
            ]
            try:
                self._process = subprocess.Popen(
                    dies_with_us(self.command),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                )
            except OSError:
                self._close()
                raise
        try:
            self._read(time.monotonic() + self.timeout)  # the greeting
            self.execute("qmp_capabilities")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._directory.cleanup()

    def stderr(self) -> str:
        """Return what QEMU has said so far, on stdout too."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace").strip()

    def _error(self, what: str) -> QemuError:
        """Add the command, the exit status and stderr to a message."""
        assert self._process is not None
        try:
            status = f"exit status {self._process.wait(0.5)}"
        except subprocess.TimeoutExpired:
            status = "running"
        return QemuError(f"{what} ({status}): {self.stderr() or 'nothing on stderr'}\n{shlex.join(self.command)}")

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._error("QMP does not answer")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise self._error("QMP does not answer") from None
            except OSError as error:
                raise self._error(f"QMP connection lost: {error}") from error
            if not data:
                raise self._error("QEMU has closed its QMP connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a QMP command (underscores in argument names become hyphens) and return its `return`."""
        request = {"execute": command, "arguments": {name.replace("_", "-"): v for name, v in arguments.items()}}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._error(f"QMP connection lost: {error}") from error
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self._read(deadline)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QemuError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def hmp(self, text: str) -> str:
        """Run a human monitor command and return what it prints."""
        printed: str = self.execute("human-monitor-command", command_line=text)
        return printed.replace("\r\n", "\n")

    def status(self) -> str:
        """Return the run state, e.g. "running"."""
        status: str = self.execute("query-status")["status"]
        return status

    def running(self) -> bool:
        """Return True, or raise QemuError with the run state that the guest has come to."""
        if (state := self.status()) != "running":
            raise self._error(f"the guest is {state}")
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

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Poll until the condition holds; QemuError after the timeout."""
        deadline = time.monotonic() + self.timeout
        while not condition():
            if time.monotonic() > deadline:
                raise self._error(f"waited {self.timeout} s for {what}")
            time.sleep(_POLL)

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
        """Save the VM as a migration stream (`migrate exec:cat > PATH`); afterwards it is stopped for good.

        QEMU says "completed" before the last bytes have passed through cat, so the file appears under its name
        only when cat has ended.
        """
        if capabilities:
            self.execute(
                "migrate-set-capabilities",
                capabilities=[{"capability": name, "state": True} for name in capabilities],
            )
        target = shlex.quote(str(path.absolute()))
        part = shlex.quote(f"{path.absolute()}.part")
        path.unlink(missing_ok=True)
        self.execute("migrate", uri=f"exec:cat > {part} && mv {part} {target}")

        def ended() -> bool:
            return self._migration_completed() and path.exists()

        self.wait_for("the migration", ended)

    def _migration_completed(self) -> bool:
        answer = self.execute("query-migrate")
        if answer.get("status") in {"failed", "cancelled"}:
            raise self._error(f"migration {answer['status']}: {answer.get('error-desc', '')}")
        return bool(answer.get("status") == "completed")

    def load(self, path: Path) -> None:
        """Load a stream (`-incoming exec:cat PATH`, deferred) into a QEMU made with incoming=True.

        A stream that QEMU refuses raises QemuError with what it says. The vCPUs stay stopped.
        """
        if not self._incoming:
            raise ValueError("this QEMU was not started with incoming=True")
        self.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(path.absolute()))}")
        self.wait_for("the incoming migration", lambda: self._migration_completed() and self.status() != "inmigrate")
