"""Vendors' machine types: what they are treated as, and that a note says so."""

import pytest

import qmigtool
from qmigtool.errors import UsageError
from qmigtool.preflight.target import offers
from qmigtool.rewrite import Rewriter, vendors
from tests.rewrite.editing import rewritten, sample

NAMES = {
    "pc-i440fx-bionic": "pc-i440fx-2.11",
    "pc-i440fx-focal": "pc-i440fx-4.2",
    "pc-q35-jammy-hpb": "pc-q35-6.2",
    "pc-i440fx-xenial": "pc-i440fx-2.5",
    "pc-i440fx-rhel7.6.0": "pc-i440fx-2.12",
    "pc-q35-rhel8.6.0": "pc-q35-6.2",
    "pc-q35-rhel9.4.0": "pc-q35-8.2",
    "pc-i440fx-8.1+pve0": "pc-i440fx-8.1",
    "s390-ccw-virtio-rhel8.6.0": "s390-ccw-virtio-6.2",
}


@pytest.mark.parametrize("name", NAMES)
def test_taken_for(name):
    assert vendors.upstream(name) == NAMES[name]


@pytest.mark.parametrize("name", ["pc-i440fx-7.2", "pc-i440fx-sonic", "microvm", "pc-q35-rhel99.0.0", "", "rhel", "-"])
def test_nothing_is_known(name):
    assert vendors.upstream(name) is None


def test_what_they_are_taken_for_was_there():
    """Real QEMUs have, or had, every one of them: 5.2 and 7.2 know all machine types from 1.4 on."""
    known = {one.name for version in offers.BUILDS for one in offers.machines(version) or ()}
    wanted = {f"pc-i440fx-{version}" for version in vendors._UBUNTU.values()}
    assert wanted <= known


def test_upgrade_machine_says_that_it_is_a_guess():
    old = rewritten(sample("pc-7.2"), lambda r: r.machine_type("pc-i440fx-jammy")).data
    done = rewritten(old, lambda r: r.upgrade_machine("pc-i440fx-9.0"))
    assert "pc-i440fx-jammy is a vendor's machine type, treated as pc-i440fx-6.2: a guess" in done.notes
    with qmigtool.open(done.data) as stream:
        assert stream.machine == "pc-i440fx-9.0"


def test_of_another_vendor_only_the_name_can_be_changed():
    old = rewritten(sample("pc-7.2"), lambda r: r.machine_type("pc-i440fx-sonic")).data
    with qmigtool.open(old) as stream, pytest.raises(UsageError, match="--machine-type"):
        Rewriter(stream).upgrade_machine("pc-i440fx-9.0")
