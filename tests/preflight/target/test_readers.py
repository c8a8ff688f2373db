"""Targets, read from what real QEMU prints and from TOML."""

from __future__ import annotations

import gzip
import json
import lzma
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import qmigtool
from qmigtool.devices.schema.cpusection import BY_CPUID
from qmigtool.devices.schema.model import built_in
from qmigtool.devices.schema.shapes import bare, subsections
from qmigtool.devices.schema.vmsds import subsection_shape
from qmigtool.errors import LimitError, QmigError, StreamError, UsageError
from qmigtool.preflight import Target, read_target, read_targets
from qmigtool.preflight.target.builds import target_from_version
from qmigtool.preflight.target.cpuidflags import KNOWN, features_of_dump
from qmigtool.preflight.target.cpumodel import SUPERVISOR, USER, masks_of_flags
from qmigtool.preflight.target.masks import PartitionProperty, properties_of_table, properties_of_text
from qmigtool.preflight.target.model import TargetBlock, TargetSection, TargetVmsd
from qmigtool.preflight.target.names import cpu_flags
from qmigtool.preflight.target.readers import template
from qmigtool.preflight.target.reference import merge, target_from_stream
from qmigtool.preflight.target.targetfile import KEYS
from qmigtool.preflight.target.vcpus import with_vcpus
from tests.preflight.recorded import reference
from tests.support import paths, samplefiles
from tests.support.paths import SAMPLES

PC = str(SAMPLES / "pc-7.2.mig")
DATA = paths.DATA / "preflight" / "targets"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "vmstate.txt"  # by content, not by name
    path.write_bytes(lzma.decompress((DATA / "dump-pc-7.2.json.xz").read_bytes()))
    return path


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "target.txt"
        path.write_text(text)
        return str(path)

    return write


# -- a stream that the target saved ----------------------------------------------------------------------------------


def test_a_stream_shows_what_its_machine_has() -> None:
    target = read_target(str(SAMPLES / "q35-7.2.mig"))
    assert target.machine == "pc-q35-7.2"
    assert (target.vcpus, target.page_bits, target.accelerator) == (3, 12, "tcg")
    assert target.sections is not None
    assert target.blocks is not None
    assert target.sections["0000:00:03.0/virtio-net", 0].version == 11
    assert target.sections["ram", 0].version == 4
    assert ("dirty-bitmap", 0) in target.sections  # every QEMU has it, and nothing shows it
    hpet = target.sections["hpet", 0]
    assert hpet.vmsd == "hpet"
    assert hpet.description is not None
    assert hpet.template is not None
    assert len(hpet.template) == hpet.description.size
    assert target.blocks["0000:00:03.0/virtio-net-pci.rom"] == TargetBlock(0x40000)
    assert target.blocks["/rom@etc/acpi/tables"].max_length == 0x200000
    assert target.properties == {"send-configuration": True, "send-section-footer": True, "suppress-vmdesc": False}
    assert "XSTATE_BV" in target.evidence["accelerator"]


def test_what_was_off_shows_in_the_stream() -> None:
    assert read_target(str(SAMPLES / "noconfig-7.2.mig")).properties["send-configuration"] is False
    assert read_target(str(SAMPLES / "novmdesc-7.2.mig")).properties["suppress-vmdesc"] is True


def test_the_tsc_of_a_kvm_stream_is_the_hosts() -> None:
    target = read_target(str(SAMPLES / "kvm-avx512-7.2.mig"))
    assert (target.tsc_khz, target.host_tsc_khz, target.accelerator) == (None, 2596138, "kvm")


def test_a_stream_behind_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "offset.mig"  # file:PATH,offset=0x12345
    path.write_bytes(lzma.decompress((SAMPLES / "packed" / "file-offset-11.1.mig.xz").read_bytes()))
    assert read_target(str(path)).machine == "pc-i440fx-11.1"


def test_the_tables_are_those_of_x86(tmp_path: Path) -> None:
    # s390x has a `cpu`, too, of version 4; nothing of x86's is believed of it.
    path = tmp_path / "s390x.mig"
    path.write_bytes(lzma.decompress((SAMPLES / "packed" / "s390x-min-7.2.mig.xz").read_bytes()))
    target = read_targets([str(path), "7.2"])
    assert target.sections is not None
    assert target.sections["cpu", 0].minimum_version is None
    assert target.vmsds is None


