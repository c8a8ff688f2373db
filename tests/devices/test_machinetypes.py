"""Names of machine types, in their parts."""

import pytest

from qmigtool.devices.machinetypes import is_x86_machine, machine_type


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pc-i440fx-7.2", ("pc-i440fx", (7, 2), "")),
        ("pc-q35-4.0.1", ("pc-q35", (4, 0, 1), "")),
        ("pc-q35-rhel8.6.0", ("pc-q35", (8, 6, 0), "rhel")),
        ("virt-rhel-9.2", ("virt", (9, 2), "rhel")),
        ("pc-i440fx-9.0+pve1", ("pc-i440fx", (9, 0), "pve")),
        ("s390-ccw-virtio-10.0", ("s390-ccw-virtio", (10, 0), "")),
        ("microvm", None),
        ("pc-i440fx-bionic", None),
        ("7.2", None),
        ("-7.2", None),
    ],
)
def test_parts(name: str, parts: tuple[str, tuple[int, ...], str] | None) -> None:
    assert machine_type(name) == parts


def test_x86() -> None:
    assert all(map(is_x86_machine, ("pc-q35-7.2", "q35", "microvm", "isapc", "xenfv-4.2")))
    assert not any(map(is_x86_machine, ("virt-7.2", "pseries-9.0", "pcx")))
