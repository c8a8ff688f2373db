"""The real streams in samples/, by name, and what is known about them from elsewhere than qmigtool."""

from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "samples"

NAMES = (
    "arm-7.2",
    "kvm-avx512-7.2",
    "microvm-10.0",
    "noconfig-7.2",
    "novmdesc-7.2",
    "pc-11.1",
    "pc-7.2",
    "q35-7.2",
    "twin-kvm-10.0",
    "twin-tcg-10.0",
)
DESCRIBED = tuple(name for name in NAMES if name != "novmdesc-7.2")
X86 = tuple(name for name in DESCRIBED if name != "arm-7.2")


def path(name: str) -> Path:
    return SAMPLES / f"{name}.mig"


def read(name: str) -> bytes:
    return path(name).read_bytes()
