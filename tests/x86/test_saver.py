"""Who saved a stream, where the meaning of its bytes depends on it: told, said to be unknown, never guessed.

The stream of ``unknown`` is one of TCG turned into KVM's: its descriptors are TCG's still, its other marks are not.
"""

import json
import lzma
import struct

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.diff import compare
from qmigtool.errors import UndecidedError
from qmigtool.rewrite import Rewriter
from qmigtool.testing import assert_same_state
from tests.support import samplefiles
from tests.support.paths import DATA

CASES = DATA / "cases" / "xsave"
TCG, KVM = "twin-tcg-10.0", "twin-kvm-10.0"


def written(rewriter, path):
    with path.open("wb") as file:
        rewriter.write(file)


def rewritten(name, tmp_path, edit, target="edited.mig"):
    path = tmp_path / target
    with qmigtool.open(samplefiles.path(name)) as stream:
        rewriter = Rewriter(stream)
        edit(rewriter)
        written(rewriter, path)
    return path, rewriter


@pytest.fixture
def unknown(tmp_path):
    return rewritten(TCG, tmp_path, lambda r: r.to_accelerator("kvm"))[0]


def st_registers(stream):
    return [bytes(vcpu.contents(0)[24:]) for vcpu in stream.vcpus]


@pytest.mark.parametrize("name", [TCG, "pc-7.2", "pc-11.1", "microvm-10.0", "q35-7.2"])
def test_a_repaired_stream_of_tcg_is_one_of_tcg(name, tmp_path):
    """XSTATE_BV alone is filled: env.fpregs are in physical order as before, and all else is TCG's."""
    path, rewriter = rewritten(name, tmp_path, lambda r: r.repair("xstate-bv"))
    with qmigtool.open(samplefiles.path(name)) as before, qmigtool.open(path) as after:
        assert any(vcpu.xstate_bv for vcpu in after.vcpus)
        assert after.accelerator.name == "tcg"
        assert "against it: XSTATE_BV" in after.accelerator.evidence[-1]
        assert st_registers(after) == st_registers(before)
        assert not [d for d in compare(before, after).differences if "XSTATE_BV" not in d.meaning]
    assert any("--to-accelerator converts" in note for note in rewriter.notes)


def test_it_says_that_the_order_of_the_registers_is_left(tmp_path):
    _, rewriter = rewritten(TCG, tmp_path, lambda r: r.repair("xstate-bv"))
    (note,) = [note for note in rewriter.notes if "only XSTATE_BV" in note]
    assert "the order of the x87 registers" in note
    _, rewriter = rewritten(KVM, tmp_path, lambda r: r.repair("xstate-bv"), "other.mig")
    assert not [note for note in rewriter.notes if "only XSTATE_BV" in note]


def test_the_repaired_one_converts_to_what_the_first_one_converts_to(tmp_path):
    def repaired_first(rewriter):
        rewriter.repair("xstate-bv")
        rewriter.to_accelerator("kvm")

    one, _ = rewritten(TCG, tmp_path, lambda r: r.to_accelerator("kvm"), "one.mig")
    other, _ = rewritten(TCG, tmp_path, repaired_first, "other.mig")
    assert one.read_bytes() == other.read_bytes()
    repaired, _ = rewritten(TCG, tmp_path, lambda r: r.repair("xstate-bv"), "repaired.mig")
    with qmigtool.open(repaired) as stream:
        rewriter = Rewriter(stream)
        rewriter.to_accelerator("kvm")
        written(rewriter, tmp_path / "third.mig")
    assert (tmp_path / "third.mig").read_bytes() == one.read_bytes()


@pytest.mark.parametrize(
    ("edit", "name", "against"),
    [
        (lambda r: r.set("cpu@0/env.xstate_bv", 0), "kvm", "XSTATE_BV 0"),
        (lambda r: r.drop_section("kvmclock"), "kvm", None),  # the PIT of the kernel
        (lambda r: r.to_accelerator("tcg"), "tcg", "env.tsc is not 0"),
    ],
)
def test_edits_of_a_stream_of_kvm(edit, name, against, tmp_path):
    path, _ = rewritten(KVM, tmp_path, edit)
    with qmigtool.open(path) as stream:
        assert (stream.accelerator.name, stream.accelerator.tcg) == (name, name == "tcg")
        said = [text for text in stream.accelerator.evidence if text.startswith("against it: ")]
        assert len(said) == (against is not None)
        assert all(against in text for text in said)