def test_a_broken_reference_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.mig"
    path.write_bytes((SAMPLES / "pc-7.2.mig").read_bytes()[:100_000])
    with pytest.raises(StreamError):
        read_target(str(path))


# -- -dump-vmstate ---------------------------------------------------------------------------------------------------


def test_a_dump_knows_minimum_versions_and_every_subsection(dump: Path) -> None:
    target = read_target(str(dump))
    assert target.machine == "pc-i440fx-7.2"
    assert target.vmsds is not None
    hpet = target.vmsds["hpet"]
    assert (hpet.version, hpet.minimum_version) == (2, 1)
    assert hpet.subsections == {"hpet/rtc_irq_level", "hpet/offset"}
    # VMSTATE_UINT8_V(num_timers, HPETState, 2) in hw/timer/hpet.c
    assert hpet.field_versions == {"config": 0, "isr": 0, "hpet_counter": 0, "num_timers": 2, "timer": 0}
    assert target.vmsds["i8254"].minimum_version == 2
    assert "fdrive/media_rate" in target.vmsds["fdrive"].subsections  # of a struct inside a device
    assert target.vmsds["hpet/offset"].version == 1
    # Two devices call different things by one name.
    assert target.vmsds["ne2000"].version is None
    assert target.vmsds["cirrus_vga"] == TargetVmsd(2, None)


def test_a_dump_fills_the_sections_of_a_reference(dump: Path) -> None:
    target = read_targets([str(SAMPLES / "pc-7.2.mig"), str(dump)])
    assert target.sections is not None
    hpet = target.sections["hpet", 0]
    assert (hpet.version, hpet.minimum_version) == (2, 1)
    assert hpet.subsections == {"hpet/rtc_irq_level", "hpet/offset"}
    assert target.sections["cpu", 0].minimum_version is None  # the dump has no cpu
    assert {*target.evidence["sections"].split(", ")} >= {"a stream saved by the target"}


@pytest.mark.parametrize(
    "text",
    [
        '{"vmschkmachine": {"Name": 3}}',
        '{"vmschkmachine": {"Name": "pc"}}',
        '{"vmschkmachine": {"Name": "pc"}, "hpet": {"Description": {"name": "hpet"}}}',
        '{"vmschkmachine": {"Name": "pc"}, "hpet": {"Description": '
        '{"name": "hpet", "version_id": -1, "minimum_version_id": 0}}}',
    ],
)
def test_a_dump_that_is_none(written: Callable[[str], str], text: str) -> None:
    with pytest.raises(StreamError):
        read_target(written(text))


def test_a_dump_nested_without_end(written: Callable[[str], str]) -> None:
    body = '{"name": "a", "version_id": 1, "minimum_version_id": 1}'
    for _ in range(80):
        body = f'{{"name": "a", "version_id": 1, "minimum_version_id": 1, "Subsections": [{body}]}}'
    device = f'{{"version_id": 1, "minimum_version_id": 1, "Description": {body}}}'
    with pytest.raises(QmigError, match="deep"):
        read_target(written(f'{{"vmschkmachine": {{"Name": "pc"}}, "x": {device}}}'))


# -- QEMU's versions -------------------------------------------------------------------------------------------------


def test_a_version_knows_its_vmsds() -> None:
    target = read_target("7.2.22")
    assert target.qemu == (7, 2, 22)
    assert target.vmsds is not None
    assert target.vmsds["cpu"].minimum_version == 11
    known = {version: read_target(version).vmsds or {} for version in ("7.2", "10.0", "11.1")}
    # accelerators.md 1.2: which came when (read in the sources of these releases).
    for name, there in (
        ("cpu/intel_amx_xtile", (True, True, True)),
        ("cpu/fred", (False, True, True)),
        ("cpu/msr_hwcr", (False, True, True)),
        ("cpu/apx", (False, False, True)),
        ("cpu/cet", (False, False, True)),
        ("cpu/error_code", (False, False, True)),
    ):
        assert tuple(name in vmsds["cpu"].subsections for vmsds in known.values()) == there


def test_the_tables_agree_with_a_dump_of_the_same_qemu(dump: Path) -> None:
    built_in = target_from_version((7, 2)).vmsds or {}
    for name, vmsd in (read_target(str(dump)).vmsds or {}).items():
        ours = built_in[name]
        assert replace(ours, field_versions=None) == replace(vmsd, field_versions=None), name
        if ours.field_versions is not None and vmsd.field_versions is not None:
            # What the table leaves out is in every body; of a name that is there twice it has both, numbered.
            said = {field: since for field, since in ours.field_versions.items() if not field.endswith("]")}
            assert said.items() <= vmsd.field_versions.items(), name
            assert {field for field, since in vmsd.field_versions.items() if since > vmsd.minimum_version} <= {
                field.partition("[")[0] for field in ours.field_versions
            } | set(ours.field_versions), name


