"""A file that was cut: exit status 3 and the offset from every command, and what precedes the cut is shown."""

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


# -- what was not reached is unknown, not absent ----------------------------------------------------------------------


@pytest.fixture(params=[(200_000, 0x30D40, 40, None), (530_000, 0x81650, 7, 33)], ids=["in RAM", "in a device"])
def cut(request, tmp_path):
    """A truncated file, its end, the number of sections that were not reached, and that of those before."""
    size, end, unread, devices = request.param
    path = tmp_path / "cut.mig"
    path.write_bytes(samplefiles.path("pc-7.2").read_bytes()[:size])
    return str(path), f"{end:#x}", unread, devices


def test_info_does_not_count_what_was_not_reached(cut, capsys):
    path, end, _, devices = cut
    assert run(["info", path, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["devices"], document["vcpus"]) == (devices, None if devices is None else 4)
    assert document["pages_missing"] is None
    run(["info", path])
    printed = capsys.readouterr().out
    words = f"not reached: the file is truncated at {end}"
    assert f"devices       {words if devices is None else f'{devices}, the rest is {words}'}\n" in printed
    assert f"vmdesc        {words}\n" in printed
    run(["info", path, PLAIN])
    assert capsys.readouterr().out.splitlines()[1].split()[-5:-3] == (
        ["unknown"] * 2 if devices is None else ["4", "33"]
    )


def test_diff_does_not_count_what_was_not_reached(cut, capsys):
    path, end, unread, _ = cut
    assert run(["diff", PLAIN, path, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["same"], document["differences"]) == (None, [])
    (why,) = document["undecided"]
    assert why.endswith(f"globalstate@0: not reached: B is truncated at {end}")
    assert why.count("@") == unread


def test_preflight_loses_nothing_that_was_not_reached_and_prints_the_error_once(cut, capsys):
    path, end, unread, _ = cut
    assert run(["preflight", path, "--target", PLAIN, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["losses"] == []
    run(["preflight", path, "--target", PLAIN])
    printed = "".join(capsys.readouterr())
    assert f"- {unread} sections that the target has, from " in printed
    assert f"on, are not reached: the file is truncated at {end}\n" in printed
    assert printed.count("the stream ends here") == 1


def test_ram_of_a_truncated_file_names_the_end_not_a_channel(cut, capsys):
    path, end, unread, _ = cut
    run(["ram", path])
    said = capsys.readouterr().err
    assert "--channel" not in said
    assert (f"220 of 4226 pages are not reached: the file is truncated at {end}\n" in said) == (unread == 40)


def test_the_list_of_blocks_may_be_truncated(tmp_path, capsys):
    path = tmp_path / "cut.mig"
    path.write_bytes(samplefiles.path("pc-7.2").read_bytes()[:100])
    run(["preflight", str(path), "--target", PLAIN, "--json"])
    assert json.loads(capsys.readouterr().out)["losses"] == []
    run(["diff", PLAIN, str(path), "--json"])
    assert not [one for one in json.loads(capsys.readouterr().out)["differences"] if "RAM block" in one["where"]]


def test_damage_before_state_found_from_the_end_leaves_it_counted(tmp_path, capsys):
    data = bytearray(samplefiles.path("pc-7.2").read_bytes())
    data[400_000:403_000] = bytes(3000)
    path = tmp_path / "damaged.mig"
    path.write_bytes(data)
    run(["info", str(path)])
    printed = capsys.readouterr().out
    assert "vCPUs         4\ndevices       40\n" in printed


def test_check_of_no_stream_promises_no_readable_part(tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text("# no stream\n")
    assert run(["check", str(path)]) == 3
    assert "still checked" not in capsys.readouterr().out


def test_all_state_is_reached_where_only_the_vmdesc_is_truncated(tmp_path, capsys):
    path = tmp_path / "cut.mig"
    path.write_bytes(samplefiles.path("pc-7.2").read_bytes()[:-5000])
    run(["info", str(path)])
    assert "vCPUs         4\ndevices       40\n" in capsys.readouterr().out
    with path.open("rb") as file, qmigtool.open(file) as stream:
        assert (len(stream.devices), stream.stopped) == (40, None)
