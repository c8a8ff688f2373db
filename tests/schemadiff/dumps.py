"""Writes -dump-vmstate JSON, and changes it: the facts of QEMU's ``dump_vmstate_vmsd`` written down a second time."""

import copy
import json
import lzma
from typing import Any

from tests.support import paths

Json = dict[str, Any]


def field(name: str, size: int = 4, **more: Any) -> Json:
    """A field; ``num``, ``version_id``, ``field_exists`` and ``Description`` as the dump has them."""
    return {"field": name, "version_id": 0, "field_exists": False, **more, "size": size}


def description(name: str, *fields: Json, version: int = 3, minimum: int = 1, subs: tuple[Json, ...] = ()) -> Json:
    out: Json = {"name": name, "version_id": version, "minimum_version_id": minimum}
    if fields:
        out["Fields"] = list(fields)
    if subs:
        out["Subsections"] = list(subs)
    return out


def device(name: str, body: Json) -> Json:
    ids = {key: body[key] for key in ("version_id", "minimum_version_id")}
    return {name: {"Name": name, **ids, "Description": body}}


def nic() -> Json:
    """A device with one of everything."""
    inner = description("NICState", field("ring", 8, num=4), field("irq", 4), version=2)
    sub = description("nic/late", field("extra", 4), version=1)
    body = description(
        "nic",
        field("ctrl", 4),
        field("status", 2),
        field("state", 64, Description=inner),
        field("mac", 1, num=6),
        field("phy", 2, num=32),
        subs=(sub,),
    )
    return device("nic", body)


def dump(*devices: Json, machine: str = "pc-1") -> Json:
    out: Json = {"vmschkmachine": {"Name": machine}}
    for one in devices:
        out |= one
    return out


def text(document: Json) -> bytes:
    return json.dumps(document, indent=2).encode()


def changed(change: Any) -> Json:
    """A dump with the nic, changed by a function that is given (entry of the nic, its description, its fields)."""
    document = copy.deepcopy(dump(nic()))
    entry = document["nic"]
    change(entry, entry["Description"], entry["Description"]["Fields"])
    return document


DATA = paths.DATA / "schemadiff"


def raw(name):
    return lzma.decompress((DATA / f"{name}.json.xz").read_bytes())