def test_between_two_builds_only_what_both_have_alike_is_known() -> None:
    between = target_from_version((9, 0)).vmsds or {}
    assert between["cpu"].version == 12
    assert "cpu/avx512" in between["cpu"].subsections
    assert between["cpu"].maybe == {"cpu/fred", "cpu/msr_hwcr", "cpu/xen_vcpu"}
    assert between["hpet"].version == 2
    assert target_from_version((5, 1)).vmsds is None
    assert target_from_version((11, 2)).vmsds is None


def test_what_5_2_knows_of_a_vcpu_and_of_its_own_misspelt_subsection() -> None:
    """As include/migration and target/i386/machine.c of 5.2 have it, and hw/virtio/virtio-balloon.c."""
    vmsds = target_from_version((5, 2)).vmsds or {}
    assert "cpu/msr_smi_count" in vmsds["cpu"].subsections
    assert "cpu/pkrs" not in vmsds["cpu"].subsections  # came with 6.0
    assert (vmsds["esp"].version, (target_from_version((7, 2)).vmsds or {})["esp"].version) == (4, 6)
    assert "vitio-balloon-device/page-poison" in vmsds["virtio-balloon-device"].subsections
    assert target_from_version((12, 0)).vmsds is None


def test_block_migration_ended_with_9_1() -> None:
    for version, there in (("7.2", True), ("9.0", True), ("9.1", False), ("11.1", False)):
        assert (("block", 0) in (read_targets([PC, version]).sections or {})) is there


# -- QMP -------------------------------------------------------------------------------------------------------------


def test_a_qmp_session() -> None:
    target = read_target(str(DATA / "qmp-session-7.2.json"))
    assert target.qemu == (7, 2, 22)
    assert target.capabilities["x-ignore-shared"] is False
    assert target.cpu_flags is not None
    assert {"xsave", "avx2", "pku", "mpx"} <= target.cpu_flags
    assert "avx512f" not in target.cpu_flags
    # CPUID.(0DH,0) of a TCG guest with -cpu max says 0x21f; its XSS mask is 0.
    assert (target.xcr0, target.xss) == (0x21F, 0)


def test_an_expansion_with_and_without_its_return(written: Callable[[str], str]) -> None:
    text = (DATA / "expansion-max-11.1.json").read_text()
    bare = read_target(written(json.dumps(json.loads(text)["return"])))
    wrapped = read_target(str(DATA / "expansion-max-11.1.json"))
    assert bare.cpu_flags == wrapped.cpu_flags
    assert wrapped.xcr0 == 0x21F


def test_features_bring_components() -> None:
    assert masks_of_flags({"avx"}) == (3, 0)  # without xsave there is no XCR0
    assert masks_of_flags({"xsave", "avx", "avx512f", "pku", "amx-tile"}) == (0x602E7, 0)
    assert masks_of_flags({"xsave", "xsaves", "cet-ss", "arch-lbr"}) == (3, 0x9800)
    assert masks_of_flags({"xsave", "cet-ss"}) == (3, 0)  # IA32_XSS is there with XSAVES only


def test_a_few_properties_are_no_expansion(written: Callable[[str], str]) -> None:
    with pytest.raises(StreamError, match="full"):
        read_target(written('{"return": {"model": {"name": "max", "props": {"avx": true}}}}'))


# -- CPUID, layouts, partitions --------------------------------------------------------------------------------------


def test_a_cpuid_dump() -> None:
    target = read_target(str(SAMPLES / "cpuid" / "intel-spr-guest.txt"))
    assert target.xcr0 == 0x600E7
    assert target.layout is not None
    assert target.layout.standard_offset(17) == 2752
    # Read off the rows by hand: Sapphire Rapids' features, without PKU and CET.
    assert target.cpuid_flags is not None
    assert {
        "amx-tile",
        "avx512f",
        "fsgsbase",
        "la57",
        "lm",
        "nx",
        "pcid",
        "umip",
        "xfd",
        "xsaves",
    } <= target.cpuid_flags
    assert not {"pku", "cet-ss", "svm", "fred", "apxf"} & target.cpuid_flags


