"""Fixes of what precedes the state: configuration, footers, UUID."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import pytest

import qmigtool
from qmigtool.preflight.target.reference import target_from_stream
from tests.preflight.recorded import target
from tests.preflight.remedies.remedied import PACKED, judge, pc, remedied
from tests.support.paths import SAMPLES


@pytest.mark.parametrize(
    ("file", "properties", "options", "instead"),
    [
        # Cases A6, A7, C16.
        ("noconfig-7.2", None, "--add-configuration pc-i440fx-7.2", "send-configuration=off"),
        ("pc-7.2", {"send-configuration": False}, "--drop-configuration", "send-configuration=on"),
        ("pc-7.2", {"send-section-footer": False}, "--drop-footers", "send-section-footer=on"),
    ],
)
def test_framing(file: str, properties: dict[str, bool] | None, options: str, instead: str, tmp_path: Path) -> None:
    aim = target("t01", "7.2") if properties is None else replace(pc(), properties=properties)
    path = SAMPLES / f"{file}.mig"
    result = judge(path, aim)
    assert result.remedy is not None
    assert result.remedy.command == f"qmigtool rewrite {path} {options} -o OUT"
    assert result.remedy.options == (f"-global migration.{instead}",)
    assert remedied(result, path, tmp_path / "out.mig", aim).verdict.loads is True


def test_another_uuid(tmp_path: Path) -> None:
    path = tmp_path / "uuid.mig"
    path.write_bytes(lzma.decompress((PACKED / "uuid-11.1.mig.xz").read_bytes()))
    with qmigtool.open(path) as stream:
        aim = replace(target_from_stream(stream), qemu=(11, 1), uuid="00000000-0000-0000-0000-000000000001")
    result = judge(path, aim)
    assert result.verdict.rule == "uuid"
    assert result.remedy is not None
    assert result.remedy.needed == ("-uuid 01234567-89ab-cdef-0123-456789abcdef",)
    assert result.remedy.verdict is not None
    assert result.remedy.verdict.loads is True
