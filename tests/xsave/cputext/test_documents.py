"""JSON of virtual machine monitors and libvirt's XML with CPUID."""

import json

import pytest

from qmigtool.errors import LimitError, XsaveError
from qmigtool.xsave import parse_cpuid_dump
from tests.xsave.cputext.texts import SPR, ZEN4, cpudata, firecracker, kvm_entries


def test_json_of_virtual_machine_monitors():
    inside = json.dumps({"cpuid": kvm_entries(SPR), "other": [1, 2]})
    for document in (
        {"cpuid": kvm_entries(SPR)},
        kvm_entries(SPR),
        {"snapshots": {"cpu-manager": {"snapshot_data": {"state": inside}}}},
        firecracker(SPR),
        {"firecracker_version": "1.7", "guest_cpu_config": firecracker(SPR)},
        {"vcpus": [{"cpuid": kvm_entries(SPR)}, {"cpuid": kvm_entries(SPR)}]},
    ):
        assert parse_cpuid_dump(json.dumps(document), "j").leaf == SPR.leaf
    text = json.dumps({"vcpus": [{"cpuid": kvm_entries(SPR)}, {"cpuid": kvm_entries(ZEN4)}]})
    assert parse_cpuid_dump(text, "j", cpu=1).leaf == ZEN4.leaf
    with pytest.raises(XsaveError, match="j#0 or j#1"):
        parse_cpuid_dump(text, "j")


def test_a_cpu_of_json_is_the_one_of_its_key():
    """Cloud Hypervisor sorts its keys as strings: 10 before 2."""
    both = {"10": {"state": json.dumps({"cpuid": kvm_entries(SPR)})}, "2": {"cpuid": kvm_entries(ZEN4)}}
    text = json.dumps({"id": "vm", "snapshots": both})
    assert parse_cpuid_dump(text, "j", cpu=2).leaf == ZEN4.leaf
    assert parse_cpuid_dump(text, "j", cpu=10).leaf == SPR.leaf
    with pytest.raises(XsaveError, match="j#2 or j#10"):
        parse_cpuid_dump(text, "j")


def test_a_template_that_leaves_bits_to_the_host_is_not_guessed():
    document = firecracker(SPR)
    document["cpuid_modifiers"][0]["modifiers"][0]["bitmap"] = "0bxxxxxxxxxxxxx00xxxxxxxxxxxxxxxxx"
    with pytest.raises(XsaveError, match="leaves eax of CPUID leaf 0xd, subleaf 0x0 to the host"):
        parse_cpuid_dump(json.dumps(document), "t2.json")


def test_cpudata_of_libvirt():
    assert parse_cpuid_dump(cpudata(SPR), "x.xml").leaf == SPR.leaf
    assert parse_cpuid_dump(cpudata(SPR).replace("'", '"'), "x.xml").leaf == SPR.leaf
    assert parse_cpuid_dump(f"<capabilities><host>{cpudata(ZEN4)}</host></capabilities>", "x.xml").leaf == ZEN4.leaf
    without = "<capabilities><host><cpu><model>EPYC-Genoa</model><feature name='xsave'/></cpu></host></capabilities>"
    with pytest.raises(XsaveError, match=r"no <cpudata> .*; --layout EPYC-Genoa is QEMU's model of that name"):
        parse_cpuid_dump(without, "capabilities.xml")
    with pytest.raises(XsaveError, match=r"no <cpudata> with registers \("):
        parse_cpuid_dump(without.replace("EPYC-Genoa", "core9trio"), "capabilities.xml")


def test_text_about_xml_is_none():
    with pytest.raises(XsaveError) as raised:
        parse_cpuid_dump("libvirt's `<cpudata>` and <cpuinfo>", "README.md")
    assert "libvirt's XML" not in str(raised.value)


def test_json_that_is_too_long():
    with pytest.raises(LimitError):
        parse_cpuid_dump('["function",' + "0," * (2 << 20) + "0]", "j")
    underscored = firecracker(ZEN4)
    for leaf in underscored["cpuid_modifiers"]:
        for one in leaf["modifiers"]:
            digits = one["bitmap"][2:]
            one["bitmap"] = "0b" + "_".join(digits[at : at + 4] for at in range(0, 32, 4))
    assert parse_cpuid_dump(json.dumps(underscored), "j").leaf == ZEN4.leaf