def test_features_of_an_instlatx64_dump() -> None:
    text = """
CPUID 00000001: 00A60F12-00100800-7EF8320B-178BFBFF
CPUID 00000007: 00000001-F1BF97A9-00405FDE-10000010 [SL 00]
CPUID 00000007: 00000020-00000000-00000000-00000000 [SL 01]
CPUID 80000001: 00A60F12-40000000-75C237FF-2FD3FBFF
"""
    flags = features_of_dump(text)  # a Ryzen 7000: PKU, SHSTK, SVM, no AMX
    assert flags is not None
    assert {"pku", "cet-ss", "svm", "fxsr-opt", "avx512f"} <= flags
    assert not {"amx-tile", "xfd", "la57", "lass"} & flags
    assert features_of_dump("CPUID 00000001: 00A60F12-00100800-7EF8320B-178BFBFF") is None


SPR_LINES = (SAMPLES / "cpuid" / "intel-spr-guest.txt").read_text().splitlines()


def cpu(number: int, amx: bool = True, lines: int | None = None) -> str:
    """One CPU of a dump; without AMX its leaf 7 says so, and leaf 0xD is the same."""
    rows = "\n".join(line for line in SPR_LINES if "0x" in line and "eax" in line)
    if not amx:
        old = next(line for line in rows.splitlines() if "0x00000007 0x00:" in line)
        edx = int(old[-8:], 16)
        assert edx >> 24 & 1
        rows = rows.replace(old, f"{old[:-8]}{edx & ~(1 << 24):08x}")
    return f"CPU {number}:\n" + "\n".join(rows.splitlines()[:lines]) + "\n"


def test_a_feature_is_what_every_cpu_has() -> None:
    alike = features_of_dump(cpu(0) + cpu(1))
    assert alike is not None
    assert "amx-tile" in alike
    assert features_of_dump(cpu(0)) == alike
    unnumbered = (cpu(0) + cpu(1, amx=False)).replace("CPU 0:", "").replace("CPU 1:", "")
    for mixed in (cpu(0) + cpu(1, amx=False), cpu(0, amx=False) + cpu(1), unnumbered):
        assert features_of_dump(mixed) == alike - {"amx-tile"}


def test_the_cpu_in_which_a_dump_ends_does_not_count() -> None:
    whole = features_of_dump(cpu(0))
    assert whole
    for lines in (1, 5, 12):
        assert features_of_dump(cpu(0) + cpu(1, lines=lines)) == whole
    # In the middle it does: nothing is known of its leaf 7.
    assert features_of_dump(cpu(0) + cpu(1, lines=5) + cpu(2)) is None


def test_a_dump_that_was_quoted_has_the_same_features(written: Callable[[str], str]) -> None:
    text = "\n".join(SPR_LINES) + "\n"
    plain = read_target(written(text))
    assert plain.cpuid_flags
    assert plain.layout is not None
    for quoted in ("> " + text.replace("\n", "\n> "), text.replace(" ecx", "\n>> ecx")):
        target = read_target(written(quoted))
        assert target.cpuid_flags == plain.cpuid_flags
        assert target.layout is not None
        assert target.layout.rows == plain.layout.rows


def test_a_layout_by_name() -> None:
    target = read_target("amd-zen4")
    assert target.layout is qmigtool.layout("amd-zen4") or target.layout == qmigtool.layout("amd-zen4")
    assert (target.xcr0, target.xss) == (0x2E7, 0x1800)


def test_partition_properties() -> None:
    target = read_target(str(DATA / "partition.txt"))
    assert target.accelerator == "mshv"
    assert (target.xcr0, target.xss, target.xsave_max) == (0xE7, 0x1800, 4096)


@pytest.mark.parametrize(
    "text",
    [
        "XSAVE_STATES = 0x18e7",
        "0x00060007: 6375",
        '"HV_PARTITION_PROPERTY_XSAVE_STATES", 0x18E7',
        '{"XSAVE_STATES": "0x18e7"}',
        '{"0x60007": 6375}',
        "[partition]\nXSAVE_STATES = 0x18e7",
    ],
)
def test_partition_properties_in_any_dress(written: Callable[[str], str], text: str) -> None:
    target = read_target(written(text))
    assert (target.accelerator, target.xcr0, target.xss) == ("mshv", 0xE7, 0x1800)