def test_a_strong_mark_that_stands_alone_is_an_edit(tmp_path):
    path, _ = rewritten(KVM, tmp_path, lambda r: r.set("cpu@0/env.tr/flags", 0x8917))
    with qmigtool.open(path) as stream:
        assert (stream.accelerator.name, stream.accelerator.tcg) == ("kvm", False)
        assert stream.accelerator.evidence[-1].startswith("against it: TR of vCPU 0")


def test_several_that_contradict_each_other_leave_it_unknown(unknown):
    with qmigtool.open(unknown) as stream:
        assert (stream.accelerator.name, stream.accelerator.tcg) == ("unknown", None)
        assert {text.split(":")[0] for text in stream.accelerator.evidence[1:]} == {"tcg", "not tcg"}


@pytest.mark.parametrize("name", ["qemu-11.1.3-mshv-cet", "cet-guest", "cet7"])
def test_cet_is_not_from_tcg(name):
    """QEMU 11.1 saved the first of them under MSHV: it has no section of MSHV's, and none of KVM's."""
    with qmigtool.open(lzma.decompress((CASES / f"{name}.mig.xz").read_bytes())) as stream:
        assert (stream.accelerator.name, stream.accelerator.tcg) == ("unknown", False)
        assert "cpu/cet" in stream.accelerator.evidence[1]
        assert len(stream.vcpus[0].xsave.data) >= 576  # ST order, whichever hypervisor it was


# -- what depends on it ------------------------------------------------------------------------------------------------


def test_the_bridge_alone_says_so(unknown):
    with qmigtool.open(unknown) as stream:
        (vcpu,) = stream.vcpus
        assert (vcpu.tcg, vcpu.x87_undecided, vcpu.live) == (None, True, 7)
        for ask in (lambda: vcpu.contents(0), lambda: vcpu.xsave, lambda: vcpu.xsave_area()):
            with pytest.raises(UndecidedError, match="saved by: unknown; --accelerator NAME decides") as caught:
                ask()
            assert caught.value.exit_code == 63
        assert vcpu.x87_control[2] | vcpu.x87_control[3]
        assert any(vcpu.contents(1))


def test_where_both_orders_are_the_same_nothing_is_unknown(unknown, tmp_path):
    """TOP is 0: ST(i) is the physical register i."""
    with qmigtool.open(unknown) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.fpus_vmstate", 0)
        written(rewriter, tmp_path / "top0.mig")
    with qmigtool.open(tmp_path / "top0.mig") as stream:
        assert (stream.vcpus[0].tcg, stream.vcpus[0].x87_undecided) == (None, False)
        assert len(stream.vcpus[0].xsave.data) == 832


