"""The examples of CONTRIBUTING.md: made in a copy of the package, each has the files that it names, and works."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.copies import copy_package, run
from tests.support.paths import SAMPLES
from tests.support.streamwriter import StreamWriter, be32

TEXT = (Path(__file__).parents[1] / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in TEXT.split("\n### ... ")[1:]}
BLOCK = re.compile(r"<!-- (\S+) (new|before|after|replace)(?:: (.*?))? -->\n```\w+\n(.*?)```", re.DOTALL)
STREAM = str(SAMPLES / "twin-kvm-10.0.mig")


def files(title: str) -> set[str]:
    return {name for name, *_ in BLOCK.findall(SECTIONS[title])}


def changed(title: str, place: Path) -> dict[str, str]:
    """Copy the package and make the changes of a section; return the environment for it."""
    environment = copy_package(place)
    for name, how, line, text in BLOCK.findall(SECTIONS[title]):
        path = place / (f"qmigtool/{name}" if name.startswith("parsers/") else name)
        if how == "new":
            path.write_text(text, encoding="utf-8")
            continue
        old = path.read_text(encoding="utf-8")
        assert old.count(f"\n{line}\n") == 1, line
        new = {"before": f"{text}{line}\n", "after": f"{line}\n{text}", "replace": text}[how]
        path.write_text(old.replace(f"\n{line}\n", f"\n{new}", 1), encoding="utf-8")
    return environment


def ran(environment: dict[str, str], *words: str) -> str:
    done = run(environment, *words)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("title", "count"),
    [
        ("an edit", 1),
        ("a check rule", 1),
        ("an output format of findings", 1),
        ("a container", 1),
        ("a container with snapshots, several connections, or a header", 1),
        ("a live section", 1),
        ("an accelerator", 2),
        ("an XSAVE component", 2),
        ("a CPU layout", 1),
    ],
)
def test_so_many_files(title: str, count: int) -> None:
    assert len(files(title)) == count


@pytest.mark.slow
def test_an_edit(tmp_path: Path) -> None:
    environment = changed("an edit", tmp_path)
    out = tmp_path / "out.mig"
    assert "cpu@0/env.star" in ran(environment, "rewrite", STREAM, "--zero-field", "cpu@0/env.star", "-o", str(out))
    assert "--zero-field" in ran(environment, "rewrite", "--help")
    plan = tmp_path / "plan.toml"
    plan.write_text('[[edit]]\nop = "zero-field"\npath = "cpu@0/env.lstar"\n', encoding="utf-8")
    assert "cpu@0/env.lstar" in ran(environment, "rewrite", STREAM, "--edits", str(plan), "--dry-run")


@pytest.mark.slow
def test_a_check_rule(tmp_path: Path) -> None:
    environment = changed("a check rule", tmp_path)
    out = str(tmp_path / "out.mig")
    ran(environment, "rewrite", STREAM, "--set", "cpu@0/env.star=0", "-o", out)
    assert "STAR is 0" in ran(environment, "check", out)
    assert "star-set" in ran(environment, "check", "--list-rules")
    row = '[rules.star-set]\nseverity = "note"           # a guest may enable SYSCALL without using it\n'
    assert row in ran(environment, "check", "--print-policy")


def test_an_output_format(tmp_path: Path) -> None:
    environment = changed("an output format of findings", tmp_path)
    assert "xcr0-equal,cpu@3" in ran(environment, "check", str(SAMPLES / "pc-7.2.mig"), "--format", "csv")


def test_a_container(tmp_path: Path) -> None:
    environment = changed("a container", tmp_path)
    path = tmp_path / "vm.inverted"
    path.write_bytes(b"INVERTED" + bytes(byte ^ 0xFF for byte in Path(STREAM).read_bytes()))
    assert "inverted" in ran(environment, "info", str(path))


def test_a_container_with_snapshots(tmp_path: Path) -> None:
    environment = changed("a container with snapshots, several connections, or a header", tmp_path)
    path = tmp_path / "vm.slots"
    slots = [(SAMPLES / f"{name}.mig").read_bytes().ljust(1 << 20, b"\0") for name in ("pc-7.2", "arm-7.2")]
    path.write_bytes(b"TWOSLOTS" + b"".join(slots))
    document = json.loads(ran(environment, "info", str(path), "--snapshot", "1", "--json"))
    assert (document["container"], document["container_details"]) == ("slots", {"snapshot": "1"})
    arm = json.loads(ran(environment, "info", str(SAMPLES / "arm-7.2.mig"), "--json"))
    assert document["machine"] == arm["machine"]


def test_a_live_section(tmp_path: Path) -> None:
    environment = changed("a live section", tmp_path)
    writer = StreamWriter(footers=False)
    writer.start(2, "example-live", 0, 1, be32(3) + b"abc" + be32(0))
    writer.end(2, be32(0))
    path = tmp_path / "vm.mig"
    path.write_bytes(writer.finish(vmdesc=False))
    listed = json.loads(ran(environment, "sections", str(path), "--json"))
    assert not listed["problems"]
    assert [one["measured"] for one in listed["sections"] if one["name"] == "example-live"] == ["records"] * 2
    with pytest.raises(AssertionError, match="expected the footer"):
        ran(dict(os.environ), "sections", str(path), "--json")


def test_an_accelerator(tmp_path: Path) -> None:
    environment = changed("an accelerator", tmp_path)
    out = str(tmp_path / "out.mig")
    ran(environment, "rewrite", STREAM, "--to-accelerator", "nvmm", "--lossy", "-o", out)
    assert "nvmm" in ran(environment, "info", "--accelerator", "nvmm", out)


def test_a_component(tmp_path: Path) -> None:
    environment = changed("an XSAVE component", tmp_path)
    out = str(tmp_path / "out.mig")
    ran(environment, "rewrite", STREAM, "--set-xcr0", "0", "0x200007", "-o", out)
    assert "EXAMPLE" in ran(environment, "xsave", "table", out)
    (layout,) = json.loads(ran(environment, "xsave", "layouts", "qemu", "--json"))["layouts"]
    (offset,) = [row["standard_offset"] for row in layout["components"] if row["name"] == "EXAMPLE"]
    area = bytearray(offset + 64)
    area[0:2], area[24:28] = b"\x7f\x03", b"\x80\x1f\0\0"
    area[512:520] = (1 << 21).to_bytes(8, "little")
    area[offset : offset + 64] = b"".join((0xE0 + i).to_bytes(8, "little") for i in range(8))
    path, live = tmp_path / "area.bin", str(tmp_path / "live.mig")
    path.write_bytes(area)
    ran(environment, "xsave", "import", out, "--vcpu", "0", str(path), "--layout", "qemu", "-o", live)
    (device,) = json.loads(ran(environment, "show", live, "cpu@0/cpu/example", "--json"))["devices"]
    assert device["fields"]["cpu/example"]["env.example"] == [hex(0xE0 + i) for i in range(8)]


def test_a_cpu_layout(tmp_path: Path) -> None:
    assert "example-cpu" in ran(changed("a CPU layout", tmp_path), "xsave", "layouts", "example-cpu")