def test_components_follow_from_a_partitions_features() -> None:
    # Bits 0 xsave, 2 avx, 6 avx512f, 27 amx_tile, 38 apx (which MSHV's states have no bit for).
    for features, xcr0 in ((1 << 2 | 1, 7), (1 << 6 | 1, 0xE3), (1 << 27 | 1, 0x60003), (1 << 38 | 1, 3), (1 << 2, 3)):
        text = f"PROCESSOR_XSAVE_FEATURES {features:#x}"
        assert properties_of_text(text) == {PartitionProperty.PROCESSOR_XSAVE_FEATURES: features}
        target = read_target_of(text)
        assert target.xcr0 == xcr0


def read_target_of(text: str) -> Target:
    from qmigtool.preflight.target.masks import target_from_properties

    return target_from_properties(properties_of_text(text), "a partition")


def test_hyper_v_has_no_pkru(written: Callable[[str], str]) -> None:
    with pytest.raises(StreamError, match="PKRU"):
        read_target(written("XSAVE_STATES 0x2e7"))
    with pytest.raises(StreamError, match="twice"):
        properties_of_text("XSAVE_STATES 7\n0x60007 = 3")
    with pytest.raises(StreamError, match="64-bit"):
        properties_of_table({"XSAVE_STATES": True})


# -- TOML ------------------------------------------------------------------------------------------------------------


def test_the_sample_says_what_it_says() -> None:
    target = read_target(str(SAMPLES / "target.toml"))
    assert (target.name, target.qemu, target.accelerator, target.irqchip) == ("zen4-kvm", (10, 0), "kvm", "kernel")
    assert (target.xcr0, target.xss, target.host_tsc_khz) == (0xE7, 0, 2596138)
    assert target.sections is not None
    assert ("kvmclock", 0) in target.sections
    assert target.layout is not None
    assert target.layout.name == "amd-zen4"


def test_the_sample_has_every_key() -> None:
    text = (SAMPLES / "target.toml").read_text()
    for key in KEYS:
        assert f"\n{key} = " in text or f"\n# {key} = " in text or f"[{key}]" in text, key


def test_every_key_is_read(written: Callable[[str], str]) -> None:
    target = read_target(
        written(
            """
            name = "all"
            qemu = "11.1.3"
            machine = "pc-q35-11.1"
            accelerator = "whpx"
            irqchip = "split"
            vcpus = "0x4"
            uuid = "12345678-1234-1234-1234-123456789ABC"
            page_size = "4K"
            page_size_host = 65536
            capabilities = ["mapped-ram"]
            globals = ["migration.send-configuration=off", "-global migration.send-section-footer=on"]
            xcr0 = "x87,sse,avx"
            xss = 0x1800
            xsave_max = 4096
            cpu_flags = ["AVX", "lahf_lm"]
            tsc_khz = 2000000
            host_tsc_khz = 2596138
            unmigratable = ["nvme"]
            [blocks]
            "pc.ram" = "16M"
            "/rom@etc/acpi/tables" = { size = "128K", max = "2M" }
            [[section]]
            name = "0000:00:02.0/hpet"
            version = 2
            [[section]]
            name = "serial"
            instance = 1
            version = 3
            minimum_version = 2
            subsections = ["serial/tsr"]
            """
        )
    )
    assert target.name == "all"
    assert target.qemu == (11, 1, 3)
    assert target.machine == "pc-q35-11.1"
    assert (target.accelerator, target.irqchip, target.vcpus) == ("whpx", "split", 4)
    assert target.uuid == "12345678-1234-1234-1234-123456789abc"
    assert (target.page_bits, target.page_size_host) == (12, 65536)
    assert target.capabilities == {"mapped-ram": True}
    assert target.properties == {"send-configuration": False, "send-section-footer": True}
    assert (target.xcr0, target.xss, target.xsave_max) == (7, 0x1800, 4096)
    assert target.cpu_flags == {"avx", "lahf-lm"}
    assert (target.tsc_khz, target.host_tsc_khz, target.unmigratable) == (2000000, 2596138, ("nvme",))
    assert target.blocks == {
        "pc.ram": TargetBlock(16 << 20),
        "/rom@etc/acpi/tables": TargetBlock(128 << 10, 2 << 20),
    }
    assert target.sections is not None
    assert target.sections["0000:00:02.0/hpet", 0].minimum_version == 2  # 11.1's hpet, by its vmsd's name
    serial = target.sections["serial", 1]
    assert (serial.version, serial.minimum_version) == (3, 2)
    assert serial.subsections is not None
    assert "serial/tsr" in serial.subsections


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('machin = "pc"', "machine"),
        ('accelerator = "xen"', "kvm"),
        ("qemu = 7.2", "as text"),
        ('qemu = "seven"', "as text"),
        ("vcpus = 0", "number"),
        ("vcpus = true", "number"),
        ('uuid = "x"', "UUID"),
        ("page_size = 4095", "power of two"),
        ('capabilities = "x"', "list"),
        ("capabilities = { a = 1 }", "true or false"),
        ('globals = ["e1000.x=on"]', "reference stream"),
        ('xcr0 = "x87,nosuch"', "component"),
        ('layout = "nosuch"', "layout"),
        ("files = 1", "list"),
        ('blocks = { "a" = "x" }', "bytes"),
        ('blocks = { "a" = { max = 1 } }', "size"),
        ('[[section]]\nname = "a"', "version"),
        ('[[section]]\nname = "a"\nversion = 1\nfoo = 1', "foo"),
        ('absent = ["hpet"]', "not known"),
        ("[partition]\nfoo = 1", "partition properties"),
        ("a = [", "TOML"),
        ("# nothing", "does not describe"),
        ("{}", "does not describe"),
        ('cpu_flags = ["avx", "bogus"]', "unknown 'bogus'"),
        ('cpu_flags = ["avx512"]', "avx512f"),
        ('capabilities = ["foo"]', "unknown 'foo'"),
        ("capabilities = { ignore-shared = true }", "x-ignore-shared"),
        ('globals = ["migration.send-bogus=off"]', "unknown 'send-bogus'"),
        ('[[section]]\nname = "a"\nversion = 1\nversio = 1', "unknown key 'versio'"),
        ("hello world", "TOML"),
    ],
)
def test_what_is_wrong_with_it_is_said(written: Callable[[str], str], text: str, says: str) -> None:
    with pytest.raises(QmigError, match=says) as caught:
        read_target(written(text))
    assert isinstance(caught.value, UsageError | StreamError)


