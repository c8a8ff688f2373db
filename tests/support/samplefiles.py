"""The real streams in samples/, by name, and what is known about them from elsewhere than qmigtool."""

import lzma
from pathlib import Path

from tests.support.paths import SAMPLES

CONTAINERS = SAMPLES / "containers"

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


def container(name: str) -> bytes:
    """One of samples/containers, without the xz that it is stored in."""
    return lzma.decompress((CONTAINERS / f"{name}.xz").read_bytes())
