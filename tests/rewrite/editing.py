"""What the tests of edits share: make edits, and see on one's own whether a stream is true to itself.

Nothing here asks the code under test what is right: the vmdesc is read as JSON and added up by hand, sections are found
by a fresh :func:`qmigtool.open` that reads forward, where footers say whether a length is right.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import qmigtool
from qmigtool.parsers.section import Type
from qmigtool.rewrite import Change, Rewriter, Splice
from tests.support import packedsamples, samplefiles
from tests.support.streamwriter import PAGE, Pairs, StreamWriter, Vmsd, be32, eos, mem_size, page, zero

Edits = Callable[[Rewriter], None]


class Done(NamedTuple):
    """What a rewrite wrote, and what it said of it."""

    data: bytes
    changes: list[Change]
    losses: list[str]
    notes: list[str]
    splices: list[Splice]


def rewritten(source: Path | bytes, *edits: Edits, lossy: bool = False, accelerator: str | None = None) -> Done:
    """Write ``source`` with edits made to it."""
    with qmigtool.open(source, accelerator=accelerator) as stream:
        rewriter = Rewriter(stream, lossy=lossy)
        for edit in edits:
            edit(rewriter)
        out = io.BytesIO()
        written = rewriter.write(out)
        assert written == len(out.getvalue())
        return Done(out.getvalue(), rewriter.changes, rewriter.losses, rewriter.notes, rewriter.splices())


def sample(name: str) -> Path:
    return samplefiles.path(name) if name in samplefiles.NAMES else packedsamples.packed(name).path


# -- a stream of one's own --------------------------------------------------------------------------------------------


def writer(
    *devices: tuple[str, int, Vmsd], footers: bool = True, machine: str | None = "pc-i440fx-7.2", config: bytes = b""
) -> StreamWriter:
    """Two pages of RAM, and devices; section ids 2, 3, ... in their order."""
    w = StreamWriter(machine, footers=footers, config=config)
    w.start(1, "ram", 0, 4, mem_size([("r", 2 * PAGE)]) + eos())
    w.part(1, page(0, bytes(range(256)) * 16, "r") + eos())
    w.end(1, zero(PAGE, "r") + eos())
    for number, (name, instance, vmsd) in enumerate(devices, start=2):
        w.device(number, name, instance, vmsd)
    return w


def stream_of(
    *devices: tuple[str, int, Vmsd], footers: bool = True, vmdesc: bool = True, spaced: bool = False
) -> bytes:
    return writer(*devices, footers=footers).finish(vmdesc=vmdesc, **({"spaced": spaced} if vmdesc else {}))


# -- whether a stream is true -----------------------------------------------------------------------------------------


def pairs_of(text: bytes) -> Any:
    return json.loads(text.decode("utf-8", "surrogateescape"), object_pairs_hook=Pairs, strict=False)


def get(pairs: Pairs, key: str, default: Any = None) -> Any:
    return next((value for name, value in pairs if name == key), default)


def size_of(pairs: Pairs) -> int:
    """How long a body is by its description; every struct inside has to be as long as its parts are."""
    size = 0
    for field in get(pairs, "fields", []):
        one = [value for key, value in field if key == "size"][-1]
        size += one * get(field, "array_len", 1)
        struct = get(field, "struct")
        if struct:
            assert size_of(struct) == one, field
        if get(field, "type") in ("tmp", "vstruct") and get(field, "vmsd_name"):
            assert size_of(field) == one, field
    for sub in get(pairs, "subsections", []):
        size += 1 + 1 + len(get(sub, "vmsd_name").encode("utf-8", "surrogateescape")) + 4 + size_of(sub)
    return size


def full_sections(data: bytes | Path) -> list[tuple[str, int, int, int, bytes]]:
    """(idstr, instance, version, section id, body) of each section of device state, read forward."""
    with qmigtool.open(data, forward=True) as stream:
        assert stream.complete, stream.error
        return [
            (
                s.name or "",
                s.instance_id or 0,
                s.version_id or 0,
                s.section_id or 0,
                bytes(stream.source.view(s.body_offset, s.body_length)),  # type: ignore[union-attr]
            )
            for s in stream.sections
            if s.type is Type.FULL
        ]


def bodies(data: bytes | Path) -> dict[tuple[str, int], bytes]:
    return {(name, instance): body for name, instance, _, _, body in full_sections(data)}


def described(data: bytes | Path) -> list[Pairs]:
    with qmigtool.open(data) as stream:
        assert stream.vmdesc_text is not None
        found = get(pairs_of(stream.vmdesc_text), "devices")
    assert isinstance(found, list)
    return found


def assert_true(data: bytes | Path) -> None:
    """It reads to its end with both strategies; its vmdesc has its sections, in their order, each with its length."""
    sections = full_sections(data)
    with qmigtool.open(data) as stream:
        assert stream.complete, stream.error
        for device in stream.devices:
            if device.description is not None:
                assert device.fields is not None
        if stream.vmdesc is None:
            return
        assert stream.strategy == "tail-first"
    devices = described(data)
    assert [(get(d, "name"), get(d, "instance_id")) for d in devices] == [(s[0], s[1]) for s in sections]
    for device, (name, instance, version, _, body) in zip(devices, sections, strict=True):
        assert size_of(device) == len(body), (name, instance)
        if get(device, "vmsd_name") is not None:
            assert get(device, "version") == version, (name, instance)


def subsection_bytes(name: str, version: int, body: bytes) -> bytes:
    return b"\x05" + bytes([len(name)]) + name.encode() + be32(version) + body


def differing(one: bytes, other: bytes) -> set[int]:
    """Where two streams of one size have another byte."""
    assert len(one) == len(other)
    return {
        at + i
        for at in range(0, len(one), 1024)
        if one[at : at + 1024] != other[at : at + 1024]
        for i, (a, b) in enumerate(zip(one[at : at + 1024], other[at : at + 1024], strict=True))
        if a != b
    }
