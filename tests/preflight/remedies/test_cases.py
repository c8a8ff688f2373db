"""Streams that once had no remedy, or one that would have cost the guest its memory.

Each is predicted, edited by the command that is proposed, predicted again, and loaded by the real QEMU it is meant for
where that is the installed one.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.preflight import Preflight, Target, preflight, read_targets
from qmigtool.rewrite import Rewriter
from tests.support import casefiles
from tests.support.paths import SAMPLES
from tests.support.qemu import incoming
from tests.support.qemu.process import find_qemu

PIIX4 = "0000:00:01.3/piix4_pm@0"
SMB = f"--add-field {PIIX4}/smb pmsmb,after=apm=hex:{'00' * 42}020000010000"
ACPI_INDEX = f"{PIIX4}/acpi_pci_hotplug.acpi_index"
ADD_INDEX = f"--add-field {ACPI_INDEX} uint32,after=acpi_pci_hotplug.acpi_pcihp_pci_status"
TPM = "--drop-block tpm-crb-cmd --drop-block tpm-ppi --drop-section tpm-emulator@0 --drop-section tpm-crb@0"
QUIET = "-nodefaults -serial null"


@dataclass(frozen=True)
class Case:
    """A stream, a target, the edits that mend it, and the target's command line."""

    file: str
    reference: str
    version: str
    edits: str
    arguments: str


CASES = {
    "a field too many": Case("c1", "c1ref", "7.2", f"--drop-field {ACPI_INDEX}", "-M pc-i440fx-6.2 -m 16"),
    "a field too few": Case(
        "c1ref", "c1", "7.2", ADD_INDEX, "-M pc-i440fx-6.2 -m 16 -global PIIX4_PM.x-not-migrate-acpi-index=off"
    ),
    "an old machine type": Case(
        "u31", "c11ref", "11.1", f"--upgrade-machine pc-i440fx-11.1 {SMB}", "-M pc-i440fx-11.1 -m 16"
    ),
    "the display's memory": Case(
        "g212",
        "g212ref",
        "11.1",
        f"--upgrade-machine pc-i440fx-11.1 --rename-block vga.vram 0000:00:02.0/vga.vram {SMB}",
        "-M pc-i440fx-11.1 -m 16 -vga std",
    ),
    "no configuration, no footers": Case(
        "c11",
        "c11ref",
        "11.1",
        f"--add-configuration pc-i440fx-11.1 --add-footers {SMB} {ADD_INDEX}",
        "-M pc-i440fx-11.1 -m 16",
    ),
    "a vendor's machine type": Case(
        "bionic", "c11ref", "11.1", "--upgrade-machine pc-i440fx-11.1", "-M pc-i440fx-11.1 -m 16"
    ),
    "a TPM": Case("c12", "c12ref", "7.2", TPM, "-M pc-q35-7.2 -m 32"),
    "main memory's name": Case(
        "c13d", "c13dref", "10.0", "--rename-block /objects/mem0 microvm.ram", "-M microvm,rtc=on,pit=on,pic=on -m 16"
    ),
}


def aim_of(case: Case, folder: Path) -> Target:
    return read_targets([casefiles.put("load", f"{case.reference}.mig", folder), case.version])


def judge(path: str | Path, aim: Target) -> Preflight:
    with qmigtool.open(path) as stream:
        return preflight(stream, aim)


def mend(result: Preflight, out: Path) -> None:
    assert result.remedy is not None
    assert result.remedy.command is not None
    assert main.run([*shlex.split(result.remedy.command)[1:-1], str(out)]) == 0


