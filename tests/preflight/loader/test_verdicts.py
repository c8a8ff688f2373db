"""What was decided wrongly once (``tests/data/cases/load``), against what real QEMU did with it; and variants.

Each case says how real QEMU 5.2, 7.2, 10.0 or 11.1 took the stream: by its own words, or that it loaded it.
"""

from __future__ import annotations

import functools
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
from qmigtool.findings import Finding
from qmigtool.findings.text import sentence
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight import Preflight, Target, preflight, read_targets
from qmigtool.preflight.loader.predict import predict_source
from qmigtool.preflight.target.builds import target_from_version
from qmigtool.preflight.target.reference import merge, target_from_stream
from tests.parsers.test_saveimage import save_image
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


@functools.cache
def case(name: str) -> bytes:
    return casefiles.read("load", name)


def target(name: str, version: str | None, data: bytes | None = None) -> Target:
    """The target that saved a reference, with its version if that is given."""
    with qmigtool.open(data or case(name)) as stream:
        found = target_from_stream(stream, name)
    if version is None:
        return found
    numbers = tuple(map(int, version.split(".")))
    x86 = not name.startswith(("arm", "sparc"))
    return replace(merge(target_from_version(numbers), found) if x86 else found, qemu=numbers)


def judged(data: bytes, aim: Target) -> Preflight:
    with qmigtool.open(data) as stream:
        return preflight(stream, aim)


# -- what loads ------------------------------------------------------------------------------------------------------


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


# -- the version -----------------------------------------------------------------------------------------------------


def test_a_version_is_bounded_by_what_the_reference_shows() -> None:
    (note,) = (
        one for one in judged(case("c2.mig"), target("c2.mig", None)).verdict.notes if "is unknown" in one.message
    )
    assert "from 10.0 on, before 10.2" in note.message
    assert "SWITCHOVER_START" in note.message


def test_where_possible_versions_disagree_the_version_decides() -> None:
    """A command of 10.0; of the target nothing shows a version."""
    aim = replace(target("c2.mig", None), bounds=(), machine=None)
    with qmigtool.open(case("c2.mig")) as stream:
        machine = stream.machine
    found = predict_source(BufferSource(case("c2.mig")), replace(aim, machine=machine, bounds=()))
    assert found.loads is True  # the machine type is there since 10.0
    old = case("c2.mig").replace(b"pc-i440fx-10.0", b"pc-i440fx-5.12")
    found = predict_source(BufferSource(old), replace(aim, machine="pc-i440fx-5.12"))
    assert found.loads is None
    assert found.doubts[0].message.startswith(
        "QEMU from 5.12 on, before 10.0 refuses it (MIG_CMD 0xb unknown (len 0x0)); "
    )
    assert found.doubts[0].message.endswith("QEMU from 10.0 on loads it: --target VERSION decides it")


def test_words_are_given_for_every_version_that_is_possible() -> None:
    aim = replace(target("c2.mig", None), bounds=(), machine="isapc")
    found = predict_source(BufferSource(case("c2.mig")), aim)
    assert (found.loads, found.rule) == (False, "machine-type")
    assert found.errors[0] == "Machine type received is 'pc-i440fx-10.0' and local is 'isapc'"
    ((who, lines),) = found.otherwise
    assert who == "QEMU from 10.2 on"
    assert lines[0].startswith("load of migration failed: Invalid argument: post load hook failed for: configuration")


@pytest.mark.parametrize("accelerator", ["mshv", "whpx"])
def test_hyper_v_is_11_1_or_later(accelerator: str) -> None:
    aim = replace(target("c2.mig", None), bounds=(), machine="isapc", accelerator=accelerator)
    found = predict_source(BufferSource(case("c2.mig")), aim)
    assert found.otherwise == ()
    assert found.errors[0].startswith("load of migration failed: Invalid argument: post load hook")


# -- what is refused -------------------------------------------------------------------------------------------------


def test_shared_memory_must_lie_where_it_lay() -> None:
    found = judged(case("ignshared-7.2.mig"), target("ignshared-7.2.ref", "7.2")).verdict
    assert found.loads is False
    assert found.errors == (
        "Mismatched GPAs for block 0000:00:01.0/x 4261412864!= 0",
        "error while loading state for instance 0x0 of device 'ram'",
        "load of migration failed: Invalid argument",
    )
    # Against itself the addresses are alike; the shared memory is nowhere to be seen.
    itself = judged(case("ignshared-7.2.mig"), target("ignshared-7.2.mig", "7.2")).verdict
    assert itself.loads is None
    assert all("shared memory" in doubt.message for doubt in itself.doubts)


