"""Fixes of RAM blocks and of records that the target does not accept."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import pytest

import qmigtool
from qmigtool.preflight.target.reference import target_from_stream
from tests.preflight.recorded import target
from tests.preflight.remedies.remedied import PACKED, judge, remedied
from tests.support.paths import SAMPLES


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        # Cases R1, R5 and R7: the target's ROM is larger, smaller, not there; R8: memory-backend=mem0.
        ("t24", "--resize-block 0000:00:03.0/virtio-net-pci.rom 0x80000"),
        ("t26", "--resize-block 0000:00:03.0/virtio-net-pci.rom 0x10000"),
        ("t27", "--drop-block 0000:00:03.0/virtio-net-pci.rom"),
        ("t28", "--rename-block pc.ram mem0"),
    ],
)
def test_blocks_of_another_size_or_name(reference: str, options: str, tmp_path: Path) -> None:
    # The recorded runs of R2/R3, R6 and R8 loaded with these edits.
    aim, path = target(reference, "7.2"), SAMPLES / "q35-7.2.mig"
    result = judge(path, aim)
    assert result.remedy is not None
    assert result.remedy.command == f"qmigtool rewrite {path} {options} -o OUT"
    assert remedied(result, path, tmp_path / "out.mig", aim).verdict.loads is True


def test_memory_grows_and_never_shrinks(tmp_path: Path) -> None:
    # Case F2: -m 32; I3: -m 15.
    path = SAMPLES / "pc-7.2.mig"
    grown = judge(path, target("t03", "7.2"))
    assert grown.remedy is not None
    assert grown.remedy.words[3:-2] == ("--resize-block", "pc.ram", "0x2000000")
    assert grown.remedy.options == ("-m 16M",)
    assert remedied(grown, path, tmp_path / "out.mig", target("t03", "7.2")).verdict.loads is True
    assert not grown.remedy.why  # the guest never had the new half
    cut = judge(path, target("t07", "7.2"))
    assert cut.remedy is not None
    assert cut.remedy.command is None
    assert cut.remedy.needed == ("-m 16M",)


@pytest.mark.parametrize("name", ["compress-7.2", "mapped-10.0", "ignoreshared-10.0"])
def test_memory_as_plain_records(name: str, tmp_path: Path) -> None:
    path = tmp_path / "packed.mig"
    path.write_bytes(lzma.decompress((PACKED / f"{name}.mig.xz").read_bytes()))
    with qmigtool.open(path) as stream:
        version = tuple(map(int, name.rpartition("-")[2].split(".")))
        own = target_from_stream(stream)
    aim = replace(own, qemu=version, capabilities={"x-ignore-shared": False, "mapped-ram": False, "compress": False})
    result = judge(path, aim)
    assert result.verdict.loads is False
    assert result.remedy is not None
    if name.startswith("ignoreshared"):
        # Shared memory is not in the stream: no edit brings it in.
        assert result.remedy.command is None
        assert "shared memory" in result.remedy.why
        return
    assert result.remedy.words[3:-2] == ("--ram", "plain")
    assert remedied(result, path, tmp_path / "out.mig", aim).verdict.loads is True
