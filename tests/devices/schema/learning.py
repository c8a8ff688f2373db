"""Schemas learned from samples, and bodies that they describe."""

import functools

import qmigtool
from tests.support import samplefiles
from tests.support.packedsamples import packed
from tests.support.streamwriter import (
    be32,
    str8,
)


def path(name):
    return samplefiles.path(name) if name in samplefiles.NAMES else packed(name).path


@functools.cache
def facts(name):
    """(vmdesc, machine, [(idstr, version, body, description)]) of a stream that describes itself."""
    with qmigtool.open(path(name)) as stream:
        devices = [
            (
                d.name,
                d.version_id,
                bytes(stream.source.view(d.section.body_offset, d.section.body_length)),
                d.description,
            )
            for d in stream.devices
        ]
        return stream.vmdesc, stream.machine, devices


def cpu_body(*subsections):
    """The fields of a real vCPU, and other subsections than it had, without a word of description."""
    _, _, devices = facts("plain-7.2")
    body, description = next((body, d) for name, _, body, d in devices if name == "cpu")
    fields = body[: sum(field.total for field in description.fields)]
    return fields + b"".join(sub(*one) for one in subsections)


def sub(name, data, nested=b""):
    return b"\x05" + str8(name) + be32(1) + data + nested