@pytest.mark.parametrize("name", CASES)
def test_remedied(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path, aim = casefiles.put("load", f"{case.file}.mig", tmp_path), aim_of(case, tmp_path)
    result = judge(path, aim)
    assert result.verdict.loads is False
    assert result.remedy is not None
    assert result.remedy.command == f"qmigtool rewrite {path} {case.edits} -o OUT"
    mend(result, tmp_path / "out.mig")
    after = judge(tmp_path / "out.mig", aim)
    assert after.verdict.loads is True
    assert after.verdict == result.remedy.verdict


@pytest.mark.qemu
@pytest.mark.parametrize("name", CASES)
def test_remedied_for_real(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if find_qemu() is None or incoming.version() != case.version:
        pytest.skip(f"the target is QEMU {case.version}, and QMIGTOOL_QEMU names another one")
    path, aim = casefiles.put("load", f"{case.file}.mig", tmp_path), aim_of(case, tmp_path)
    arguments = [*QUIET.split(), *case.arguments.split()]
    assert not incoming.load(Path(path), arguments).loaded
    mend(judge(path, aim), tmp_path / "out.mig")
    assert incoming.load(tmp_path / "out.mig", arguments).loaded


def test_a_guess_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = casefiles.put("load", "bionic.mig", tmp_path)
    reference = casefiles.put("load", "c11ref.mig", tmp_path)
    assert main.run(["preflight", path, "--target", reference, "--target", "11.1"]) == 1
    out = capsys.readouterr().out
    assert "guess: pc-i440fx-bionic is treated as pc-i440fx-2.11" in out
    assert "-M pc-i440fx-bionic" not in out
    assert "-M pc-i440fx-2.11" not in out  # which 11.1 does not have


def test_machine_types_that_the_target_has_are_proposed(tmp_path: Path) -> None:
    """pc-i440fx-3.1 is there in 10.0, and no more in 11.1; what 9.1 has is not known for all of them."""
    path = casefiles.put("load", "u31.mig", tmp_path)
    reference = casefiles.put("load", "c11ref.mig", tmp_path)
    found = {}
    for version in ("10.0", "11.1", "10.1"):
        remedy = judge(path, read_targets([reference, version])).remedy
        assert remedy is not None
        found[version] = [one for one in (*remedy.options, *remedy.needed) if one.startswith("-M")]
    assert found == {
        "10.0": ["-M pc-i440fx-3.1"],
        "11.1": [],
        "10.1": ["-M pc-i440fx-3.1, if that QEMU has it"],
    }


def test_no_option_that_the_device_does_not_have(tmp_path: Path) -> None:
    path, reference = (casefiles.put("load", f"{one}.mig", tmp_path) for one in ("q42", "q42ref"))
    remedy = judge(path, read_targets([reference, "11.1"])).remedy
    assert remedy is not None
    assert remedy.command is None
    assert not any("queue-size" in one for one in (*remedy.options, *remedy.needed))


def test_the_run_state_as_text(tmp_path: Path) -> None:
    path = casefiles.put("load", "gs2.mig", tmp_path)
    aim = read_targets([str(SAMPLES / "pc-7.2.mig"), "7.2"])
    result = judge(path, aim)
    assert result.verdict.rule == "runstate"
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--set", "globalstate@0/size=7", "--set", "globalstate@0/runstate=paused")
    assert result.remedy.loses == ("the run state 's2e': it becomes paused",)
    mend(result, tmp_path / "out.mig")
    assert judge(tmp_path / "out.mig", aim).verdict.loads is True
    assert main.run(["rewrite", path, "--drop-section", "globalstate", "-o", str(tmp_path / "other.mig")]) == 0
    assert judge(tmp_path / "other.mig", aim).verdict.loads is True


# -- which block is the guest's memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x.rom", "vga.vram", "0000:00:09.0/vga.vram", "tpm-ppi", "/rom@x", "pc.bios2", "/objects/x", "a/b/c", "m0"]
)
def test_memory_is_known_by_what_it_holds(name: str, tmp_path: Path) -> None:
    """Whatever it is called, it is renamed where the target has one of its size, and left out nowhere."""
    case = casefiles.put("load", "c1ref.mig", tmp_path)  # fresh: no vCPU runs in it
    booted = str(SAMPLES / "pc-7.2.mig")
    for source in (case, booted):
        path = tmp_path / "renamed.mig"
        with qmigtool.open(source) as stream:
            rewriter = Rewriter(stream)
            rewriter.rename_block("pc.ram", name)
            rewriter.save(path)
        same = read_targets([source, "7.2"])
        remedy = judge(path, same).remedy
        assert remedy is not None
        assert remedy.words[3:-2] == ("--rename-block", name, "pc.ram")
        with qmigtool.open(source) as stream:
            rewriter = Rewriter(stream)
            rewriter.resize_block("pc.ram", 8 << 20)
            rewriter.save(tmp_path / "small.mig")
        remedy = judge(path, read_targets([str(tmp_path / "small.mig"), "7.2"])).remedy
        assert remedy is not None
        assert remedy.command is None
        assert not any("drop-block" in word for word in remedy.words)


def test_which_of_two_backends_is_not_guessed(tmp_path: Path) -> None:
    with qmigtool.open(casefiles.put("load", "g212.mig", tmp_path)) as stream:
        rewriter = Rewriter(stream)
        rewriter.rename_block("pc.ram", "node0")
        rewriter.rename_block("vga.vram", "node1")  # both of 16 MiB, and now nothing tells them apart
        rewriter.save(tmp_path / "nodes.mig")
    with qmigtool.open(tmp_path / "g212.mig") as stream:
        rewriter = Rewriter(stream)
        rewriter.rename_block("pc.ram", "m0")
        rewriter.rename_block("vga.vram", "m1")
        rewriter.save(tmp_path / "target.mig")
    remedy = judge(tmp_path / "nodes.mig", read_targets([str(tmp_path / "target.mig"), "10.0"])).remedy
    assert remedy is not None
    assert remedy.command is None
    assert "node0 may hold the guest's memory, and 2 blocks of the target have its size" in remedy.why
