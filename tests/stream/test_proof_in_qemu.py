"""What real QEMU loads of a file that was written over a longer one: qmigtool shows the same vCPU."""

import io
from pathlib import Path

import pytest

import qmigtool
from qmigtool.rewrite import Rewriter
from tests.support.qemu.machine import Machine, Qemu

RBX = "cpu@0/env.regs[3]"
NEW, OLD = 0x1111, 0x2222


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A machine with NEW in RBX, and a larger one (a longer stream) with OLD."""

    def saved(memory: str, rbx: int) -> bytes:
        path = tmp_path_factory.mktemp("saved") / "vm.mig"
        with Qemu(Machine(memory=memory)) as qemu:
            qemu.migrate_to_file(path)
        out = io.BytesIO()
        with qmigtool.open(path) as stream:
            edits = Rewriter(stream)
            edits.set(RBX, rbx)
            edits.write(out)
        return out.getvalue()

    return saved("16M", NEW), saved("64M", OLD)


def over(front: bytes, behind: bytes) -> bytes:
    return front + behind[len(front) :]


VARIANTS = {
    "over a longer one": over,
    "and padding": lambda new, old: over(new, old) + bytes(1 << 16),
    "and garbage": lambda new, old: over(new, old) + b"\xa5" * 4097,
    "one behind the other": lambda new, old: new + old,
    "the same behind itself": lambda new, _: new + new.replace(NEW.to_bytes(8, "big"), OLD.to_bytes(8, "big"), 1),
    "only the end of an older one": lambda new, old: new + old[-150_000:],
}


@pytest.mark.qemu
@pytest.mark.parametrize("variant", VARIANTS)
def test_qemu_loads_the_stream_at_the_front(variant: str, streams: tuple[bytes, bytes], tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.write_bytes(VARIANTS[variant](*streams))
    with Qemu(Machine(), incoming=True) as qemu:
        qemu.load(path)
        loaded = qemu.registers(0).other["EBX"]  # at reset it is in real mode
    assert loaded == NEW
    with qmigtool.open(path) as stream:
        assert stream.prove()
        assert stream.field(RBX).value == loaded
