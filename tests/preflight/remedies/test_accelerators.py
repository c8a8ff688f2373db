"""The conversion to another accelerator or to another XCR0, as a remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import qmigtool
from qmigtool.findings import Severity
from qmigtool.preflight import Target
from qmigtool.preflight.target.builds import target_from_version
from qmigtool.preflight.target.reference import merge, target_from_stream
from qmigtool.rewrite import Rewriter
from tests.preflight.recorded import target
from tests.preflight.remedies.remedied import _version, judge, remedied, run_command
from tests.support.paths import SAMPLES
from tests.support.qemu.machine import Machine, Qemu

KVM_XCR0 = 0xE7


def test_from_kvm_to_tcg(tmp_path: Path) -> None:
    path, aim = SAMPLES / "twin-kvm-10.0.mig", target("t08", "10.0")
    result = judge(path, aim)
    assert (result.verdict.rule, result.verdict.section) == ("unknown-section", "kvmclock")
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "tcg")
    after = remedied(result, path, tmp_path / "out.mig", aim, "tcg")
    assert {one.rule for one in after.losses if one.severity is not Severity.NOTE} == {"missing-vcpu"}  # it has four


@pytest.mark.parametrize("declared", [0, 3])
def test_state_that_a_hypervisor_has_not_declared(declared: int, edited: Callable[..., Path], tmp_path: Path) -> None:
    # SDM volume 1, 13.8: what XSTATE_BV does not have, XRSTOR initialises; who saved the file does not matter.
    path = edited("kvm-avx512-7.2", lambda edits: edits.set("cpu@0/env.xstate_bv", declared))
    aim = replace(kvm_reference(), accelerator="kvm", xcr0=KVM_XCR0)
    result = judge(path, aim, "kvm")
    assert result.verdict.loads is True
    (finding,) = [one for one in result.losses if one.severity is Severity.ERROR]
    assert (finding.rule, finding.where) == ("undeclared-state", "cpu@0/env.xstate_bv")
    assert ("x87 SSE AVX" in finding.message) is (declared == 0)
    assert "AVX opmask ZMM_Hi256 Hi16_ZMM: lost" in finding.message
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--repair", "xstate-bv")
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean
    assert judge(SAMPLES / "kvm-avx512-7.2.mig", aim).clean


def kvm_reference() -> Target:
    with qmigtool.open(SAMPLES / "kvm-avx512-7.2.mig") as stream:
        return replace(target_from_stream(stream), qemu=(7, 2))


def kvm_target() -> Target:
    with qmigtool.open(SAMPLES / "twin-kvm-10.0.mig") as stream:
        reference = target_from_stream(stream)
    return merge(target_from_version((10, 0)), reference, Target(qemu=(10, 0), xcr0=KVM_XCR0, xss=0))


def test_from_tcg_to_kvm(tmp_path: Path) -> None:
    path, aim = SAMPLES / "twin-tcg-10.0.mig", kvm_target()
    result = judge(path, aim)
    assert result.verdict.loads is True  # and loses x87, SSE and AVX
    assert not result.clean
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "kvm", "--xcr0", "0xe7")
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean


def test_what_is_given_up_is_said(tmp_path: Path) -> None:
    # AVX-512 under TCG: the guest keeps nothing of it.
    path = SAMPLES / "kvm-avx512-7.2.mig"
    with qmigtool.open(path) as stream:
        reference = target_from_stream(stream)
    sections = {key: one for key, one in (reference.sections or {}).items() if key[0] != "kvmclock"}
    aim = replace(reference, sections=sections, accelerator="tcg", qemu=(7, 2), host_tsc_khz=None)
    result = judge(path, aim)
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "tcg", "--lossy")
    for component in ("opmask", "ZMM_Hi256", "Hi16_ZMM"):
        assert sum(f"{component} was live" in one for one in result.remedy.loses) == 1
    assert remedied(result, path, tmp_path / "out.mig", aim, "tcg").clean


def test_components_that_the_hosts_xcr0_lacks(tmp_path: Path) -> None:
    # Idle ones of a KVM stream, for another KVM host.
    path = tmp_path / "in.mig"
    with qmigtool.open(SAMPLES / "twin-kvm-10.0.mig") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.xcr0", 0x207)
        rewriter.save(path)
    aim = kvm_target()
    result = judge(path, aim)
    assert (result.verdict.loads, result.verdict.rule) == (False, "kvm-xcr0")
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean


def test_live_components_that_the_hosts_xcr0_lacks(tmp_path: Path) -> None:
    # 7.2 would load it, and drop XSAVE, XCR0 and every MSR for the sake of AVX-512.
    path = SAMPLES / "kvm-avx512-7.2.mig"
    with qmigtool.open(path) as stream:
        aim = merge(target_from_version((7, 2)), target_from_stream(stream), Target(qemu=(7, 2), xcr0=7, xss=0))
    result = judge(path, aim)
    assert result.verdict.loads is True
    assert not result.clean
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "kvm", "--xcr0", "0x7", "--lossy")
    assert any("Hi16_ZMM" in one for one in result.remedy.loses)
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean


@pytest.mark.kvm
def test_real_kvm_keeps_a_remedied_stream(tmp_path: Path) -> None:
    if _version() != (7, 2):
        pytest.skip("the sample is of pc-i440fx-7.2")
    path, out, again = SAMPLES / "twin-tcg-10.0.mig", tmp_path / "out.mig", tmp_path / "again.mig"
    run_command(judge(path, replace(kvm_target(), qemu=(7, 2))), path, out)
    machine = Machine(accel="kvm", machine="pc-i440fx-7.2", cpu="host,-arch-capabilities", extra=("-serial", "null"))
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(out)
        qemu.migrate_to_file(again)
    with qmigtool.open(out, accelerator="kvm") as sent, qmigtool.open(again) as kept:
        for name in ("env.fpuc", "env.fpus_vmstate", "env.fptag_vmstate", "env.mxcsr", "env.fpregs"):
            assert kept.field(f"cpu@0/{name}").raw == sent.field(f"cpu@0/{name}").raw, name
        assert kept.vcpus[0].contents(1) == sent.vcpus[0].contents(1)
