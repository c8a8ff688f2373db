"""Lists whose elements differ: buffers that are as long as each needs, subsections that only some have.

uefi-vars-x64 of QEMU 10.0 and 11.1: real ``-incoming`` loads what it has saved itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import qmigtool
from qmigtool.findings.text import sentence
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader.predict import Verdict, predict_source
from qmigtool.preflight.target.reference import target_from_stream
from tests.support.streamwriter import StreamWriter, Vmsd, num, qtailq, raw


def variable(name: bytes, data: bytes, digest: bytes | None = None, vmsd: str = "uefi-variable") -> Vmsd:
    sizes = [num("name_size", "uint32", len(name)), num("data_size", "uint32", len(data))]
    digests = [] if digest is None else [num("digest_size", "uint32", len(digest)), raw("digest", digest)]
    more = [Vmsd(f"{vmsd}-digest", 0, digests)] if digests else []
    return Vmsd(vmsd, 0, [*sizes, raw("name", name), raw("data", data)], more)


def stream(variables: Sequence[Vmsd]) -> bytes:
    body = [num("buf_size", "uint32", 3), raw("pio_xfer_buffer", b"abc"), qtailq("variables", variables)]
    writer = StreamWriter()
    writer.device(1, "uefi-vars-sysbus", 0, Vmsd("uefi-vars", 0, body))
    return writer.finish()


def judged(sent: bytes, own: bytes) -> Verdict:
    with qmigtool.open(own) as reference:
        target = target_from_stream(reference, "reference")
    return predict_source(BufferSource(sent), target)


def test_the_elements_of_a_list_are_as_long_as_they_say() -> None:
    own = stream([variable(b"one", b"1"), variable(b"two", b"22")])
    sent = stream([variable(b"a long name", b"d" * 300), variable(b"", b"")])
    for data in (own, sent):
        assert not [one for one in judged(data, own).unknown if "uefi" in sentence(one)]
        assert judged(data, own).loads is True


def test_a_subsection_that_some_elements_have_is_known() -> None:
    own = stream([variable(b"one", b"1"), variable(b"two", b"22", b"digest")])
    sent = stream([variable(b"one", b"1", b"another digest"), variable(b"two", b"22")])
    assert not [one for one in judged(sent, own).unknown if "uefi" in sentence(one)]
    assert judged(sent, own).loads is True


def test_whose_length_counts_in_a_list_that_nobody_knows_is_not_decided() -> None:
    own = stream([variable(b"one", b"1", vmsd="dev-entry")])
    assert judged(own, own).loads is True
    found = judged(stream([variable(b"three", b"1", vmsd="dev-entry")]), own)
    assert found.loads is None
    assert any("dev-entry:name differs in length" in one.message for one in found.unknown)
