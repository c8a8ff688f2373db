"""A layer for every declared record, and which record follows which.

The names are those of the records in :mod:`qmigtool.parsers`; their docstrings say what the fields mean.
"""

from __future__ import annotations

from scapy.packet import bind_layers

from qmigtool.layers.packets import body, layer
from qmigtool.parsers import configuration, livebodies, multifd, qcow2, records, returnpath, saveimage

__all__ = [
    *("BitmapOf", "Capabilities", "CommandHeader", "ConfigurationHeader", "DeviceState", "DeviceStateData"),
    *("DeviceStatePacket", "DirtyBitmapBits", "DirtyBitmapStart", "FileHeader", "HtabChunk", "HtabHeader", "ItemType"),
    *("LiveState", "MappedRamBitmap", "MappedRamHeader", "MappedRamPages", "MessageHeader", "MessageValue"),
    *("MultiFDInit", "MultiFDPacket", "MultiFDPagePacket", "NamedPageRequest", "PackageLength", "PageRequest"),
    *("PbsState", "Ping", "PostcopyAdvise", "PostcopyRamDiscard", "Qcow2Header", "Qcow2Snapshot", "RamBlockAddress"),
    *("RamBlockHeader", "RamBlockPageSize", "RamRecord", "ReceivedBitmap", "RecvBitmapRequest", "SaveImageData"),
    *("SaveImageHeader", "SectionFooter", "SectionHeader", "SectionReference", "Subsection", "TargetPageBits"),
    *("Unparsed", "VmDescription", "VmDescriptionHeader", "VmUuid"),
]

FileHeader = layer(records.FileHeader)
ItemType = layer(records.ItemType)
SectionHeader = layer(records.SectionHeader)
SectionReference = layer(records.SectionReference)
SectionFooter = layer(records.SectionFooter)
Subsection = layer(records.Subsection)
CommandHeader = layer(records.CommandHeader)
Ping = layer(records.Ping)
PostcopyAdvise = layer(records.PostcopyAdvise)
PostcopyRamDiscard = layer(records.PostcopyRamDiscard)
PackageLength = layer(records.PackageLength)
RecvBitmapRequest = layer(records.RecvBitmapRequest)
VmDescriptionHeader = layer(records.VmDescriptionHeader)

ConfigurationHeader = layer(configuration.ConfigurationHeader)
TargetPageBits = layer(configuration.TargetPageBits)
Capabilities = layer(configuration.Capabilities)
VmUuid = layer(configuration.VmUuid)

RamRecord = layer(records.RamRecord)
RamBlockHeader = layer(records.RamBlockHeader)
RamBlockPageSize = layer(records.RamBlockPageSize)
RamBlockAddress = layer(records.RamBlockAddress)
MappedRamHeader = layer(records.MappedRamHeader)

MultiFDInit = layer(multifd.MultiFDInit)
MultiFDPacket = layer(multifd.MultiFDPacket)
MultiFDPagePacket = layer(multifd.MultiFDPagePacket)
DeviceStatePacket = layer(multifd.DeviceStatePacket)
DeviceStateData = layer(multifd.DeviceStateData)

MessageHeader = layer(returnpath.MessageHeader)
MessageValue = layer(returnpath.MessageValue)
PageRequest = layer(returnpath.PageRequest)
NamedPageRequest = layer(returnpath.NamedPageRequest)
BitmapOf = layer(returnpath.BitmapOf)
ReceivedBitmap = layer(returnpath.ReceivedBitmap)

DirtyBitmapStart = layer(livebodies.DirtyBitmapStart)
DirtyBitmapBits = layer(livebodies.DirtyBitmapBits)
HtabHeader = layer(livebodies.HtabHeader)
HtabChunk = layer(livebodies.HtabChunk)
PbsState = layer(livebodies.PbsState)

SaveImageHeader = layer(saveimage.SaveImageHeader)
Qcow2Header = layer(qcow2.Qcow2Header)
Qcow2Snapshot = layer(qcow2.Qcow2Snapshot)

DeviceState = body("DeviceState", "The body of a section of device state: fields by its description in the vmdesc.")
LiveState = body("LiveState", "The body of a live section other than RAM.")
VmDescription = body("VmDescription", "The JSON text that describes the device state.")
MappedRamBitmap = body("MappedRamBitmap", "Which pages of a RAM block are in the file: a bit each, low bit first.")
MappedRamPages = body(
    "MappedRamPages", "The pages of a RAM block, each at its place; those not in the bitmap are holes."
)
SaveImageData = body("SaveImageData", "The XML and the cookie of a libvirt save image, ended by NULs.")
Unparsed = body("Unparsed", "BlobField that are no record: padding, or what an error made unreadable.")


def _bind() -> None:
    for section_type, record in records.ITEM_RECORDS.items():
        bind_layers(ItemType, layer(record), section_type=int(section_type))
    bind_layers(ItemType, ConfigurationHeader, section_type=int(records.SectionType.QEMU_VM_CONFIGURATION))
    bind_layers(VmDescriptionHeader, VmDescription)
    for command, record in records.COMMAND_RECORDS.items():
        bind_layers(CommandHeader, layer(record), cmd=int(command))
    for name, record in configuration.CONFIGURATION_RECORDS.items():
        bind_layers(Subsection, layer(record), idstr=name.encode())
    for type_, record in returnpath.MESSAGE_RECORDS.items():
        bind_layers(MessageHeader, layer(record), type=int(type_))


_bind()
