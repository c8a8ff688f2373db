"""Lengths of state that the bytes themselves give."""

from __future__ import annotations

import qmigtool
from tests.preflight.loader.decided import case, judged, target


def test_a_longer_blob_than_the_stream_says() -> None:
    """The size of a TPM's state is in the stream: one more there, and the next field is read too late."""
    data = bytearray(case("tpm-tis-10.0.mig"))
    with qmigtool.open(case("tpm-tis-10.0.mig")) as stream:
        at = stream.field("tpm-emulator@0/state_blobs.permanent.size").offset
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 1).to_bytes(4, "big")
    assert judged(bytes(data), target("tpm-tis-10.0.ref", "10.0")).loads is not True
