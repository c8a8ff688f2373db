"""The MSHV bundle against real QEMU 11.1 on a stand-in for MSHV: what it sets, in which order, and which page."""

import struct
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

import qmigtool
from qmigtool.rewrite import Rewriter
from qmigtool.rewrite.bundle import export_bundle
from qmigtool.x86.mshv import MSHV_MSRS, XFEM, Only
from qmigtool.xsave import Layout
from qmigtool.xsave.components import PKRU_MASK
from tests.oracle.mshv import ALL_FEATURES, MACHINE, XSAVE, StandIn

REGISTERS = {msr.register: msr for msr in MSHV_MSRS}


@pytest.mark.mshv
@pytest.mark.parametrize("features", [0, ALL_FEATURES])
def test_qemu_sets_what_the_bundle_says(features: int, tmp_path: Path) -> None:
    """Two vCPUs: QEMU saves them, registers are changed, it loads them: its last writes are the bundle's."""
    machine = replace(MACHINE, smp=2)
    for name in ("save", "load"):
        (tmp_path / name).mkdir()
    # A page with x87, SSE and AVX in use, so that there is something to compare.
    page = bytearray(Random(7).randbytes(4096))  # noqa: S311
    page[24:32] = bytes.fromhex("c09f000000000000")
    page[512:576] = struct.pack("<QQ48x", 7, 1 << 63 | 7)
    with StandIn(tmp_path / "save", page=bytes(page), features=features) as standin:
        standin.save(tmp_path / "vm.mig", machine)
    with qmigtool.open(tmp_path / "vm.mig", accelerator="mshv") as stream:
        rewriter = Rewriter(stream)
        for vcpu in (0, 1):
            rewriter.set_xcr0(vcpu, 7)
            for number, msr in enumerate(MSHV_MSRS):
                if stream.device(f"cpu@{vcpu}").get(msr.path) is not None and msr.name not in ("EFER", "TSC"):
                    rewriter.set(f"cpu@{vcpu}/{msr.path}", 0x1000 * (number + 1) + vcpu)
        rewriter.save(tmp_path / "set.mig")
    with StandIn(tmp_path / "load", features=features) as standin, standin.qemu(machine, incoming=True) as qemu:
        qemu.load(tmp_path / "set.mig")
    local = Layout.from_leaf_0xd("host", standin.host_leaf)
    guest = standin.guest_leaf()
    offered = (guest[0][3] << 32 | guest[0][0]) & local.user_mask
    with qmigtool.open(tmp_path / "set.mig", accelerator="mshv") as stream:
        document = export_bundle(stream, tmp_path / "bundle", local, offered & ~PKRU_MASK | 3)
    for entry in document["vcpus"]:
        index = entry["vcpu"]
        said = [(int(msr["register"], 0), int(msr["value"], 0)) for msr in entry["msrs"]]
        if not features:
            said = [pair for pair in said if REGISTERS[pair[0]].only is not Only.FEATURE]
        wanted = {register for register, _ in said}
        written = [(one.name, one.value) for one in standin.registers(index)]
        xfem = max(i for i, (name, _) in enumerate(written) if name == XFEM)
        assert written[xfem][1] == int(entry["xcr0"], 0) | int(entry["xcr0_beside"], 0)
        # EFER is among the special registers, too: before XFEM.
        assert [pair for pair in written[xfem:] if pair[0] in REGISTERS] == said
        assert wanted == {name for name, _ in written[xfem:] if name in REGISTERS}
        theirs, ours = standin.states[index, XSAVE], (tmp_path / "bundle" / entry["file"]).read_bytes()
        # XCOMP_BV differs where the CPU has PKRU: MSHV has no place for it, which QEMU does not look at.
        assert (theirs[:520], theirs[576:832]) == (ours[:520], ours[576:832])
        assert len(theirs) == len(ours)
        if not offered & PKRU_MASK:
            assert theirs == ours
