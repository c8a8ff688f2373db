"""Vendors' machine types, and the upstream ones they are treated as: a guess, since a stream does not record it.

A vendor's build has its own names for machine types and may change what they send. Ubuntu names one after each of its
releases (``pc-i440fx-bionic``), which had one version of QEMU; Red Hat numbers them by its own releases
(``pc-q35-rhel8.6.0``), each with the compatibility properties of the version of QEMU that is given here.
"""

from __future__ import annotations

import re

from qmigtool.devices.machinetypes import machine_type

__all__ = ["upstream"]

# Ubuntu's release -> the version of QEMU in it (packages.ubuntu.com).
_UBUNTU = {
    "trusty": "2.0",
    "utopic": "2.1",
    "vivid": "2.2",
    "wily": "2.3",
    "xenial": "2.5",
    "yakkety": "2.6",
    "zesty": "2.8",
    "artful": "2.10",
    "bionic": "2.11",
    "cosmic": "2.12",
    "disco": "3.1",
    "eoan": "4.0",
    "focal": "4.2",
    "groovy": "5.0",
    "hirsute": "5.2",
    "impish": "6.0",
    "jammy": "6.2",
    "kinetic": "7.0",
    "lunar": "7.2",
    "mantic": "8.0",
    "noble": "8.2",
    "oracular": "9.0",
    "plucky": "9.2",
    "questing": "10.1",
}
# Red Hat's release -> the version of QEMU whose compatibility properties its machine type has.
_RHEL = {
    "6": "0.12",
    "7.0": "1.6",
    "7.1": "2.1",
    "7.2": "2.3",
    "7.3": "2.6",
    "7.4": "2.9",
    "7.5": "2.10",
    "7.6": "2.12",
    "8.0": "3.1",
    "8.1": "4.1",
    "8.2": "4.2",
    "8.3": "5.1",
    "8.4": "5.2",
    "8.5": "6.0",
    "8.6": "6.2",
    "9.0": "7.0",
    "9.2": "7.2",
    "9.4": "8.2",
    "9.6": "9.1",
    "9.8": "10.1",
    "10.0": "9.1",
    "10.2": "10.1",
}
_FAMILIES = {"ubuntu": "pc-i440fx", "ubuntu-q35": "pc-q35"}
_NAME = re.compile(
    r"(?P<family>[a-z0-9-]+?)-(?:rhel-?(?P<rhel>\d{1,2}(?:\.\d{1,2})?)(?:\.\d{1,2})?|(?P<word>[a-z]+))(?:-hpb|-v\d)?"
)


def upstream(name: str) -> str | None:
    """Return the upstream machine type that a vendor's is treated as, or None for an unknown one."""
    found = machine_type(name)
    if found is not None and found.vendor == "pve":
        return f"{found.family}-{'.'.join(map(str, found.version))}"
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    family = _FAMILIES.get(match["family"], match["family"])
    if match["word"] is not None:
        version = _UBUNTU.get(match["word"])
    else:
        version = _RHEL.get(match["rhel"]) or _RHEL.get(match["rhel"].partition(".")[0])
    return None if version is None else f"{family}-{version}"
