"""What the default policy calls an error in a vCPU or in globalstate, real QEMU under KVM refuses to load.

QMIGTOOL_QEMU_NEW in the environment names a qemu-system-x86_64 of 10.0 or later: older ones say nothing when KVM
refuses registers, and lose them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.check.checking import found, poked
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.reloaded import refusal

pytestmark = [pytest.mark.qemu, pytest.mark.kvm]

SAMPLE = "twin-kvm-10.0"
MACHINE = Machine(machine="pc-i440fx-7.2", accel="kvm", extra=("-serial", "null"))
SREGS = "Failed to set special registers"


@pytest.fixture(autouse=True)
def _newer(monkeypatch: pytest.MonkeyPatch) -> None:
    named = os.environ.get("QMIGTOOL_QEMU_NEW")
    if named is None:
        pytest.skip("QMIGTOOL_QEMU_NEW names no newer qemu-system-x86_64")
    monkeypatch.setenv("QMIGTOOL_QEMU", named)


def test_the_sample_loads_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "vm.mig"
    path.write_bytes(poked(SAMPLE, {}))
    assert found(path) == ()
    with Qemu(MACHINE, incoming=True) as qemu:
        qemu.load(path)


@pytest.mark.parametrize(
    ("rule", "values", "says"),
    [
        ("mp-state", {"cpu@0/env.mp_state": 5}, "Failed to set MP state"),
        ("xcr0-legal", {"cpu@0/env.xcr0": 5}, "Failed to set XCRs"),
        ("mxcsr-reserved", {"cpu@0/env.mxcsr": 0x11F80}, "Failed to set XSAVE"),
        ("xstate-bv-legal", {"cpu@0/env.xstate_bv": 1 << 63 | 7}, "Failed to set XSAVE"),
        ("cr0-legal", {"cpu@0/env.cr[0]": 0x8000_0010}, SREGS),
        ("cr0-legal", {"cpu@0/env.cr[0]": 0x1_8000_0033}, SREGS),
        ("cr4-legal", {"cpu@0/env.cr[4]": 0x60600, "cpu@0/env.efer": 0, "cpu@0/env.cr[0]": 0x11}, SREGS),
        ("long-mode", {"cpu@0/env.efer": 0x100}, SREGS),
        ("long-mode", {"cpu@0/env.efer": 0x400, "cpu@0/env.cr[0]": 0x10}, SREGS),
        ("run-state", {"globalstate/runstate": b"foo".ljust(32, b"\0")}, "invalid parameter value: foo"),
        ("run-state", {"globalstate/runstate": b"preconfig".ljust(32, b"\0")}, "invalid parameter value: preconfig"),
        ("fpregs-format", {"cpu@0/env.fpregs_format_vmstate": 1}, "Unsupported old non-softfloat CPU state"),
    ],
)
def test_what_is_an_error_does_not_load(rule: str, values: dict[str, int | bytes], says: str, tmp_path: Path) -> None:
    path = tmp_path / "vm.mig"
    path.write_bytes(poked(SAMPLE, values))
    assert rule in {finding.rule for finding in found(path) if finding.severity.value == "error"}
    assert says in refusal(MACHINE, path)
