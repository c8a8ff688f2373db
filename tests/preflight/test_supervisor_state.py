"""Live CET state and a CPU without CET: it is lost as MSRs, and XCR0 has nothing to do with it."""

import json

import pytest

from qmigtool.cli import main
from tests.support import casefiles


@pytest.mark.parametrize(
    ("name", "accelerator", "cpu", "lost"),
    [
        ("cet7.mig", "kvm", "intel-skl", True),
        ("cet7.mig", "kvm", "intel-spr", False),
        ("cet7.mig", "kvm", "amd-zen4", False),
        ("cet7.mig", "kvm", "amd-zen2", True),
        ("cet-guest.mig", "kvm", "intel-knl", True),
    ],
)
def test_cet_and_xcr0(name, accelerator, cpu, lost, tmp_path, capsys):
    path = casefiles.put("xsave", name, tmp_path)
    arguments = ["preflight", path, "--target", accelerator, "--target", "11.1", "--target", cpu, "--json"]
    if name == "cet-guest.mig":
        arguments += ["--accelerator", "kvm"]
    main.run(arguments)
    found = json.loads(capsys.readouterr().out)["losses"]
    about_xcr0 = [one for one in found if one["rule"] in ("component-not-in-target", "xcr0-not-in-target")]
    assert not about_xcr0
    mine = [one for one in found if one["rule"] == "supervisor-not-in-target"]
    assert bool(mine) == lost
    for one in mine:
        assert "CET_U" in one["message"]
        assert "MSRs 0x6a0 to 0x6a8" in one["message"]
        assert one["reason"].startswith("XCR0 is accepted")