def test_a_toml_that_nobody_writes(written: Callable[[str], str]) -> None:
    # Of 16 MB of lines with 199 dots tomllib makes tables of 4.6 GB; Python refuses to print numbers of 5000 digits.
    for text in (
        "\n".join(f"a{n}{'.a' * 199} = 1" for n in range(3000)),
        "a.b = 1\n" * 30_000,
        "xcr0 = " + "1" * 5000,
        "xcr0 = 0x" + "f" * 5000,
        "x = " + "[" * 5000,
    ):
        with pytest.raises(UsageError):
            read_target(written(text))


def test_files_of_a_toml_lie_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "masks").write_text("XSAVE_STATES 7")
    (folder / "t.toml").write_text('files = ["masks"]\naccelerator = "mshv"\nxcr0 = 3')
    read: list[str] = []
    target = read_target(str(folder / "t.toml"), read.append)
    assert target.xcr0 == 3  # what the TOML itself says is meant
    assert read == [str(folder / "t.toml"), str(folder / "masks")]


def test_files_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('files = ["b"]')
    (tmp_path / "b").write_text('files = ["a"]')
    with pytest.raises(UsageError, match="names itself"):
        read_target(str(tmp_path / "a"))
    (tmp_path / "wide").write_text('files = ["c"' + ', "c"' * 100 + "]")
    (tmp_path / "c").write_text("vcpus = 1")
    with pytest.raises(UsageError, match="more than 64 files"):
        read_target(str(tmp_path / "wide"))


def test_a_section_that_is_absent(written: Callable[[str], str]) -> None:
    target = read_target(written(f"files = ['{PC}']\nabsent = ['hpet@0']"))
    assert target.sections is not None
    assert ("hpet", 0) not in target.sections
    with pytest.raises(UsageError, match="hpex"):
        read_target(written(f"files = ['{PC}']\nabsent = ['hpex']"))


def test_absent_holds_for_what_other_targets_show(written: Callable[[str], str]) -> None:
    toml = written("absent = ['hpet@0', 'block']")
    for order in ([PC, toml, "7.2"], [toml, "7.2", PC]):
        sections = read_targets(order).sections
        assert sections is not None
        assert not {("hpet", 0), ("block", 0)} & sections.keys()
        assert ("timer", 0) in sections
    with pytest.raises(UsageError, match="which the target does not have"):
        read_targets([toml, PC, "9.1"])  # which has no block migration any more


