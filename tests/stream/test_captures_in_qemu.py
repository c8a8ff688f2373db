"""Real migrations over loopback, captured: what is read of the capture is what the receiving QEMU has."""

import random
from pathlib import Path

import pytest

import qmigtool
from qmigtool.errors import GapError, UnsupportedError
from qmigtool.stream.traffic import read_traffic
from tests.ram.test_against_qemu import BIOS, PAGE, SIZE, capabilities, unlike
from tests.support.captureproxy import CaptureProxy, free_port
from tests.support.qemu.machine import Machine, Qemu

pytestmark = pytest.mark.qemu

MODES = {
    "precopy": (),
    "return path": ("return-path",),
    "multifd": ("multifd",),
    "postcopy": ("postcopy-ram",),
    "preempt": ("postcopy-ram", "postcopy-preempt"),
}
ROLES = {
    "precopy": ["main"],
    "return path": ["main", "return path"],
    "multifd": ["main", "multifd", "multifd"],
    "postcopy": ["main", "return path"],
    "preempt": ["main", "return path"],  # the guest is stopped, and asks for no page
}


class Migrated:
    """A capture of a migration, and the state of the QEMU that received it."""

    def __init__(self, mode: str, folder: Path) -> None:
        bios = folder / "bios.bin"
        bios.write_bytes(BIOS)
        machine = Machine(smp=2, extra=("-bios", str(bios)))
        with Qemu(machine) as source, Qemu(machine, incoming=True) as target:
            for qemu in (source, target):
                if MODES[mode]:
                    capabilities(qemu, *MODES[mode])
                qemu.execute("migrate-set-parameters", **{"multifd-channels": 2})
            port = free_port()
            target.execute("migrate-incoming", uri=f"tcp:127.0.0.1:{port}")
            with CaptureProxy(port) as proxy:
                source.cont()
                source.execute("migrate-set-parameters", **{"max-bandwidth": 4 << 20, "downtime-limit": 1})
                source.execute("migrate", uri=f"tcp:127.0.0.1:{proxy.port}")
                if "postcopy-ram" in MODES[mode]:
                    source.wait_for("the first pass", lambda: self._passes(source) > 1)
                    source.execute("migrate-start-postcopy")
                else:
                    source.wait_for("a pass", lambda: self._passes(source) > 1)
                    source.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "downtime-limit": 2000})
                source.wait_for("the migration", source._migration_completed)
                target.wait_for("the incoming migration", target._migration_completed)
                target.wait_for("the end of inmigrate", lambda: target.status() != "inmigrate")
                self.memory = target.pmemsave(0, SIZE)
                self.registers = target.all_registers()
                source.execute("quit")
                source.wait()
                target.execute("quit")
                target.wait()
            self.proxy = proxy

    @staticmethod
    def _passes(qemu: Qemu) -> int:
        answer = qemu.execute("query-migrate")
        return int(answer.get("ram", {}).get("dirty-sync-count", 0))


@pytest.fixture(scope="module", params=list(MODES))
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Migrated]:
    return request.param, Migrated(request.param, tmp_path_factory.mktemp("capture"))


def test_the_receivers_memory_and_registers(migrated: tuple[str, Migrated]) -> None:
    mode, made = migrated
    with qmigtool.open(made.proxy.pcap()) as stream:
        assert sorted(one["role"] for one in stream.container.details["connections"]) == ROLES[mode]
        assert stream.complete, stream.problems
        assert unlike(stream.ram.read("pc.ram", 0, SIZE), made.memory) == []
        assert not stream.problems
        for vcpu, registers in zip(stream.vcpus, made.registers, strict=True):
            told = registers.other
            assert vcpu.device.word("env.eip") == told.get("RIP", told.get("EIP"))
            assert vcpu.device.word("env.cr[0]") == told["CR0"]
            for index, name in enumerate(("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")):
                assert vcpu.device.word(f"env.regs[{index}]") == told.get(f"R{name}", told.get(f"E{name}")), name


def test_times(migrated: tuple[str, Migrated]) -> None:
    mode, made = migrated
    with read_traffic(made.proxy.pcap()) as traffic:
        timeline = traffic.timeline(traffic.migrations[0])
        assert timeline.postcopy == ("post" in "".join(MODES[mode]))
        assert timeline.downtime is not None
        assert 0 <= timeline.downtime < 60
        assert timeline.passes
        times = [(one.start, one.end) for one in timeline.passes if one.start is not None]
        assert all(start <= end for start, end in times if end is not None)
        # The packets of several channels are captured in any order, so passes without pages can be a moment apart.
        assert mode == "multifd" or times == sorted(times)


def test_pages_behind_holes_are_the_receivers(migrated: tuple[str, Migrated]) -> None:
    """Any frame of data that gets lost: pages that are still known are right, the others are refused."""
    _, made = migrated
    chance = random.Random(1)  # noqa: S311 - no secret
    bulky = [number for number, (_, one) in enumerate(made.proxy.frames) if len(one) > 2000]
    for _ in range(4):
        lost = frozenset(chance.sample(bulky[2:], 2))
        with qmigtool.open(made.proxy.pcap(lost)) as stream:
            assert any(isinstance(problem, GapError) for problem in stream.problems)
            ram, known = stream.ram, 0
            for number in range(SIZE // PAGE):
                if 0xA0 <= number < 0x100:
                    continue
                try:
                    page = ram.page("pc.ram", number * PAGE)
                except UnsupportedError:
                    continue
                known += 1
                assert page == made.memory[number * PAGE : (number + 1) * PAGE], hex(number * PAGE)
