"""The XML of a libvirt domain, as a save image has it: read with bounds, and without entities (libvirt: formatdomain).

It comes from the file: declarations of entities are refused, none is expanded, and depth and size are limited.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from qmigtool.errors import LimitError, StreamError

__all__ = ["LEVELS", "Dimm", "Element", "check_domain", "cpu_topology", "domain_facts", "memory_devices", "parse_xml"]

SECTION = "libvirt XML"
MAX_XML = 16 << 20
MAX_TEXT = 64 << 10  # characters of an element that are kept: metadata may have more
MAX_DEPTH, MAX_ELEMENTS = 64, 100_000
UNITS = {"b": 1, "bytes": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30,
         "t": 1 << 40, "tib": 1 << 40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}  # fmt: skip
LEVELS = ("sockets", "dies", "clusters", "cores", "threads")
"""What ``cpu/topology`` counts, each in one of the level before it."""


@dataclass(slots=True)
class Element:
    """An element: its ``name``, attributes, elements inside it, and the text before the first of them."""

    name: str
    attributes: dict[str, str]
    inner: list[Element] = field(default_factory=list)
    text: str = ""

    def find(self, path: str) -> Element | None:
        """Return the first element at ``a/b``, or None."""
        found: Element | None = self
        for name in path.split("/"):
            found = None if found is None else next((one for one in found.inner if one.name == name), None)
        return found

    def text_at(self, path: str) -> str | None:
        """Return the text of the first element at ``a/b``, or None."""
        found = self.find(path)
        return None if found is None else found.text.strip()


def parse_xml(text: bytes) -> Element:
    """Return the root element; raises :class:`~qmigtool.errors.StreamError` for what is not well-formed."""
    if len(text) > MAX_XML:
        raise LimitError(f"{len(text)} bytes of XML", section=SECTION, expected=f"at most {MAX_XML}")
    root = Element("", {})
    open_: list[Element] = [root]
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(open_) > MAX_DEPTH or count > MAX_ELEMENTS:
            what = f"{count} elements, {len(open_)} deep"
            raise LimitError(what, section=SECTION, expected=f"at most {MAX_ELEMENTS}, {MAX_DEPTH} deep")
        element = Element(name, attributes)
        open_[-1].inner.append(element)
        open_.append(element)

    def end(_: str) -> None:
        open_.pop()

    def data(piece: str) -> None:
        if not open_[-1].inner and len(open_[-1].text) < MAX_TEXT:
            open_[-1].text += piece

    def refuse(*_: Any) -> None:
        raise StreamError("a document type or an entity is declared", section=SECTION, expected="elements alone")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse  # type: ignore[assignment]
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise StreamError(f"the XML is not well-formed: {error}", section=SECTION) from None
    return root.inner[0]


def check_domain(text: bytes) -> Element:
    """Return the root of a domain's XML; raises :class:`~qmigtool.errors.StreamError` for anything else."""
    if b"\0" in text:
        raise StreamError("the XML has a byte of 0", offset=text.index(b"\0"), section=SECTION)
    root = parse_xml(text)
    if root.name != "domain":
        raise StreamError(f"the root of the XML is {root.name!r}", section=SECTION, expected="domain")
    return root


def domain_facts(text: bytes) -> dict[str, Any]:
    """Return what the XML says of the machine, what it does not say as None: sizes in bytes, devices by their kind."""
    root = check_domain(text)
    cpu, machine, vcpu = root.find("cpu"), root.find("os/type"), root.find("vcpu")
    devices = root.find("devices")
    model = root.text_at("cpu/model")
    return {
        "name": root.text_at("name"),
        "uuid": root.text_at("uuid"),
        "type": root.attributes.get("type"),
        "machine": None if machine is None else machine.attributes.get("machine"),
        "arch": None if machine is None else machine.attributes.get("arch"),
        "cpu_mode": None if cpu is None else cpu.attributes.get("mode"),
        "cpu_model": model,
        "vcpus": None if vcpu is None else _number(vcpu.attributes.get("current", vcpu.text.strip())),
        "maximum_vcpus": None if vcpu is None else _number(vcpu.text.strip()),
        "memory": _size(root.find("memory")),
        "devices": [] if devices is None else [_device(one) for one in devices.inner if one.name != "emulator"],
    }


def cpu_topology(root: Element) -> tuple[int, ...] | None:
    """Return the numbers of :data:`LEVELS`; None if the XML has none, or one that is not a positive number."""
    topology = root.find("cpu/topology")
    if topology is None:
        return None
    counts = [_number(topology.attributes.get(level, "1")) for level in LEVELS]
    known = tuple(count for count in counts if count)
    return known if len(known) == len(LEVELS) else None


@dataclass(frozen=True, slots=True)
class Dimm:
    """A ``memory`` device: its ``model``, size in bytes, slot and guest-physical address, None if not given."""

    model: str
    size: int | None
    slot: int | None
    base: int | None


def memory_devices(root: Element) -> tuple[Dimm, ...]:
    """Return the memory devices of a domain, in their order."""
    devices = root.find("devices")
    found = []
    for one in () if devices is None else devices.inner:
        if one.name == "memory":
            place = one.find("address")
            at = {} if place is None else place.attributes
            base = _hexadecimal(at.get("base", ""))
            model = one.attributes.get("model", "")
            found.append(Dimm(model, _size(one.find("target/size")), _number(at.get("slot", "")), base))
    return tuple(found)


def _hexadecimal(text: str) -> int | None:
    digits = text.lower().removeprefix("0x")
    return int(digits, 16) if 0 < len(digits) <= 16 and all(one in "0123456789abcdef" for one in digits) else None


def _device(element: Element) -> str:
    """Return a device in a few words: ``disk virtio``, ``interface network virtio``."""
    words = [element.name]
    for value in (
        element.attributes.get("type"),
        element.attributes.get("model"),
        *(
            one.attributes.get(key)
            for one in element.inner
            for key in ("bus", "type")
            if one.name in ("target", "model")
        ),
    ):
        if value and value not in words:
            words.append(value)
    return " ".join(words)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _size(element: Element | None) -> int | None:
    if element is None:
        return None
    number, unit = _number(element.text.strip()), UNITS.get(element.attributes.get("unit", "KiB").lower())
    return None if number is None or unit is None else number * unit
