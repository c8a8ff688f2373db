"""Numbers as people write them, and the narrower forms of documents that programs write."""

from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.util.values import decimal, number, parse_number, size, word
from qmigtool.xsave import parse_mask
from tests.support import samplefiles


@pytest.mark.parametrize(
    ("text", "value"), [("0x2e7", 743), ("1_000", 1000), ("-1", -1), ("1 GiB", 1 << 30), ("010", None), ("x", None)]
)
def test_parse_number(text: str, value: int | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x2e7", 743), ("0xFF", 255), ("0x100", 256), ("743", None), ("0X1", None), ("0x1K", None), (7, None)],
)
def test_word(text: object, value: int | None) -> None:
    assert word(text) == value
    assert word(text, 8) == (value if value is not None and value < 256 else None)


@pytest.mark.parametrize(
    ("text", "value"), [("07", 7), ("123", None), ("0x1", None), ("", None), ("٣", None), (7, None)]
)
def test_decimal(text: object, value: int | None) -> None:
    assert decimal(text, 2) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("743", 743), ("0x2e7", 743), ("0X2E7", 743), ("0b101", 5), ("0o17", 15), ("1_000", 1000), ("-1", -1),
        ("512K", 512 << 10), ("16m", 16 << 20), ("1 GiB", 1 << 30), ("2GB", 2 << 30), ("0x10K", 0x4000),
        ("0x1000", 4096), ("0x1b", 27), ("16 bytes", 16), ("16b", 16), (" 5 ", 5), ("0", 0), ("-4K", -4096),
    ],
)  # fmt: skip
def test_numbers_have_one_grammar(text: str, value: int) -> None:
    assert parse_number(text) == value == number(text, "it")


@pytest.mark.parametrize("text", ["", "k", "0x", "1.5", "1e3", "010", "5kk", "\uff11", "0b2", "x", "1 2", "9" * 500])
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None
    with pytest.raises(Exception, match="it is "):
        size(text, "it")


@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        (["--set", "cpu@0/env.xcr0=0x7"], "cpu@0/env.xcr0", 7),
        (["--set", "cpu@0/env.regs[1]=512K"], "cpu@0/env.regs[1]", 512 << 10),
        (["--set", "cpu@0/env.regs[1]=16m"], "cpu@0/env.regs[1]", 16 << 20),
        (["--set", "cpu@0/env.regs[1]=0b101"], "cpu@0/env.regs[1]", 5),
    ],
)
def test_edits_take_the_same_numbers(options: list[str], path: str, value: int, tmp_path: Path) -> None:
    out = str(tmp_path / "out.mig")
    assert run(["rewrite", str(samplefiles.path("kvm-avx512-7.2")), *options, "-o", out]) == 0
    with qmigtool.open(out) as stream:
        assert stream.field(path).value == value


def test_masks_and_vcpus_take_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_mask("0b111,0x1K") == 0x407
    file, out = str(samplefiles.path("kvm-avx512-7.2")), str(tmp_path / "area")
    export = ["xsave", "export", file, "--format", "standard", "--layout", "qemu", "-o", out]
    assert run([*export, "--vcpu", "0x0"]) == 0
    assert run([*export, "--vcpu", "01"]) == 2
    assert "01" in capsys.readouterr().err
