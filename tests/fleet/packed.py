"""The pairs that ``pack`` has made small, for the tests."""

from __future__ import annotations

import functools
import io
import lzma
import tarfile
from pathlib import Path

from tests.fleet.cases import Row, read_rows

PACKED = Path(__file__).parents[1] / "data" / "fleet" / "streams.tar.xz"


@functools.cache
def files() -> dict[str, bytes]:
    """Return the files by name."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(PACKED.read_bytes()))) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


def put(folder: Path) -> list[Row]:
    """Write all files to a folder, and return the rows of the table."""
    for name, data in files().items():
        (folder / name).write_bytes(data)
    return list(read_rows(folder / "table.tsv"))
