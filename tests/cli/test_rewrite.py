"""`rewrite`: what it prints, and exit codes."""

from tests.cli.calling import BROKEN, PC, document
from tests.support import samplefiles


def test_exit_codes_of_rewrite(call, tmp_path):
    target = tmp_path / "out"
    assert call("rewrite", samplefiles.path("pc-7.2"))[0] == 2
    code, out, err = call("rewrite", samplefiles.path("arm-7.2"), "-o", target)
    assert (code, out) == (0, "")
    assert "no edits" in err
    broken = tmp_path / "broken"
    broken.write_bytes(BROKEN)
    assert call("rewrite", broken, "-o", target)[0] == 3
    assert document(call("rewrite", samplefiles.path("arm-7.2"), "-o", target, "--json"))["edits"] == []


def test_the_replaced_bytes_have_their_section(call):
    out = call("rewrite", PC, "--drop-section", "hpet", "--dry-run")[1]
    rows = [line.split()[:4] for line in out.split("\n\n")[1].splitlines()[2:5]]
    assert rows[0] == ["0x80db9", "hpet@0", "174", "0"]
    assert [row[1] for row in rows[1:]] == ["vmdesc", "vmdesc"]
    assert "vmdesc: QEMU's description of the sections" in out
    out = call("rewrite", PC, "--set", "cpu@0/env.mxcsr=0x1fa0", "--dry-run")[1]
    assert "vmdesc" not in out
