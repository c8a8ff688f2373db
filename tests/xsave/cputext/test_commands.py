"""What commands and targets say about a CPU in a text."""

import json

import pytest

from qmigtool.cli.main import run
from qmigtool.errors import UsageError, XsaveError
from qmigtool.preflight import read_targets
from tests.support import casefiles, samplefiles
from tests.xsave.cputext.texts import ZEN4, case, firecracker


def test_the_command_line_chooses(tmp_path, capsys):
    path = casefiles.put("xsave", "hyb.cpuid", tmp_path)
    assert run(["xsave", "layouts", path]) == 3
    assert "hyb.cpuid#16" in capsys.readouterr().err
    assert run(["xsave", "layouts", f"{path}#16", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["layouts"]
    assert (found["xcr0_mask"], found["compacted_size"]) == ("0x207", 840)
    assert run(["xsave", "layouts", f"{path}#1"]) == 2
    assert "expected 0, 16" in capsys.readouterr().err
    literal = tmp_path / "a#1"
    literal.write_text(case("gml.cpuid"))
    assert run(["xsave", "layouts", str(literal), "--json"]) == 0


def test_the_command_line_says_what_a_cut_text_lacks(tmp_path, capsys):
    assert run(["xsave", "layouts", casefiles.put("xsave", "dec.cpuid", tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["layouts"][0]["mask"] == "0x7"
    assert err.startswith("note: dec.cpuid is truncated: it advertises opmask")
    assert run(["xsave", "layouts", casefiles.put("xsave", "nehalem.cpuid", tmp_path)]) == 63
    assert run(["xsave", "layouts", casefiles.put("xsave", "dmesg.txt", tmp_path)]) == 63


def test_targets(tmp_path):
    nehalem = read_targets([casefiles.put("xsave", "nehalem.cpuid", tmp_path)])
    assert (nehalem.xcr0, nehalem.xss, nehalem.layout) == (0x3, 0, None)
    assert "without XSAVE" in nehalem.evidence["xcr0"]
    hybrid = casefiles.put("xsave", "hyb.cpuid", tmp_path)
    assert read_targets([f"{hybrid}#16"]).xcr0 == 0x207
    with pytest.raises(XsaveError, match=r"hyb.cpuid#0 or hyb.cpuid#16"):
        read_targets([hybrid])
    with pytest.raises(UsageError, match="CPU 3"):
        read_targets([f"{hybrid}#3"])
    document = tmp_path / "template.json"
    document.write_text(json.dumps(firecracker(ZEN4)))
    assert read_targets([str(document)]).xcr0 == 0x2E7
    listed = tmp_path / "t.toml"
    listed.write_text('files = ["hyb.cpuid#0"]\n')
    assert read_targets([str(listed)]).xcr0 == 0x2E7


def test_a_target_without_xsave_loses_avx(tmp_path, capsys):
    target = casefiles.put("xsave", "nehalem.cpuid", tmp_path)
    assert run(["preflight", str(samplefiles.path("kvm-avx512-7.2")), "--target", target]) in (1, 63)
    assert "AVX opmask ZMM_Hi256 Hi16_ZMM live; the target has 0x3" in capsys.readouterr().out
