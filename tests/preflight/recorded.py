"""What real QEMU said (``tests/data/preflight``), and the targets that said it."""

from __future__ import annotations

import functools
import io
import json
import lzma
import tarfile
from dataclasses import replace
from typing import Any, NamedTuple

import qmigtool
from qmigtool.preflight.target.builds import target_from_version
from qmigtool.preflight.target.model import Target
from qmigtool.preflight.target.reference import merge, target_from_stream
from tests.support import paths

DATA = paths.DATA / "preflight"
PREFIX = "qemu-system-x86_64: "


class Row(NamedTuple):
    """One run of a real QEMU."""

    case: str
    edit: str
    qemu: str
    target: str
    loaded: bool
    lines: tuple[str, ...]


# What a QEMU says of its own command line before it looks at a stream.
_STARTING = ("warning: TCG doesn't support requested feature", "warning: nic e1000.0 has no peer", "QMP: ")


def _lines(stderr: str) -> tuple[str, ...]:
    lines = (line.removeprefix(PREFIX) for line in stderr.splitlines() if line)
    return tuple(line for line in lines if not line.startswith(_STARTING))


@functools.cache
def rows() -> tuple[Row, ...]:
    with lzma.open(DATA / "load_errors.json.xz", "rt") as file:
        document: dict[str, Any] = json.load(file)
    return tuple(
        Row(
            row["case"],
            row["edit"],
            row["qemu"].rsplit(".", 1)[0],
            row["target"],
            row["loaded"],
            _lines(row.get("stderr") or ""),
        )
        for row in document["rows"]
    )


@functools.cache
def _references() -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress((DATA / "references.tar.xz").read_bytes()))) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removesuffix(".mig")] = file.read()
    return found


def reference(name: str) -> bytes:
    """The reference stream ``tNN-VERSION``: see MANIFEST.md."""
    return _references()[name]


@functools.cache
def target(name: str, qemu: str) -> Target:
    """The target of a reference, with what is known of its QEMU's version."""
    version = tuple(map(int, qemu.split(".")))
    with qmigtool.open(reference(f"{name}-{qemu}")) as stream:
        made = merge(target_from_version(version), target_from_stream(stream, name))
    return replace(made, qemu=version, uuid="")
