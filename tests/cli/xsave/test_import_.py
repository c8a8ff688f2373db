"""`xsave import` of an area out of a core."""

from tests.cli.calling import KVM
from tests.support import casefiles
from tests.xsave.holders.areas import AREA


def test_import_of_a_core_into_a_stream(report, tmp_path):
    path, out = casefiles.put("xsave", "core.elf", tmp_path), tmp_path / "out.mig"
    status, document, _ = report("xsave", "import", KVM, path, "--vcpu", "0", "-o", out)
    assert status == 0, document
    assert any("thread 1 (1 in this ELF core)" in one["message"] for one in document["notes"])
    status, document, _ = report("xsave", "export", out, "--vcpu", "0", "--format", "standard", "--layout", "amd-zen4",
                               "-o", tmp_path / "back")  # fmt: skip
    back = (tmp_path / "back").read_bytes()
    assert back[576:2432] == AREA[576:2432]
    status, document, _ = report("xsave", "import", KVM, path, "--vcpu", "0", "--layout", "intel-icx", "-o", out)
    assert status == 1
    assert "opmask at 832, not at 1088" in document["error"]["message"]
