"""The reduced pairs of ``pack``, for the tests."""

from __future__ import annotations

import functools
import io
import lzma
import tarfile
from pathlib import Path

from tests.fleet.cases import Row, parse_rows
from tests.support.paths import DATA

PACKED = DATA / "fleet" / "streams.tar.xz"


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


def rows() -> list[Row]:
    """Return the rows of the table."""
    return list(parse_rows(files()["table.tsv"].decode()))


def put(folder: Path, case: str) -> list[Row]:
    """Write the files of a case to a folder, and return its rows."""
    found = [row for row in rows() if row.case == case]
    for name in {name for row in found for name in (row.stream, row.reference)}:
        (folder / name).write_bytes(files()[name])
    return found