def call(capsys, *arguments):
    status = run([str(one) for one in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def area(tmp_path, capsys):
    out = tmp_path / "area"
    assert call(capsys, "xsave", "export", samplefiles.path(KVM), "--vcpu", 0, *LAYOUT, "-o", out)[0] == 0
    changed = bytearray(out.read_bytes())
    struct.pack_into("<I", changed, 160, 0xDEAD)  # XMM0
    out.write_bytes(bytes(changed))
    return out


LAYOUT = ("--format", "standard", "--layout", "amd-zen4")
WORDS = "saved by: unknown; --accelerator NAME decides"


def test_commands_that_depend_on_it_refuse(unknown, tmp_path, capsys):
    out = tmp_path / "out"
    there = area(tmp_path, capsys)
    for arguments in (
        ("xsave", "export", unknown, "--vcpu", 0, *LAYOUT, "-o", out),
        ("xsave", "import", unknown, "--vcpu", 0, there, "--layout", "amd-zen4", "-o", out),
        ("mshv", "export", unknown, "--layout", "amd-zen4", "-o", out),
        ("rewrite", unknown, "--to-accelerator", "tcg", "-o", out),
    ):
        status, printed, said = call(capsys, *arguments)
        assert (status, printed) == (63, ""), arguments
        assert WORDS in said
        assert not out.exists()
        with_name = [*arguments, "--accelerator", "kvm"]
        assert call(capsys, *with_name)[0] == 0, arguments
        if out.is_dir():
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
        else:
            out.unlink()


def test_what_does_not_depend_on_it_is_shown(unknown, capsys):
    status, printed, said = call(capsys, "xsave", "table", unknown)
    assert status == 0
    assert "0x7" in printed
    assert "saved by: unknown (the evidence contradicts itself); --accelerator NAME decides" in said + printed
    status, printed, _ = call(capsys, "info", unknown)
    assert status == 0
    assert "accelerator   unknown\n" in printed
    status, printed, _ = call(capsys, "show", unknown, "cpu@0/env.fpregs")
    assert status == 0


def test_check_says_what_it_could_not_judge(unknown, capsys):
    status, printed, said = call(capsys, "check", unknown)
    assert status == 63
    assert WORDS.split("; ")[1] in printed + said
    assert call(capsys, "check", unknown, "--accelerator", "kvm")[0] == 0


def test_a_file_is_the_same_as_itself_and_the_assumption_is_said(unknown, capsys):
    status, printed, said = call(capsys, "diff", unknown, unknown)
    assert status == 0
    assert "ST0 to ST7 are the same if one accelerator saved A and B (saved by: unknown)" in printed + said


def test_registers_in_an_unknown_order_are_not_compared(unknown, capsys):
    status, printed, _ = call(capsys, "diff", unknown, unknown, "--accelerator-a", "kvm", "--json")
    document = json.loads(printed)
    assert (status, document["same"], document["differences"]) == (63, None, [])
    assert "--accelerator-b NAME decides" in document["undecided"][0]
    status, printed, _ = call(capsys, "diff", unknown, unknown, "--accelerator-a", "kvm", "--accelerator-b", "kvm")
    assert status == 0
    status, _, _ = call(capsys, "diff", unknown, unknown, "--accelerator-a", "kvm", "--accelerator-b", "tcg")
    assert status == 1


def test_the_rest_is_compared(unknown, tmp_path, capsys):
    with qmigtool.open(unknown) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.mxcsr", 0x9F80)
        written(rewriter, tmp_path / "other.mig")
    status, printed, _ = call(capsys, "diff", unknown, tmp_path / "other.mig", "--accelerator-a", "kvm", "--json")
    document = json.loads(printed)
    assert (status, document["same"]) == (1, False)
    assert [d["path"] for d in document["differences"]] == ["env.mxcsr"]
    assert document["undecided"]


def test_an_assertion_does_not_pass_what_is_unknown(unknown):
    with (
        qmigtool.open(unknown) as one,
        qmigtool.open(unknown, accelerator="kvm") as other,
        pytest.raises(AssertionError, match="undecided: cpu@0: ST0 to ST7 are not compared"),
    ):
        assert_same_state(one, other)


def test_three_ways(unknown, capsys):
    status, printed, _ = call(capsys, "diff", unknown, unknown, "--base", unknown, "--accelerator-a", "kvm", "--json")
    document = json.loads(printed)
    assert (status, document["same"], document["changes"]) == (63, None, [])
    assert "base and A: cpu@0: ST0 to ST7 are not compared: their order in base depends" in document["undecided"][0]
    # No option names the accelerator of the base.
    assert "(saved by: unknown)" in document["undecided"][0]
    assert all("--accelerator NAME" not in line for line in [*document["undecided"], *document["notes"]])


def test_diff_names_its_own_options(unknown, tmp_path, capsys):
    _, printed, _ = call(capsys, "diff", samplefiles.path(KVM), unknown)
    assert "B: saved by: unknown (the evidence contradicts itself); --accelerator-b NAME decides" in printed
    assert "--accelerator NAME" not in printed
    # The order of the registers does not matter where TOP is 0, but what XSTATE_BV does not declare does.
    partly = tmp_path / "partly"
    with qmigtool.open(unknown) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.fpus_vmstate", 0)
        rewriter.set("cpu@0/env.xstate_bv", 1)
        written(rewriter, partly)
    status, printed, _ = call(capsys, "diff", unknown, partly)
    assert status == 1
    assert "whether live state that XSTATE_BV does not declare is in use" in printed
    assert "saved by: unknown; --accelerator-a NAME and --accelerator-b NAME decide\n" in printed