def test_more_registers_than_an_arm_cpu_has() -> None:
    found = judged(case("armmax.mig"), target("arm72.mig", "7.2")).verdict
    assert found.errors == (
        "Invalid value 304 expecting positive value <= 258",
        "Failed to load cpu:cpreg_vmstate_array_len",
        "error while loading state for instance 0x0 of device 'cpu'",
        "load of migration failed: Invalid argument",
    )


def edited(name: str, path: str, index: int, value: int) -> bytes:
    """Change one 64-bit element of an array."""
    data = bytearray(case(name))
    with qmigtool.open(case(name)) as stream:
        at = stream.field(path).offset + 8 * index
    data[at : at + 8] = value.to_bytes(8, "big")
    return bytes(data)


def index_of(name: str, number: int) -> int:
    with qmigtool.open(case(name)) as stream:
        raw = bytes(stream.field("cpu@0/cpreg_vmstate_indexes").raw)
    return [int.from_bytes(raw[at : at + 8], "big") for at in range(0, len(raw), 8)].index(number)


ID_ISAR0_EL1, SCTLR_EL1 = 0x6030_0000_0013_C010, 0x6030_0000_0013_C080


def test_an_arm_cpu_that_is_another_one() -> None:
    """By register: what tells the CPU must be equal, what a guest writes need not."""
    aim = target("arm72.mig", "7.2")
    values = "cpu@0/cpreg_vmstate_values"
    other = judged(edited("arm72.mig", values, index_of("arm72.mig", ID_ISAR0_EL1), 0x2101111), aim).verdict
    assert (other.loads, other.section, other.errors[-1]) == (
        False,
        "cpu",
        "load of migration failed: Operation not permitted",
    )
    written = judged(edited("arm72.mig", values, index_of("arm72.mig", SCTLR_EL1), 0x30C50830), aim).verdict
    assert written.loads is True


def test_registers_are_compared_by_name_since_11() -> None:
    """As real 11.1 said of it, line by line (its warnings about the machine type left out)."""
    found = judged(case("armmax.mig"), target("arm72-11.1.ref", "11.1")).verdict
    real = case("armmax-into-11.1.txt").decode().splitlines()
    assert list(found.errors) == [line.removeprefix("qemu-system-aarch64: ").rstrip() for line in real]
    # The same CPU of 7.2 has registers that 11.1 does not know: real 11.1 refuses it, too.
    assert judged(case("arm72.mig"), target("arm72-11.1.ref", "11.1")).verdict.rule == "registers"
    # A target that has more than the stream tells so, and goes on.
    fewer = judged(case("arm72-11.1.ref"), target("arm72-11.1.ref", "11.1")).verdict
    assert (fewer.loads, fewer.warnings) == (True, ())


def test_a_longer_blob_than_the_stream_says() -> None:
    """The size of a TPM's state is in the stream: one more there, and the next field is read too late."""
    data = bytearray(case("tpm-tis-10.0.mig"))
    with qmigtool.open(case("tpm-tis-10.0.mig")) as stream:
        at = stream.field("tpm-emulator@0/state_blobs.permanent.size").offset
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 1).to_bytes(4, "big")
    assert judged(bytes(data), target("tpm-tis-10.0.ref", "10.0")).loads is not True


def test_a_run_state_that_no_qemu_has() -> None:
    found = judged(casefiles.read("load", "gs2.mig"), target("pc72.mig", "7.2"))
    assert found.loads is False


# -- what is not decided ---------------------------------------------------------------------------------------------


def undecided(found: Preflight) -> tuple[Finding, ...]:
    assert (found.loads, found.verdict.errors) == (None, ())
    assert found.doubts
    assert all("decide" in doubt.message for doubt in found.doubts)
    return found.doubts


def test_memory_that_went_by_other_channels() -> None:
    (doubt,) = undecided(judged(case("mfddest-10.0.mig"), target("mfddest-10.0.ref", "10.0")))
    assert "--channel" in doubt.message


