"""Predictions against the real QEMU that is there, on the cases made again, and on streams damaged at random."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.predict import predict_source
from tests.preflight import incoming, recorded
from tests.preflight.cases import CASES
from tests.preflight.edited import Edited, source

PC = ["-M", "pc-i440fx-7.2", "-accel", "tcg", "-cpu", "max", "-m", "16", "-nodefaults", "-serial", "null"]
KNOWN = ("7.2", "10.0", "11.1")


def arguments(reference: str) -> list[str]:
    smp = {"t00": 4, "t01": 2, "t03": 4, "t12": 4}[reference]
    more = {"t03": ["-m", "32"], "t12": ["-machine", "hpet=off"]}.get(reference, [])
    return [*PC, "-smp", str(smp), *more]


@pytest.fixture(scope="module")
def qemu() -> str:
    found = incoming.version()
    if found not in KNOWN:
        pytest.skip(f"QEMU {found}: there are references of {', '.join(KNOWN)}")
    return found


@pytest.mark.qemu
@pytest.mark.parametrize(
    "name",
    [
        *("A1", "A3", "A6", "B1", "B4", "B8", "B9", "B12", "B14", "C1", "C3", "C4", "C4c", "C8", "C9", "C11", "C14"),
        *("C17", "C19", "D1", "D2", "D3", "D8", "D12", "E1", "E3", "E4", "E5", "E6", "E7", "E9", "F1", "F2", "F3"),
        *("F5b", "F6d", "F7", "F8", "F9", "F10", "F12b", "F13", "F16", "F18", "G1", "G2", "G4", "G7b", "G8", "G11"),
        *("H1", "H2", "H3", "H4", "I1", "I7", "P7", "P13"),
    ],
)
def test_real_qemu_says_it(name: str, qemu: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = tmp_path / "stream.mig"
    path.write_bytes(case.data())
    real = incoming.load(path, arguments(case.reference))
    found = predict_source(BufferSource(path.read_bytes()), case.target(qemu))
    printed = found.errors if found.loads is False else found.warnings
    assert (found.loads, printed) == (real.loaded, real.lines)


@pytest.mark.qemu
@pytest.mark.parametrize("seed", range(24))
def test_real_qemu_says_it_of_damage(seed: int, qemu: str, tmp_path: Path) -> None:
    """Bytes changed, taken out and put in, in device state: where nobody has looked before."""
    rng = random.Random(seed)  # noqa: S311 - the same damage each time
    edited = Edited("pc-7.2")
    devices = edited.devices()
    data = bytearray(source("pc-7.2"))
    at = rng.randrange(devices[0].offset, devices[-1].end)
    kind = seed % 4
    if kind == 0:
        data[at] = rng.randrange(256)
    elif kind == 1:
        del data[at : at + rng.choice((1, 2, 4))]
    elif kind == 2:
        data[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
    else:
        del data[at:]
    path = tmp_path / "stream.mig"
    path.write_bytes(data)
    real = incoming.load(path, arguments("t00"))
    found = predict_source(BufferSource(bytes(data)), recorded.target("t00", qemu))
    printed = found.errors if found.loads is False else found.warnings
    assert (found.loads, printed) == (real.loaded, real.lines)
