"""Real QEMU with `-accel mshv` on a stand-in for /dev/mshv (`mshv_standin.c`): what it writes, what it makes of a page.

    with StandIn(folder, page=page) as standin:
        standin.save(path)              # the stream that QEMU made of the page
    standin.registers(0)                # what it set on the way

    with StandIn(folder, layout=0xE7) as standin, standin.qemu(incoming=True) as qemu:
        qemu.load(path)
    standin.states[0, 1]                # the XSAVE page that it set for vCPU 0

No guest code runs, and what a real hypervisor would refuse is not refused. `why_no_mshv` says why it cannot be done: it
needs a QEMU that was built with MSHV (11.1 of Debian is; $QMIGTOOL_QEMU_NEW names it, else the installed one is asked),
an x86-64 CPU and a C compiler. The library is compiled against this machine's libc: a QEMU in a chroot with an older
one cannot load it.
"""

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.process import QemuError, find_qemu

SOURCE = Path(__file__).with_name("mshv_standin.c")
LAPIC, XSAVE, SIMP, SIEFP, SYNTHETIC_TIMERS = range(5)
"""MSHV's VP states."""
MACHINE = Machine(accel="mshv", machine="pc-i440fx-7.2", cpu="max", memory="32M")
ALL_FEATURES = (1 << 64) - 1

Row = tuple[int, int, int, int]


class Register(NamedTuple):
    """A register that QEMU set: its HV_REGISTER_NAME, and 128 bits."""

    name: int
    value: int


def find_mshv_qemu() -> Path | None:
    """Return a qemu-system-x86_64 that offers -accel mshv: $QMIGTOOL_QEMU_NEW, or the installed one."""
    named = os.environ.get("QMIGTOOL_QEMU_NEW")
    candidates = [Path(found)] if named and (found := shutil.which(named)) else []
    installed = find_qemu()
    candidates += [installed] if installed else []
    return next((one for one in candidates if _offers_mshv(one)), None)


@functools.cache
def _offers_mshv(binary: Path) -> bool:
    try:
        done = subprocess.run([binary, "-accel", "help"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "mshv" in done.stdout.split()


@functools.cache
def why_no_mshv() -> str | None:
    """Return why QEMU cannot run on the stand-in here, or None if it can."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return "the stand-in for /dev/mshv needs Linux on x86-64"
    if shutil.which("gcc") is None:
        return "no gcc, which makes the stand-in for /dev/mshv"
    if find_mshv_qemu() is None:
        return "no QEMU with -accel mshv (QMIGTOOL_QEMU_NEW names none: 11.1 or later, built with MSHV)"
    with tempfile.TemporaryDirectory(prefix="qmigtool-mshv-") as folder:
        try:
            with StandIn(Path(folder)) as standin, standin.qemu():
                return None
        except (QemuError, subprocess.CalledProcessError) as error:
            return f"QEMU does not start on the stand-in for /dev/mshv: {error}"


class StandIn:
    """The stand-in in a folder of its own, and what QEMU did with it.

    `page` is what MSHV_GET_VP_STATE returns for XSAVE, `layout` the partition's XSAVE_STATES, `features` every word of
    its processor features, `max_xsave` its MAX_XSAVE_DATA_SIZE. The log is read when it is asked: after QEMU has ended,
    or while it is stopped.
    """

    def __init__(
        self, folder: Path, *, page: bytes | None = None, layout: int = 7, features: int = 0, max_xsave: int = 4096
    ) -> None:
        self.folder = folder
        self._page = page
        self._numbers = {"LAYOUT": layout, "FEATURES": features, "MAX_XSAVE": max_xsave}

    def __enter__(self) -> Self:
        library = self.folder / "standin.so"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True, timeout=60)
        self._log, self._states = self.folder / "log", self.folder / "states"
        self._states.mkdir()
        self.environment = {
            "LD_PRELOAD": str(library),
            "MSHV_STANDIN_LOG": str(self._log),
            "MSHV_STANDIN_STATES": str(self._states),
            **{f"MSHV_STANDIN_{name}": hex(value) for name, value in self._numbers.items()},
        }
        if self._page is not None:
            path = self.folder / "page"
            path.write_bytes(self._page)
            self.environment["MSHV_STANDIN_XSAVE"] = str(path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def qemu(self, machine: Machine = MACHINE, *, incoming: bool = False) -> Qemu:
        """Return a QEMU on the stand-in, to be started by `with`."""
        return Qemu(machine, incoming=incoming, binary=find_mshv_qemu(), environment=self.environment)

    def _lines(self, *kinds: str) -> list[tuple[str, list[str]]]:
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [(words[0], words[1:]) for words in lines if words[0] in kinds]

    @property
    def calls(self) -> list[str]:
        """The log, line by line."""
        return self._log.read_text().splitlines()

    @property
    def host_leaf(self) -> dict[int, Row]:
        """Leaf 0xD as QEMU's host_cpuid() sees it: subleaf -> (EAX, EBX, ECX, EDX), rows of zeros left out."""
        rows = {int(words[0]): _row(words[1:]) for _, words in self._lines("HOST")}
        return {subleaf: row for subleaf, row in rows.items() if any(row)}

    def guest_leaf(self, leaf: int = 0xD, vp: int = 0) -> dict[int, Row]:
        """Return the rows of a CPUID leaf that QEMU gave the partition for a vCPU."""
        rows = {
            int(words[2], 16): _row(words[3:7])
            for _, words in self._lines("CPUID")
            if (int(words[0]), int(words[1], 16)) == (vp, leaf)
        }
        return {subleaf: row for subleaf, row in rows.items() if any(row)}

    def registers(self, vp: int) -> list[Register]:
        """Return the registers that QEMU set for a vCPU, in order."""
        return [
            Register(int(words[1], 16), int(words[2], 16) << 64 | int(words[3], 16))
            for _, words in self._lines("SETREG")
            if int(words[0]) == vp
        ]

    @property
    def states(self) -> dict[tuple[int, int], bytes]:
        """The last state of each type that QEMU set: (vCPU, type) -> bytes."""
        found = {}
        for path in sorted(self._states.iterdir()):
            vp, state = path.stem.split("-")
            found[int(vp.removeprefix("vp")), int(state.removeprefix("state"))] = path.read_bytes()
        return found

    def save(self, path: Path, machine: Machine = MACHINE) -> str:
        """Let QEMU start, take its vCPUs' state from the stand-in, and save it at `path`; return what it said."""
        with self.qemu(machine) as qemu:
            qemu.cont()
            qemu.wait_for("every vCPU to run", lambda: len(self._lines("RUN")) == qemu.machine.smp)
            qemu.stop()
            qemu.migrate_to_file(path)
            return qemu.stderr()


def _row(words: list[str]) -> Row:
    eax, ebx, ecx, edx = (int(word, 16) for word in words)
    return eax, ebx, ecx, edx