def test_how_many_vcpus_a_target_can_have() -> None:
    """With the tables of its reference it is known (above), without them it is not, and a wrong number is refused."""
    name, aim = "maxcpus-q35-7.2.by-11.1.mig", target("maxcpus-q35-7.2.ref", "7.2")
    assert aim.maxcpus == 8
    (doubt,) = undecided(judged(case(name), replace(aim, maxcpus=None)))
    assert "`maxcpus`" in doubt.message
    few = judged(case(name), replace(aim, maxcpus=4)).verdict
    assert few.errors[0] == "Missing section footer for 0000:00:1f.0/ICH9LPC"


def test_which_block_is_low_memory() -> None:
    """Main memory by two names that people gave; the stream's own page tells, if only one has a ROM there."""
    data = case("numa-dimm-11.1.mig").replace(b"\x06pc.ram", b"\x06node_a")
    reference = case("numa-dimm-11.1.ref").replace(b"\x06pc.ram", b"\x06node_a")
    assert judged(data, target("numa-dimm-11.1.ref", "11.1", reference)).loads is True


def test_features_that_a_backend_brings() -> None:
    (doubt,) = undecided(judged(case("f6b.mig"), target("f6ref.mig", "10.0")))
    assert sentence(doubt).startswith("0000:00:01.0/virtio-net@0: virtio: whether the target's device offers features")


# -- virtio's rings --------------------------------------------------------------------------------------------------


def test_a_ring_that_was_used_further() -> None:
    found = judged(case("c7b.mig"), target("c7ref.mig", "10.0")).verdict
    assert found.loads is False
    assert found.errors[0] == "VQ 0 size 0x100 < last_avail_idx 0x0 - used_idx 0x1"
    assert found.errors[-1] == "load of migration failed: Operation not permitted"


def test_a_ring_that_stands_still() -> None:
    found = judged(case("c7a.mig"), target("c7ref.mig", "10.0"))
    assert found.loads is True
    assert found.verdict.warnings == (
        "VQ 0 size 0x100 Guest index 0x1 inconsistent with Host index 0x200: delta 0xfe01",
    )
    assert [one.device for one in found.losses if one.rule == "device-broken"] == ["0000:00:01.0/virtio-blk@0"]


def test_packed_rings_with_requests_in_flight_load_nowhere() -> None:
    """QEMU refuses its own file: it writes a word before an element, and reads it behind."""
    found = judged(case("iblkpk100.mig"), target("iblkpk100.mig", "10.0")).verdict
    assert (found.loads, found.errors) == (False, ("virtio: unexpected memory split",))


@pytest.mark.parametrize("change", [1, 0x200])
def test_last_avail_idx_of_mmio(change: int) -> None:
    """A queue of 5.2's virtio-mmio whose index is moved: refused, or (by 0x200) left alone."""
    data = bytearray(case("mm52.mig"))
    aim = target("mm52.mig", "5.2")
    with qmigtool.open(case("mm52.mig")) as stream:
        device = next(one for one in stream.devices if one.name.endswith("/virtio-blk"))
        at = next(field.offset for field in device.fields if field.name == "virtio")
    # host and guest selectors, page shift; status, isr, queue_sel, features; config; queues
    at += 12 + 8
    at += 4 + int.from_bytes(data[at : at + 4], "big") + 4
    last = at + 4 + 4 + 8
    index = int.from_bytes(data[last : last + 2], "big")
    data[last : last + 2] = ((index - change) & 0xFFFF).to_bytes(2, "big")
    found = judged(bytes(data), aim)
    assert found.loads is False or any(one.rule == "device-broken" for one in found.losses)


# -- schema diff -----------------------------------------------------------------------------------------------------


def test_a_field_that_the_stream_tells_of_breaks_nothing() -> None:
    from qmigtool.schemadiff import Effect, compare_schemas, of_stream

    with (
        qmigtool.open(case("dc390-off-10.0.mig")) as old,
        qmigtool.open(case("dc390-off-10.0.by-11.1.ref")) as new,
    ):
        found = compare_schemas(of_stream(old), of_stream(new))
    assert not [one for one in found.differences if one.forward is Effect.BREAKS]


# -- the command -----------------------------------------------------------------------------------------------------


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
