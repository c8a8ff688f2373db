"""What was decided wrongly once (``tests/data/cases/load``), against what real QEMU did with it; and variants.

Each case says how real QEMU 5.2, 7.2, 10.0 or 11.1 took the stream: by its own words, or that it loaded it.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.findings.text import sentence
from qmigtool.preflight import read_targets
from tests.parsers.test_saveimage import save_image
from tests.preflight.loader.decided import case, judged, target, undecided
from tests.support import casefiles, samplefiles
from tests.support.paths import SAMPLES
from tests.support.ramwriter import channel, packet

LOADS = [
    ("numa-dimm-11.1.mig", "numa-dimm-11.1.ref", "11.1"),
    ("maxcpus-q35-7.2.by-11.1.mig", "maxcpus-q35-7.2.ref", "7.2"),
    ("maxcpus-pc-5.2.mig", "maxcpus-pc-5.2.ref", "5.2"),
    ("dc390-off-10.0.mig", "dc390-off-10.0.by-11.1.ref", "11.1"),
    ("sparc-ss5-7.2.mig", "sparc-ss5-7.2.ref", "7.2"),
    ("c12.mig", "c12tref.mig", "7.2"),
    ("tpm-tis-10.0.mig", "tpm-tis-10.0.ref", "10.0"),
    ("nic-tulip-11.1.mig", "nic-tulip-11.1.ref", "11.1"),
    ("arm72.mig", "arm72.mig", "7.2"),
    # virtio in use, against itself: PCI, without MSI-X, packed rings, mmio of 5.2
    ("pc72.mig", "pc72.mig", "7.2"),
    ("novec100.mig", "novec100.mig", "10.0"),
    ("pk111.mig", "pk111.mig", "11.1"),
    ("mm52.mig", "mm52.mig", "5.2"),
]


@pytest.mark.parametrize(("name", "reference", "version"), LOADS, ids=[name for name, _, _ in LOADS])
def test_real_qemu_loads_it(name: str, reference: str, version: str) -> None:
    found = judged(case(name), target(reference, version))
    assert (found.loads, found.verdict.doubts) == (True, ())
    assert not any(one.rule == "device-broken" for one in found.losses)


@pytest.mark.parametrize("name", ["c2.mig", "pc72.mig", "mm52.mig", "arm72.mig"])
def test_a_file_loads_in_the_qemu_that_saved_it_whatever_its_version(name: str) -> None:
    found = judged(case(name), target(name, None))
    assert found.loads is True
    assert "version of QEMU is unknown" in found.verdict.notes[0].message


def test_a_run_state_that_no_qemu_has() -> None:
    found = judged(casefiles.read("load", "gs2.mig"), target("pc72.mig", "7.2"))
    assert found.loads is False


def test_how_many_vcpus_a_target_can_have() -> None:
    """With the tables of its reference it is known (above), without them it is not, and a wrong number is refused."""
    name, aim = "maxcpus-q35-7.2.by-11.1.mig", target("maxcpus-q35-7.2.ref", "7.2")
    assert aim.maxcpus == 8
    (doubt,) = undecided(judged(case(name), replace(aim, maxcpus=None)))
    assert "`maxcpus`" in doubt.message
    few = judged(case(name), replace(aim, maxcpus=4)).verdict
    assert few.errors[0] == "Missing section footer for 0000:00:1f.0/ICH9LPC"


def test_a_field_that_the_stream_tells_of_breaks_nothing() -> None:
    from qmigtool.schemadiff import Effect, compare_schemas, of_stream

    with (
        qmigtool.open(case("dc390-off-10.0.mig")) as old,
        qmigtool.open(case("dc390-off-10.0.by-11.1.ref")) as new,
    ):
        found = compare_schemas(of_stream(old), of_stream(new))
    assert not [one for one in found.differences if one.forward is Effect.BREAKS]


Call = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    def run(*arguments: str) -> tuple[int, dict[str, object]]:
        words = ["preflight", *arguments, "--json"]
        monkeypatch.setattr(sys, "argv", ["qmigtool", *words])
        code = main.run(words)
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("name", "reference", "version", "loads", "status"),
    [
        ("c2.mig", "c2.mig", None, True, 0),
        ("c7b.mig", "c7ref.mig", "10.0", False, 1),
        ("c7a.mig", "c7ref.mig", "10.0", True, 1),
        ("f6b.mig", "f6ref.mig", "10.0", None, 63),
        ("mfddest-10.0.mig", "mfddest-10.0.ref", "10.0", None, 63),
    ],
)
def test_exit_status(
    call: Call, tmp_path: Path, name: str, reference: str, version: str | None, loads: bool | None, status: int
) -> None:
    aim = tmp_path / "aim"
    aim.mkdir()
    words = [casefiles.put("load", name, tmp_path), "--target", casefiles.put("load", reference, aim)]
    code, document = call(*words, *(["--target", version] if version else []))
    assert (code, document["loads"]) == (status, loads)
    assert bool(document["doubts"]) is (loads is None)
    assert (document["refusal"] is not None) is (loads is False)


PAGE, SLOTS = 4096, 128


def other_channel(path: str, pages: dict[int, bytes]) -> bytes:
    """The one other channel of the case: every page of every block is zero, but for these of main memory."""
    packets = b""
    with qmigtool.open(path) as stream:
        for block in stream.ram_blocks:
            offsets = [at for at in range(0, block.used_length, PAGE) if block.idstr != "pc.ram" or at not in pages]
            for first in range(0, len(offsets), SLOTS):
                packets += packet(zero=offsets[first : first + SLOTS], block=block.idstr)
    packets += packet([*pages], b"".join(pages.values()), block="pc.ram")
    return channel(3, packets)


@pytest.mark.parametrize(
    ("what", "loads", "status"),
    [("the ROM", True, 0), ("no ROM", False, 1), ("a part", None, 63)],
)
def test_the_other_channels_decide(call: Call, tmp_path: Path, what: str, loads: bool | None, status: int) -> None:
    """kvm-tpr-opt wants its option ROM in guest memory, and that went by another channel (the case's own are gone)."""
    path = casefiles.put("load", "mfddest-10.0.mig", tmp_path)
    reference = casefiles.put("load", "mfddest-10.0.ref", tmp_path)
    with qmigtool.open(path) as stream:
        rom = stream.field("kvm-tpr-opt@0/rom_state_paddr").value & ~0x3FF
    at = rom & ~(PAGE - 1)
    page = bytearray(PAGE)
    if what != "no ROM":
        page[rom % PAGE : rom % PAGE + 3] = b"\x55\xaa\x12"
    memory = other_channel(path, {at: bytes(page)})
    other = tmp_path / "channel"
    other.write_bytes(memory if what != "a part" else channel(3, packet([0], bytes(PAGE), block="pc.ram")))
    words = [path, "--target", reference, "--target", "10.0"]
    code, document = call(*words, "--channel", str(other))
    assert (code, document["loads"]) == (status, loads)
    refusal = document["refusal"]
    assert (refusal is not None) is (loads is False)
    assert call(*words)[0] == 63


HOLE = bytes(PAGE)


WHERE = "the stream begins at 0x1000: assumed to be loaded from file:PATH,offset=0x1000"


@pytest.mark.parametrize(
    ("wrap", "loads", "noted"),
    [
        (lambda pc: pc, True, False),
        (lambda pc: HOLE + pc, True, True),
        (lambda pc: gzip.compress(HOLE + pc), True, True),
        # libvirt reads its own head and hands QEMU the rest
        (save_image, True, False),
        (lambda pc: save_image(gzip.compress(pc), form=1), True, False),
        # a hole behind the head is no head of libvirt's
        (lambda pc: save_image(gzip.compress(HOLE + pc), form=1), True, True),
        (lambda pc: save_image(HOLE + pc), False, False),
    ],
    ids=["plain", "hole", "hole-in-gzip", "libvirt", "libvirt-gzip", "hole-in-libvirt-gzip", "hole-in-libvirt"],
)
def test_where_the_stream_begins(wrap: Callable[[bytes], bytes], loads: bool, noted: bool) -> None:
    pc = samplefiles.read("pc-7.2")
    aim = target("pc-7.2", "7.2", pc)
    found = judged(wrap(pc), aim).verdict
    assert (found.loads, WHERE in map(sentence, found.notes)) == (loads, noted)
    assert [sentence(note) for note in found.notes if "begins at" in note.message] == [WHERE] * noted


def test_what_may_be_lost_is_63_although_it_loads(call: Call, tmp_path: Path) -> None:
    """KVM on a host for which it is not given whether it has the components that the guest uses."""
    sample = str(SAMPLES / "kvm-avx512-7.2.mig")
    code, document = call(sample, "--target", sample)
    assert (code, document["loads"]) == (0, True)  # the file itself shows what its host has
    toml = tmp_path / "t.toml"
    with qmigtool.open(sample) as stream, io.BytesIO() as out:
        rewriter = qmigtool.Rewriter(stream)
        for vcpu in stream.vcpus:
            rewriter.set(f"{vcpu.device.label}/env.xcr0", 1)
        rewriter.write(out)
        fresh = tmp_path / "fresh.mig"
        fresh.write_bytes(out.getvalue())
    toml.write_text('accelerator = "kvm"\n')
    code, document = call(sample, "--target", str(fresh), "--target", str(toml), "--target", "7.2")
    assert (code, document["loads"]) == (63, True)
    assert any("components" in str(one) for one in document["doubts"])  # type: ignore[attr-defined]
    # 10.0 ends where KVM refuses it.
    code, document = call(sample, "--target", str(fresh), "--target", str(toml), "--target", "10.0")
    assert (code, document["loads"]) == (63, None)


def test_targets_of_other_architectures_have_no_tables_of_x86() -> None:
    assert read_targets(["virt-7.2", "7.2"]).vmsds is None
    assert read_targets(["pc-q35-7.2", "7.2"]).vmsds is not None
