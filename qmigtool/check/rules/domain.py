"""Rules over the libvirt XML of a save image: what it and the stream contradict.

``virsh restore`` starts QEMU with the machine that the XML describes. What the XML does not say is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from qmigtool.check.patterns import version_of
from qmigtool.check.rule import Context, Options, finding, on, rule
from qmigtool.devices.machinetypes import UNVERSIONED, is_x86_machine, machine_type
from qmigtool.findings import Finding
from qmigtool.findings.model import Wide
from qmigtool.x86.lapic import LAPIC

__all__ = ["RULES"]

MIB = 1 << 20
BASE = re.compile(r"(?:/objects/)?(?:pc\.ram|microvm\.ram|ram-node[0-9]+)")
DIMM = re.compile(r"(?:/objects/)?memdimm([0-9]{1,9})")
BY_NUMBER = (2, 6)  # up to this machine type the instance of an apic is not its APIC ID (legacy-instance-id)
EPYC_IDS = (5, 1)  # QEMU 5.0 and 5.1 number the vCPUs of EPYC models in another way


@rule(
    "xml-readable",
    "The libvirt XML of a save image can be read",
    "virsh restore reads the XML before the stream, and refuses an image whose XML is not a domain.",
    severity="error",
)
def xml_readable(context: Context, _: Options) -> Iterator[Finding]:
    facts = context.domain
    if "unread" in facts:
        yield finding(str(facts["unread"]))


@rule(
    "xml-machine",
    "The libvirt XML has the machine type of the stream",
    "virsh restore starts the machine of the XML, and QEMU loads a stream only into a machine of the same type.",
    severity="error",
)
def xml_machine(context: Context, _: Options) -> Iterator[Finding]:
    facts, found = context.domain, context.stream.machine
    wanted = facts.get("machine")
    if found is None or wanted is None or wanted == found:
        return
    if machine_type(wanted) is None and wanted not in UNVERSIONED:
        return  # an alias: it depends on the QEMU that libvirt started
    message = f"the machine type is {found}, but the libvirt XML has {wanted}"
    yield finding(message, "configuration", value=found, expected=wanted)


@rule(
    "xml-vcpus",
    "The stream has as many vCPUs as the libvirt XML",
    "virsh restore starts the vCPUs that the XML counts. QEMU refuses the state of one that it does not have; one "
    "whose state is not in the stream silently keeps its reset state.",
    severity="error",
)
def xml_vcpus(context: Context, _: Options) -> Iterator[Finding]:
    facts = context.domain
    found, wanted = len({device.instance_id for device in context.named("cpu")}), facts.get("vcpus")
    if found and wanted is not None and found != wanted and context.stream.unreached is None:
        message = f"the stream has {found} vCPUs, but the libvirt XML has {wanted}"
        yield finding(message, "cpu", value=found, expected=wanted)


@rule(
    "xml-memory",
    "The stream has as much memory as the libvirt XML",
    "virsh restore starts QEMU with the memory of the XML, and QEMU refuses a RAM block of another size. The XML's "
    "size includes its DIMMs. Checked for x86 without other memory devices (virtio-mem, NVDIMM).",
    severity="error",
)
def xml_memory(context: Context, _: Options) -> Iterator[Finding]:
    root, machine = context.domain_root, context.stream.machine
    if root is None or machine is None or not is_x86_machine(machine):
        return
    from qmigtool.parsers.domainxml import memory_devices

    wanted = context.domain.get("memory")
    blocks = context.stream.ram_blocks
    base = [block for block in blocks if BASE.fullmatch(block.idstr)]
    if wanted is None or not base or any(one.model != "dimm" for one in memory_devices(root)):
        return
    dimms = [block for block in blocks if DIMM.fullmatch(block.idstr)]
    found = sum(block.used_length for block in (*base, *dimms))
    # libvirt and QEMU round sizes up, by at most 1 MiB for each block.
    if not 0 <= found - wanted < MIB * (len(base) + len(dimms)):
        message = f"the RAM blocks of guest memory have {found:#x} bytes, but the libvirt XML has {wanted:#x}"
        yield finding(message, "ram", base[0].idstr if len(base) == 1 else "", value=found, expected=wanted)


@rule(
    "xml-dimms",
    "Each DIMM has the size and address that the libvirt XML says",
    "virsh restore starts QEMU with the DIMMs of the XML, and QEMU refuses a RAM block of another size. The stream has "
    "addresses only with x-ignore-shared.",
    severity="error",
)
def xml_dimms(context: Context, _: Options) -> Iterator[Finding]:
    root = context.domain_root
    if root is None:
        return
    from qmigtool.parsers.domainxml import memory_devices

    # libvirt names a DIMM and its memory by the slot (qemuAssignDeviceMemoryAlias).
    wanted = {one.slot: one for one in memory_devices(root) if one.model == "dimm" and one.slot is not None}
    for block in context.stream.ram_blocks:
        named = DIMM.fullmatch(block.idstr)
        dimm = None if named is None else wanted.get(int(named[1]))
        if dimm is None:
            continue
        if dimm.size is not None and dimm.size != block.used_length:
            message = f"the DIMM has {block.used_length:#x} bytes, but the libvirt XML has {dimm.size:#x}"
            yield finding(message, "ram", block.idstr, value=block.used_length, expected=dimm.size)
        if dimm.base is not None and block.mr_addr is not None and dimm.base != block.mr_addr:
            message = f"the DIMM is at {block.mr_addr:#x}, but the libvirt XML has {dimm.base:#x}"
            yield finding(message, "ram", block.idstr, value=Wide(block.mr_addr), expected=Wide(dimm.base))


@rule(
    "xml-topology",
    "The APIC IDs fit the CPU topology of the libvirt XML",
    "APIC IDs follow from the topology. QEMU refuses the state of a local APIC whose ID it does not have. Checked for "
    "machine types after 2.6.",
    severity="error",
)
def xml_topology(context: Context, _: Options) -> Iterator[Finding]:
    root, machine = context.domain_root, context.stream.machine
    if root is None or machine is None or not is_x86_machine(machine):
        return
    from qmigtool.parsers.domainxml import LEVELS, cpu_topology

    counts, version = cpu_topology(root), version_of(machine)
    if counts is None or version is None or version <= BY_NUMBER:
        return
    if version <= EPYC_IDS and (root.text_at("cpu/model") or "EPYC").startswith("EPYC"):
        return
    for device in context.named(LAPIC):
        if not _possible(device.instance_id, counts):
            words = ", ".join(f"{count} {level}" for level, count in zip(LEVELS, counts, strict=True))
            yield on(device, f"has an APIC ID that no vCPU of {words} has (libvirt XML)", value=device.instance_id)


def _possible(apic_id: int, counts: tuple[int, ...]) -> bool:
    """Whether a topology has an APIC ID: each level has as many bits as its count needs (hw/i386/topology.h)."""
    for count in reversed(counts[1:]):
        bits = (count - 1).bit_length()
        if apic_id & (1 << bits) - 1 >= count:
            return False
        apic_id >>= bits
    return apic_id < counts[0]


RULES = (xml_readable, xml_machine, xml_vcpus, xml_memory, xml_dimms, xml_topology)
