"""The presence table: vCPUs with one pattern share a line wherever they are, and what is unusual is marked."""

import pytest

from qmigtool.cli.main import run
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, eos, mem_size, x86_cpu, zero


def stream(tmp_path, masks):
    """Write a stream with a vCPU for each (XCR0, XSTATE_BV)."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    for i, (xcr0, xstate_bv) in enumerate(masks):
        w.device(2 + i, "cpu", i, x86_cpu(i, xcr0=xcr0, xstate_bv=xstate_bv))
    path = tmp_path / "many.mig"
    path.write_bytes(w.finish())
    return str(path)


def lines(capsys, *arguments):
    assert run(["xsave", "table", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_64_vcpus_of_4_patterns_have_4_lines(tmp_path, capsys):
    patterns = [(7, 7), (7, 3), (3, 3), (7, 7)]
    masks = [patterns[i % 4] for i in range(62)] + [(1, 1), (7, 7)]
    found = lines(capsys, stream(tmp_path, masks))
    table = found[: found.index("")]
    assert len(table) == 5
    numbers = table[1].split()[0]
    assert numbers.startswith("0,3-4,7-8,11-12,")
    assert numbers.endswith(",59-60,63")
    assert [line.split()[1] for line in table[1:]] == ["0x7", "0x7", "0x3*", "0x1*"]
    assert [line.split()[3] for line in table[1:]] == ["0x7", "0x3*", "0x3*", "0x1*"]
    # "---c*": neither enabled nor declared, unlike in most
    assert table[1].split()[-1] == "edc-"
    assert table[2].split()[-1] == "e-c-*"
    assert "* differs from the most frequent pattern" in found


def test_without_a_most_frequent_pattern_nothing_is_marked(tmp_path, capsys):
    found = lines(capsys, stream(tmp_path, [(7, 7), (3, 3)]))
    assert "*" not in "".join(found)


def test_one_pattern_has_no_marks(tmp_path, capsys):
    found = lines(capsys, stream(tmp_path, [(7, 7)] * 3))
    assert found[1].split()[0] == "0-2"
    assert "*" not in "".join(found)


@pytest.mark.parametrize("sample", ["pc-7.2", "kvm-avx512-7.2"])
def test_layout_adds_offsets(sample, capsys):
    path = str(samplefiles.path(sample))
    plain = lines(capsys, path)
    found = lines(capsys, path, "--layout", "amd-zen4")
    assert found[: plain.index("")] == plain[: plain.index("")]
    at = next(i for i, line in enumerate(found) if line.startswith("component"))
    rows = {line.split()[0]: line.split()[1:] for line in found[at + 1 :][: found[at:].index("") - 1]}
    if sample == "pc-7.2":
        assert found[at].split() == ["component", "size", "standard", "compacted", "0x21f", "compacted", "0x7"]
        assert rows["PKRU"] == ["8", "2432", "832", "-"]
        assert rows["BNDCSR"] == ["-", "-", "-", "-"]
    else:
        assert rows["opmask"] == ["64", "832", "832"]
        assert rows["Hi16_ZMM"] == ["1024", "1408", "1408"]
    assert rows["SSE"][:2] == ["-", "24"]