# -- as many vCPUs as it says ----------------------------------------------------------------------------------------


def shown(name: str, path: Path) -> str:
    path.write_bytes(reference(name))
    return str(path)


@pytest.mark.parametrize(("count", "like"), [(2, "t01"), (4, "t00"), (5, "t06")])
def test_vcpus_are_those_that_a_qemu_with_so_many_shows(count: int, like: str, tmp_path: Path) -> None:
    (tmp_path / "n.toml").write_text(f"vcpus = {count}")
    real = read_target(shown(f"{like}-7.2", tmp_path / "real.mig"))
    for other in ("t00", "t01", "t06"):
        target = read_targets([shown(f"{other}-7.2", tmp_path / "other.mig"), str(tmp_path / "n.toml")])
        assert target.sections is not None
        assert real.sections is not None
        assert target.vcpus == count
        assert {key: one.version for key, one in target.sections.items()} == {
            key: one.version for key, one in real.sections.items()
        }


def test_a_reference_that_comes_later_overrides_vcpus(tmp_path: Path) -> None:
    (tmp_path / "n.toml").write_text("vcpus = 1")
    target = read_targets([str(tmp_path / "n.toml"), PC])
    assert target.vcpus == 4
    assert ("cpu", 3) in (target.sections or {})


def test_sections_of_vcpus_that_somebody_wrote_down_stay(written: Callable[[str], str]) -> None:
    target = read_targets([PC, written('vcpus = 2\n[[section]]\nname = "cpu"\ninstance = 9\nversion = 12')])
    assert target.sections is not None
    assert sorted(i for name, i in target.sections if name == "cpu") == [0, 1, 9]


def test_apic_ids_with_gaps(written: Callable[[str], str]) -> None:
    section = TargetSection(3, template=b"x")
    gaps = {("apic", 0): section, ("apic", 1): section, ("apic", 4): section}
    less = with_vcpus(Target(vcpus=2, sections=gaps))
    assert (less.sections or {}).keys() == {("apic", 0), ("apic", 1)}
    with pytest.raises(UsageError, match="gaps"):
        with_vcpus(Target(vcpus=4, sections=gaps))
    with pytest.raises(UsageError, match="0x1000"):
        read_target(written("vcpus = 4097"))


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "machine"),
    [
        # `-M help` of 7.2.22, 10.0.13 and 11.1.3: what pc and q35 are aliases of
        (["pc", "7.2"], "pc-i440fx-7.2"),
        (["q35", "10.0"], "pc-q35-10.0"),
        (["q35", "11.1.3"], "pc-q35-11.1"),
        (["q35", "10.0.50"], "pc-q35-10.1"),
        (["q35", "10.2.50"], "pc-q35-11.0"),
        ([str(SAMPLES / "q35-7.2.mig"), "q35"], "pc-q35-7.2"),
        (["pc", str(SAMPLES / "q35-7.2.mig")], "pc-q35-7.2"),  # a later one overrides
        (["pc-q35-7.2"], "pc-q35-7.2"),
        (["pc-q35-rhel9.2.0"], "pc-q35-rhel9.2.0"),
        (["microvm", "10.0"], "microvm"),
    ],
)
def test_machine_types_and_their_aliases(words: list[str], machine: str) -> None:
    assert read_targets(words).machine == machine


def test_an_alias_that_nothing_explains(written: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match="alias"):
        read_target(written('machine = "q35"'))
    with pytest.raises(UsageError, match="pc-i440fx-X"):
        read_targets([str(SAMPLES / "q35-7.2.mig"), "pc"])  # another family
    assert read_target(written('machine = "q35"\nqemu = "7.2"')).machine == "pc-q35-7.2"
    assert read_target(written('machine = "virt"')).machine == "virt"  # RISC-V's own name


def test_an_accelerator_by_name() -> None:
    target = read_targets(["kvm", "7.2"])
    assert (target.accelerator, target.evidence["accelerator"]) == ("kvm", "given")
    with pytest.raises(UsageError, match="kvm"):
        read_target("kvn")


def test_every_feature_that_is_asked_for_is_one_of_qemus() -> None:
    expansion = json.loads((DATA / "expansion-max-11.1.json").read_text())["return"]["model"]["props"]
    switches = {name.replace("_", "-") for name, on in expansion.items() if type(on) is bool}
    assert switches <= cpu_flags()
    asked = {*KNOWN, *USER, *SUPERVISOR, *(one for sub in BY_CPUID.values() for one in sub.features)}
    assert asked - cpu_flags() == {"lass"}  # QEMU has no LASS


