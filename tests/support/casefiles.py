"""Small inputs that were got wrong once (``tests/data/cases``): load, xsave and hostile; those named .xz are packed."""

import lzma
from pathlib import Path

from tests.support.paths import DATA

CASES = DATA / "cases"


def read(folder: str, name: str) -> bytes:
    """Return a case, unpacked if it is stored so: ``read("xsave", "k1a.compacted")``."""
    plain = CASES / folder / name
    return plain.read_bytes() if plain.exists() else lzma.decompress((CASES / folder / f"{name}.xz").read_bytes())


def put(folder: str, name: str, into: Path) -> str:
    """Write a case to the folder ``into`` under its own name, and return the path."""
    path = into / name
    path.write_bytes(read(folder, name))
    return str(path)
