"""The masks of an MSHV partition: properties of Hyper-V that define the extended state of its vCPUs.

They are read by number or by name, with or without ``HV_PARTITION_PROPERTY_``, one per line in the format of any tool,
or as a table of TOML or an object of JSON::

    XSAVE_STATES              0x18e7
    0x60008 = 4096                        # MAX_XSAVE_DATA_SIZE
    HV_PARTITION_PROPERTY_PROCESSOR_XSAVE_FEATURES: 0x3fff

Numbers and bits are those of Linux's hvhdk.h (``hv_x64_xsave_xfem_register``,
``hv_partition_processor_xsave_features``). Other properties are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

from qmigtool.errors import StreamError
from qmigtool.preflight.target.model import Target
from qmigtool.util.values import parse_number
from qmigtool.x86.traits import MSHV
from qmigtool.xsave import mask_names
from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import (
    AMX_MASK,
    APX_MASK,
    AVX512_MASK,
    AVX_MASK,
    CET_MASK,
    LEGACY_MASK,
    MPX_MASK,
    PASID_MASK,
)

__all__ = ["PartitionProperty", "properties_of_table", "properties_of_text", "target_from_properties"]

SECTION = "partition properties"


class PartitionProperty(IntEnum):
    """The properties that are read (``HV_PARTITION_PROPERTY_...``)."""

    PROCESSOR_XSAVE_FEATURES = 0x60002
    XSAVE_STATES = 0x60007
    MAX_XSAVE_DATA_SIZE = 0x60008


PREFIX = "HV_PARTITION_PROPERTY_"
FEATURE_XSAVE = 1 << 0
# Bit of PROCESSOR_XSAVE_FEATURES -> its components.
FEATURES = {2: AVX_MASK, 5: MPX_MASK, 6: AVX512_MASK, 27: AMX_MASK, 38: APX_MASK}
MAX_VALUE = (1 << 64) - 1

_LINE = re.compile(
    rf"^\W*(?P<name>(?:{PREFIX})?(?:{'|'.join(one.name for one in PartitionProperty)})"
    rf"|0x0*(?:{'|'.join(f'{one:x}' for one in PartitionProperty)}))\b"
    r"[\s:=,\"']+(?P<value>0x[0-9a-f]{1,16}|\d{1,20})\b",
    re.IGNORECASE | re.MULTILINE,
)


def properties_of_text(text: str) -> dict[PartitionProperty, int]:
    """Return the properties in lines of text, if any."""
    return _collect((match["name"], match["value"]) for match in _LINE.finditer(text))


def properties_of_table(table: Mapping[str, Any]) -> dict[PartitionProperty, int]:
    """Return the properties of a table, names to numbers (or text with a number); others are ignored."""
    return _collect((key, value) for key, value in table.items() if _property(key) is not None)


def _collect(pairs: Iterator[tuple[str, Any]]) -> dict[PartitionProperty, int]:
    found: dict[PartitionProperty, int] = {}
    for name, given in pairs:
        one = _property(name)
        if one is None:
            continue
        value = parse_number(given) if isinstance(given, str) else given
        if type(value) is not int or not 0 <= value <= MAX_VALUE:
            raise StreamError(f"{one.name} is {str(given)[:40]!r}", section=SECTION, expected="a 64-bit number")
        if found.setdefault(one, value) != value:
            raise StreamError(f"{one.name} is set twice: {found[one]:#x} and {value:#x}", section=SECTION)
    return found


def _property(name: str) -> PartitionProperty | None:
    name = name.upper().removeprefix(PREFIX)
    if name in PartitionProperty.__members__:
        return PartitionProperty[name]
    numbers = {f"{one:#X}": one for one in PartitionProperty}
    return numbers.get(f"0X{name[2:].lstrip('0')}") if name.startswith("0X") else None


def target_from_properties(properties: Mapping[PartitionProperty, int], name: str) -> Target:
    """Return the target that these properties describe: an MSHV partition.

    Without XSAVE_STATES the components follow from PROCESSOR_XSAVE_FEATURES. Raises
    :class:`~qmigtool.errors.StreamError` for states that Hyper-V does not have.
    """
    evidence = {"accelerator": f"{name}, properties of an MSHV partition"}
    xcr0 = xss = None
    states = properties.get(PartitionProperty.XSAVE_STATES)
    features = properties.get(PartitionProperty.PROCESSOR_XSAVE_FEATURES)
    if states is not None:
        foreign = states & ~(MSHV_MASK | LEGACY_MASK)
        if foreign:
            raise StreamError(
                f"XSAVE_STATES {states:#x} has {' '.join(mask_names(foreign))}",
                section=SECTION,
                expected=f"bits of {MSHV_MASK:#x}",
            )
        # Hyper-V forces x87 and SSE to 1.
        xcr0, xss = states & ~CET_MASK & ~PASID_MASK | LEGACY_MASK, states & (CET_MASK | PASID_MASK)
        evidence |= dict.fromkeys(("xcr0", "xss"), f"{name}, XSAVE_STATES {states:#x}")
    elif features is not None:
        xcr0 = LEGACY_MASK
        for bit, components in FEATURES.items():
            if features & FEATURE_XSAVE and features >> bit & 1:
                xcr0 |= components & MSHV_MASK
        evidence["xcr0"] = f"{name}, PROCESSOR_XSAVE_FEATURES {features:#x}"
    size = properties.get(PartitionProperty.MAX_XSAVE_DATA_SIZE)
    if size is not None:
        evidence["xsave_max"] = f"{name}, MAX_XSAVE_DATA_SIZE"
    return Target(name=name, accelerator=MSHV.name, xcr0=xcr0, xss=xss, xsave_max=size, evidence=evidence)