def test_the_sample_is_the_template() -> None:
    assert template() == (SAMPLES / "target.toml").read_text()


def test_errors_name_the_file_once_and_who_named_it(tmp_path: Path) -> None:
    path = tmp_path / "t1.toml"
    path.write_text("target = 1")
    with pytest.raises(UsageError) as caught:
        read_target(str(path))
    assert (caught.value.file, caught.value.message) == (str(path), "unknown key 'target'")
    path.write_text('files = ["nosuch.mig"]')
    with pytest.raises(UsageError) as caught:
        read_target(str(path))
    assert (caught.value.file, caught.value.message) == (str(path), "files: nosuch.mig: No such file or directory")
    path.write_text('files = ["x"]')
    (tmp_path / "x").write_text("root:x:0:0:root:/root:/bin/bash")
    with pytest.raises(UsageError) as caught:
        read_target(str(path))
    assert caught.value.file == f"{path}: files: {tmp_path / 'x'}"
    assert "a migration stream saved by the target" in str(caught.value.expected)


def test_what_is_packed_is_what_it_would_be(tmp_path: Path) -> None:
    stream, dump = samplefiles.path("pc-7.2"), lzma.decompress((DATA / "dump-pc-7.2.json.xz").read_bytes())
    (tmp_path / "a").write_bytes(dump)
    for plain, pack in ((stream, gzip.compress), (stream, lzma.compress), (tmp_path / "a", lzma.compress)):
        packed = tmp_path / "packed"
        packed.write_bytes(pack(plain.read_bytes()))
        one, other = read_target(str(plain)), read_target(str(packed))
        assert one.sections or one.vmsds
        assert (other.sections, other.vmsds, other.machine) == (one.sections, one.vmsds, one.machine)
    packed.write_bytes(gzip.compress(b'accelerator = "kvm"'))
    assert read_target(str(packed)).accelerator == "kvm"
    packed.write_bytes(gzip.compress(b"#" * (17 << 20)))
    with pytest.raises(LimitError, match="too long"):
        read_target(str(packed))


def test_bytes_that_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xff\xfe\0\0")
    with pytest.raises(UsageError, match="neither text"):
        read_target(str(path))
    with pytest.raises(OSError, match="No such file"):
        read_target(str(tmp_path / "nosuch"))
    with pytest.raises(UsageError, match="amd-zen4"):
        read_target("amd-zen9")
    with pytest.raises(UsageError, match="regular file"):
        read_target("/dev/null")


# -- several ---------------------------------------------------------------------------------------------------------


def test_a_later_one_overrides_and_masks_are_cut() -> None:
    first = Target(machine="a", xcr0=0x2E7, blocks={"x": TargetBlock(1)}, evidence={"machine": "one", "xcr0": "one"})
    second = Target(machine="b", xcr0=0x21F, blocks={"y": TargetBlock(2)}, evidence={"machine": "two", "xcr0": "two"})
    joined = merge(first, second)
    assert (joined.machine, joined.xcr0) == ("b", 0x207)
    assert joined.blocks == {"x": TargetBlock(1), "y": TargetBlock(2)}
    assert joined.evidence == {"machine": "two", "xcr0": "one; two"}
    assert merge() == Target()


def test_sections_are_joined_entry_by_entry() -> None:
    key = ("a", 0)
    first = Target(sections={key: TargetSection(2, template=b"x")})
    second = Target(sections={key: TargetSection(3, minimum_version=1)})
    assert (merge(first, second).sections or {})[key] == TargetSection(3, minimum_version=1, template=b"x")


def test_a_target_is_a_plain_value() -> None:
    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        target = target_from_stream(stream)
    assert pickle.loads(pickle.dumps(target)) == target  # noqa: S301 - made here


def test_the_shapes_of_subsections_in_the_binaries_are_those_that_streams_show() -> None:
    """The tables are read by one program, the schema was learned from streams: neither knows of the other."""
    both = 0
    for variants in built_in().devices.values():
        for variant in variants:
            for node in subsections(variant.node):
                ours = subsection_shape(node.name)
                if ours is not None:
                    both += 1
                    assert (ours.size, [one.name for one in ours.fields]) == (
                        bare(node).size,
                        [one.name for one in bare(node).fields],
                    ), node.name
    assert both > 40
