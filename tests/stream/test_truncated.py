"""A file that was cut: exit status 3 and the offset from every command, and what stands before the cut is shown."""

import gzip
import json
import re

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.errors import TruncatedError
from tests.support import casefiles, samplefiles

PLAIN = str(samplefiles.path("pc-7.2"))
DISPLAYING = [
    ["info", "{}"],
    ["info", "{}", "--quick", "--json"],
    ["sections", "{}"],
    ["show", "{}"],
    ["show", "{}", "cpu@0/env.eip"],
    ["show", "{}", "cpu@3/env.eip", "--json"],
    ["show", "{}", "nothere/x"],
    ["xsave", "table", "{}"],
    ["ram", "{}"],
    ["analyze", "{}"],
    ["analyze", "{}", "-d", "desc"],
]
JUDGING = [
    ["check", "{}"],
    ["check", PLAIN, "--baseline", "{}"],
    ["diff", "{}", PLAIN],
    ["diff", PLAIN, "{}", "--json"],
    ["diff", PLAIN, PLAIN, "--base", "{}"],
    ["preflight", "{}", "--target", PLAIN, "--target", "7.2"],
    ["preflight", PLAIN, "--target", "{}"],
    ["schema", "diff", "{}", PLAIN],
    ["schema", "diff", PLAIN, PLAIN, "--devices", "{}"],
]
WRITING = [
    ["xsave", "export", "{}", "--vcpu", "3", "--format", "standard", "--layout", "intel-skl", "-o", "{out}"],
    ["rewrite", "{}", "-o", "{out}"],
    ["rewrite", "{}", "--set", "cpu@0/env.eip=1", "-o", "{out}"],
    ["mshv", "export", "{}", "--layout", "intel-skl", "--accelerator", "tcg", "-o", "{out}"],
    ["schema", "learn", "{}", "-o", "{out}"],
]


def places(data):
    """A cut inside each kind of item, and between two."""
    with qmigtool.open(data) as stream:
        found = {(s.type.value, s.name): s for s in stream.sections}
    start, part, end = (found[kind, "ram"] for kind in ("start", "part", "end"))
    cpu, eof = found["full", "cpu"], found["eof", None]
    cuts = {
        "block list": start.body_offset + 20,
        "RAM": part.body_offset + 5000,
        "END": end.offset + 3,
        "header": cpu.offset + 3,
        "body": cpu.body_offset + 100,
        "footer": cpu.end - 2,
        "between": cpu.end,
        "EOF": eof.offset,
    }
    if ("vmdesc", None) in found:
        cuts["vmdesc"] = found["vmdesc", None].offset + 1000
    return cuts


PC = samplefiles.read("pc-7.2")
CUTS = places(PC)


@pytest.fixture
def call(capsys):
    def go(*arguments):
        status = run(list(arguments))
        out, err = capsys.readouterr()
        return status, out, err

    return go


def says_where(call, command, path, tmp_path, offset=None):
    arguments = [part.format(path, out=tmp_path / "out") for part in command]
    status, out, err = call(*arguments)
    assert status == 3, (arguments, err)
    named = {int(found, 16) for found in re.findall(r"0x[0-9a-f]+", err + (out if command[0] == "check" else ""))}
    assert named if offset is None else offset in named, (arguments, err)
    return out


@pytest.mark.parametrize("where", CUTS)
def test_commands_that_show(call, where, tmp_path):
    path = tmp_path / "cut.mig"
    path.write_bytes(PC[: CUTS[where]])
    whole = call("show", PLAIN, "cpu@0/env.eip")[1]
    for command in DISPLAYING:
        out = says_where(call, command, path, tmp_path, CUTS[where])
        if command[:3] == ["show", "{}", "cpu@0/env.eip"]:
            assert out == ("" if where in ("block list", "RAM", "END") else whole)


@pytest.mark.parametrize("where", ["RAM", "body", "vmdesc"])
@pytest.mark.parametrize("command", [*JUDGING, *WRITING], ids=lambda c: " ".join(c).replace(PLAIN, "pc"))
def test_commands_that_judge_and_write(call, command, where, tmp_path):
    path = tmp_path / "cut.mig"
    path.write_bytes(PC[: CUTS[where]])
    says_where(call, command, path, tmp_path, CUTS[where] if command[:2] != ["preflight", "{}"] else None)


def test_rewriting_without_edits_copies_what_is_there(call, tmp_path):
    path = tmp_path / "cut.mig"
    path.write_bytes(PC[: CUTS["body"]])
    assert call("rewrite", str(path), "-o", str(tmp_path / "copy"))[0] == 3
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def containers():
    """(name, bytes): streams in their containers, cut inside; libvirt's and packed ones of which the packing is cut."""
    image, packed = samplefiles.container("libvirt-raw.save"), samplefiles.container("libvirt-gzip.save")
    return {
        "libvirt": image[:-150_000],
        "libvirt in RAM": image[: len(image) // 3],
        "libvirt and gzip": packed[: len(packed) // 2],
        "gzip": gzip.compress(PC, mtime=0)[:60_000],
        "a cut one in gzip": gzip.compress(PC[: CUTS["body"]], mtime=0),
        "qcow2": samplefiles.container("savevm-7.2.qcow2")[:-300_000],
        "no vmdesc": samplefiles.read("novmdesc-7.2")[:-2000],
        "no configuration": samplefiles.read("noconfig-7.2")[:-150_000],
        "another target": samplefiles.read("arm-7.2")[:-90_000],
    }


@pytest.mark.parametrize("name", containers())
def test_other_streams_and_containers(call, name, tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(containers()[name])
    for command in (["info", "{}"], ["show", "{}", "cpu@0/env.eip"], ["show", "{}", "nothere"], ["check", "{}"]):
        says_where(call, command, path, tmp_path)


@pytest.mark.parametrize("cut", [0, 3, 7, 11, 25])
def test_next_to_nothing(call, cut, tmp_path):
    path = tmp_path / "cut.mig"
    path.write_bytes(PC[:cut])
    for command in (["info", "{}"], ["sections", "{}"], ["show", "{}", "cpu@0/env.eip"], ["check", "{}"]):
        says_where(call, command, path, tmp_path, cut)


# -- words that count bytes right -------------------------------------------------------------------------------------


def test_no_footer_byte_is_there(call, tmp_path):
    path = casefiles.put("load", "c3c.mig", tmp_path)
    status, _, err = call("info", path)
    assert status == 3
    assert "at offset 0x971b0 in mc146818rtc: the stream ends here, 75 bytes into the body of a section" in err
    assert "the footer 7e 00 00 00 0d after the body, of which no byte is present" in err
    status, out, err = call("show", path, "cpu@0/env.eip")
    assert (status, out) == (3, "0xb7c2\n")
    status, out, err = call("show", path, "mc146818rtc", "--json")
    assert status == 3
    assert json.loads(out)["error"]["offset"] == 0x971B0


@pytest.mark.parametrize("left", range(6))
def test_footer_bytes_are_counted(left):
    with qmigtool.open(PC) as stream:
        cpu = next(s for s in stream.sections if s.name == "cpu")
    with qmigtool.open(PC[: cpu.end - 5 + left]) as cut:
        assert not cut.complete
        assert isinstance(cut.error, TruncatedError)
        text = str(cut.error)
    if left == 5:
        assert "the next item" in text
    elif left == 0:
        assert "of which no byte is present" in text
        assert f"{cpu.body_length} bytes into the body" in text
    else:
        assert f"of which the first {left} may be present" in text
