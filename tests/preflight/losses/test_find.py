"""What the target has and the file does not, against what real QEMU had (``resaved.json``)."""

from __future__ import annotations

import lzma
from dataclasses import replace

import pytest

import qmigtool
from qmigtool.findings import Finding, Severity
from qmigtool.findings.text import sentence
from qmigtool.preflight import Target, TargetBlock
from qmigtool.preflight.losses.find import find_losses, grouped
from qmigtool.preflight.target.reference import target_from_stream
from qmigtool.rewrite import Rewriter
from tests.preflight.losses.lost import VERSIONS, losses, only, runs
from tests.ram import test_unplugged as unplugged
from tests.stream import test_missing as missing
from tests.support.paths import SAMPLES


@pytest.mark.parametrize("version", VERSIONS)
def test_what_real_qemu_had_and_the_file_lacked(version: str) -> None:
    run = runs()[f"missing-{version}"]
    assert run["loaded"]

    def drop(edits: Rewriter) -> None:
        for name in ("hpet", "timer", "cpu@1", "globalstate"):
            edits.drop_section(name)
        edits.drop_block("pc.bios")

    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        target = target_from_stream(stream)
    found = losses("pc-7.2", target, drop)
    missing = {one.device: one.severity for one in only(found, "missing-section")}
    assert sorted(missing, key=str) == run["sections_new"]
    assert missing == {
        "cpu@1": Severity.WARNING,
        "timer@0": Severity.WARNING,
        "hpet@0": Severity.NOTE,
        "globalstate@0": Severity.NOTE,
    }
    assert [(one.device, one.severity) for one in only(found, "missing-block")] == [("pc.bios", Severity.NOTE)]


def test_a_section_by_its_compat_name_or_an_alias_is_not_missing() -> None:
    # Cases C17 and C19.
    def rename(edits: Rewriter) -> None:
        edits.rename_section("0000:00:01.1/ide", "ide")
        edits.rename_section("hpet", "hpet", 0xFFFFFFFF)

    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        target = target_from_stream(stream)
    assert not only(losses("pc-7.2", target, rename), "missing-section")


def test_main_memory_that_is_missing_is_no_note() -> None:
    target = Target(blocks={"mem1": TargetBlock(0x1000), "x.rom": TargetBlock(0x1000)})
    found = {one.device: one.severity for one in only(losses("pc-7.2", target), "missing-block")}
    assert found == {"mem1": Severity.WARNING, "x.rom": Severity.NOTE}


def packed(name: str) -> qmigtool.Stream:
    return qmigtool.open(lzma.decompress((SAMPLES / "packed" / f"{name}.mig.xz").read_bytes()))


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("multifd-zlib-7.2", Severity.ERROR),  # 348 of 4178 pages were non-zero, and travelled in two other channels
        ("multifd-none-11.1", Severity.ERROR),  # since 9.0 also zero pages do
        ("postcopy-preempt-7.2", Severity.ERROR),
        ("vmem-11.1", None),  # 128 MiB, of which 64 are not plugged
        ("plain-7.2", None),
        ("xbzrle-7.2", None),
    ],
)
def test_memory_that_went_another_way(name: str, lost: Severity | None) -> None:
    with packed(name) as stream:
        found = only(find_losses(stream, target_from_stream(stream)), "missing-pages")
    assert [one.severity for one in found] == ([] if lost is None else [lost])


@pytest.mark.parametrize(
    ("data", "lost", "says"),
    [
        # A main channel of multifd with virtio-mem: of 25 pages of the guest, 24 are plugged and not here.
        (unplugged.stream(unplugged.early(), sent=()), Severity.ERROR, "24 of 25 pages of memory are missing"),
        (unplugged.stream(unplugged.body(), sent=()), Severity.ERROR, "24 of 25 pages of memory are missing"),
        (unplugged.stream(unplugged.early()), None, ""),
        (missing.written(), Severity.ERROR, "4 of 8 pages of memory are missing"),
        (missing.written("x/virtio-mem"), Severity.NOTE, "virtio-mem may not have plugged them"),  # not readable
        (missing.written("x/virtio-balloon"), Severity.NOTE, "balloon"),
        (missing.written("x/virtio-balloon", whole=False), Severity.ERROR, "4 of 8 pages of memory are missing"),
    ],
)
def test_memory_is_missing_as_everywhere_else(data: bytes, lost: Severity | None, says: str) -> None:
    with qmigtool.open(bytes(data)) as stream:
        found = only(find_losses(stream, Target()), "missing-pages")
    assert [one.severity for one in found] == ([] if lost is None else [lost])
    assert all(says in one.message for one in found)


def test_the_same_target_loses_nothing() -> None:
    for name in ("pc-7.2", "q35-7.2", "pc-11.1", "microvm-10.0", "kvm-avx512-7.2", "twin-kvm-10.0"):
        with qmigtool.open(SAMPLES / f"{name}.mig") as stream:
            target = target_from_stream(stream)
            assert find_losses(stream, target).findings == ()


def test_another_architecture_is_not_judged_by_x86() -> None:
    assert losses("arm-7.2", Target(accelerator="kvm", xcr0=7)).findings == ()


def test_what_is_not_known_is_said() -> None:
    unknown = " ".join(map(sentence, losses("pc-7.2", Target()).unknown))
    for word in ("sections", "XCR0", "accelerator", "features"):
        assert word in unknown
    assert "hvf" in " ".join(map(sentence, losses("pc-7.2", Target(accelerator="hvf")).unknown))


def test_findings_of_many_vcpus_are_one_for_people() -> None:
    one = Finding("r", Severity.ERROR, "m", "why", device="cpu@0", path="f", offset=5)
    many = [replace(one, device=f"cpu@{number}", offset=number) for number in (0, 1, 2, 5, 7, 8)]
    assert [(found.where, found.offset) for found in grouped(many)] == [("cpu@0-2,5,7-8/f", 0)]
    assert grouped([one, replace(one, message="other")]) == [one, replace(one, message="other")]
    assert grouped([replace(one, device="pc.ram"), replace(one, device="pc.rom")]) == [
        replace(one, device="pc.ram"),
        replace(one, device="pc.rom"),
    ]
