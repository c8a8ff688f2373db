"""``qmigtool diff`` as people and programs see it."""

import json
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from tests.cli.calling import PC
from tests.diff.comparing import edited
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, eos, mem_size, page

KVM, TCG = str(samplefiles.path("twin-kvm-10.0")), str(samplefiles.path("twin-tcg-10.0"))


@pytest.fixture
def changed(tmp_path: Path) -> str:
    file = tmp_path / "changed.mig"
    file.write_bytes(edited("pc-7.2", lambda r: r.set("cpu@1/env.cr[4]", 0x600), lambda r: r.set("cpu@2/env.tsc", 77)))
    return str(file)


def test_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", PC, PC]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "no difference"
    assert err == ""


def test_different(changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", PC, changed]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["where", "A", "B", "about"]
    assert lines[4].split() == ["cpu@1/env.cr[4]", "0x40600", "0x600", "CR4:", "-OSXSAVE"]
    assert lines[-1] == "1 difference; excused as noise: 1 TSC"


@pytest.mark.parametrize(
    ("options", "code", "where"),
    [
        (["--ignore", "cpu@1/*"], 0, []),
        (["--strict"], 1, ["cpu@1/env.cr[4]", "cpu@2/env.tsc"]),
        (["--count", "tsc", "--ignore", "*cr*"], 1, ["cpu@2/env.tsc"]),
    ],
)
def test_rules_from_the_command_line(
    options: list[str], code: int, where: list[str], changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["diff", PC, changed, "--json", *options]) == code
    document = json.loads(capsys.readouterr().out)
    assert [d["where"] for d in document["differences"]] == where
    assert document["same"] is (code == 0)


def test_rules_from_a_file(tmp_path: Path, changed: str) -> None:
    noise = tmp_path / "noise.toml"
    noise.write_text(
        '[[rule]]\nid = "cr4"\ntopic = "CR4"\nwhy = "because"\nfields = ["cpu@*/env.cr[4]"]\nmask = 0x40000\n'
    )
    assert run(["diff", PC, changed, "--noise", str(noise)]) == 0
    assert run(["diff", PC, changed, "--noise", str(tmp_path / "none.toml")]) == 2
    noise.write_text("rule = 3")
    assert run(["diff", PC, changed, "--noise", str(noise)]) == 2


def test_json(changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(["diff", PC, changed, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    (difference,) = document["differences"]
    assert difference == {
        "where": "cpu@1/env.cr[4]",
        "device": "cpu@1",
        "path": "env.cr[4]",
        "kind": "changed",
        "a": "0x40600",
        "b": "0x600",
        "offset_a": difference["offset_b"],
        "offset_b": difference["offset_b"],
        "meaning": "CR4: -OSXSAVE",
        "topic": None,
        "rule": None,
    }
    assert [d["rule"] for d in document["excused"]] == ["tsc"]
    assert Path(changed).read_bytes()[difference["offset_b"] :][:8] == (0x600).to_bytes(8, "big")


def test_csv_and_html(tmp_path: Path, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run(["diff", PC, changed, "--csv", "--html", str(page)]) == 1
    assert capsys.readouterr().out.splitlines()[1].startswith("cpu@1,env.cr[4],changed,")
    text = page.read_text(encoding="utf-8")
    assert "CR4: -OSXSAVE" in text
    assert "1 difference" in text
    assert run(["diff", PC, changed, "--html", PC]) == 2  # an input is never replaced


def test_ram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scrubbed = tmp_path / "scrubbed.mig"
    scrubbed.write_bytes(edited("pc-7.2", lambda r: r.scrub_ram()))
    assert run(["diff", PC, str(scrubbed)]) == 0
    capsys.readouterr()
    assert run(["diff", PC, str(scrubbed), "--ram", "--json"]) == 1
    ram = json.loads(capsys.readouterr().out)["ram"]
    # Of the 117 pages that are not zero in the sample (`qmigtool ram`), each becomes zero.
    assert {b["name"]: b["zeroed"] for b in ram["blocks"]} == {
        "pc.ram": 67,
        "/rom@etc/acpi/tables": 2,
        "pc.bios": 46,
        "pc.rom": 0,
        "/rom@etc/table-loader": 1,
        "/rom@etc/acpi/rsdp": 1,
    }
    assert sum(r["pages"] for r in ram["ranges"]) == 117
    assert ram["ranges_complete"]
    assert run(["diff", PC, PC, "--ram"]) == 0
    assert "no page of guest memory differs" in capsys.readouterr().out


def test_ram_that_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The guest's first page is put where an empty one was."""
    with qmigtool.open(PC) as stream:
        content = bytes(stream.ram.page("pc.ram", 0x100000))
    ones = [content if page == 3 else bytes(4096) if page != 2 else b"\1" * 4096 for page in range(5)]
    others = [content if page in (3, 4) else old for page, old in enumerate(ones)]
    files = []
    for name, pages in (("a", ones), ("b", others)):
        file = tmp_path / name
        w = StreamWriter("pc-i440fx-7.2")
        w.start(1, "ram", 0, 4, mem_size([("r", 5 * PAGE)]) + eos())
        w.end(1, page(0, pages[0], "r") + b"".join(page(i * PAGE, p, "r") for i, p in enumerate(pages) if i) + eos())
        file.write_bytes(w.finish())
        files.append(str(file))
    assert run(["diff", *files, "--ram", "--moved", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ram"]["moved"] == [
        {"block": "r", "offset": 0x4000, "from_block": "r", "from_offset": 0x3000}
    ]
    assert run(["diff", *files, "--ram", "--moved"]) == 1
    assert "has contents of" in capsys.readouterr().out
    assert run(["diff", *files, "--moved"]) == 2


def test_base(changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", PC, changed, "--base", PC]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["where", "base", "A", "B", "changed", "by"]
    assert out[1].split() == ["cpu@1/env.cr[4]", "0x40600", "0x40600", "0x600", "B"]
    assert run(["diff", changed, changed, "--base", PC, "--json"]) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["who"], change["base"], change["a"]) == ("A and B alike", "0x40600", "0x600")
    assert run(["diff", PC, PC, "--base", PC]) == 0
    assert run(["diff", PC, PC, "--base", PC, "--ram"]) == 2
    assert run(["diff", PC, PC, "--ram", "--csv"]) == 2
    assert run(["diff", PC, PC, "--html", "-"]) == 2


def test_a_broken_stream_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.mig"
    cut.write_bytes(Path(PC).read_bytes()[:-5000])  # inside the vmdesc: nothing of the state is lost
    assert run(["diff", PC, str(cut)]) == 3
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "no difference; B broken: compared as far as can be read"
    assert "cut.mig" in err
    with qmigtool.open(PC) as stream:
        end = stream.device("hpet").section.offset + 20
    cut.write_bytes(Path(PC).read_bytes()[:end])
    assert run(["diff", PC, str(cut)]) == 3
    out, err = capsys.readouterr()
    assert "globalstate@0: not reached: B is truncated at " in out
    assert "cut.mig" in err


def test_list_noise(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", "--list-noise"]) == 0
    assert "clocks" in capsys.readouterr().out


def test_twins_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", KVM, TCG]) == 1
    out = capsys.readouterr().out
    assert "saved by kvm (inferred)" in out
    assert "env.fpregs" not in out
    assert run(["diff", KVM, TCG, "--all"]) == 1
    assert "XSTATE_BV: -x87 -SSE -AVX (XSAVE, excused)" in capsys.readouterr().out
