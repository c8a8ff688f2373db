"""State of a vCPU that Hyper-V's hypervisor under Linux (MSHV) accepts, as files: export from a stream, and import.

A bundle is a folder. ``vcpu-N.xsave`` is the compacted area of vCPU N, padded with zeros to the whole pages that
MSHV_SET_VP_STATE expects. ``bundle.json`` describes each file: the layout and mask of its areas, XCR0 (the register
HV_X64_REGISTER_XFEM), the MSRs that belong to them, each with its Hyper-V register, and the order in which QEMU 11.1
writes all that. A bundle has no general, segment, control or debug registers, no local APIC, timers or pages of the
synthetic interrupt controller, no pending events and no activity state.

The order is that of :mod:`qmigtool.x86.mshv`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qmigtool.devices.schema.cpusection import XSAVE_FIELDS
from qmigtool.errors import LiveStateError, QmigError, StreamError, UnsupportedError, UsageError, XsaveError
from qmigtool.rewrite.components import vcpu_section
from qmigtool.util.documents import load_json
from qmigtool.util.files import new_folder, open_input
from qmigtool.util.values import decimal, word
from qmigtool.x86.mshv import MSHV_MSRS, TSC, VP_STATE_XSAVE, XFEM, MshvMsr, Only
from qmigtool.x86.traits import MSHV
from qmigtool.xsave import Layout, XsaveArea, mask_names, mshv_buffer_size
from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import CET_MASK, LEGACY_MASK, PAGE_SIZE, check_xcr0

if TYPE_CHECKING:
    from qmigtool.rewrite import Rewriter
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu

__all__ = ["export_bundle", "import_bundle"]

SCHEMA = 1
MANIFEST = "bundle.json"
MAX_MANIFEST = 16 << 20  # a vCPU has 8 KiB
MAX_AREA = 1 << 20
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


# -- export ----------------------------------------------------------------------------------------------------------


def export_bundle(
    stream: Stream,
    folder: str | os.PathLike[str],
    layout: Layout,
    mask: int | None = None,
    *,
    buffer_size: int | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Write the bundle of all vCPUs to a new folder; return the contents of ``bundle.json``.

    With ``replace``, the folder may be one that has a bundle and nothing else.

    ``layout`` is the partition's CPUID leaf 0xD, ``mask`` its XSAVE_STATES (default: what any vCPU has enabled in XCR0
    and MSHV can hold), ``buffer_size`` the bytes of its buffer, MAX_XSAVE_DATA_SIZE in whole pages (default: as many
    pages as an area needs). Components of a vCPU's XCR0 that ``mask`` does not have are left out and listed in
    ``notes``. Raises :class:`~qmigtool.errors.LiveStateError` for live state that ``mask`` does not have or that is
    larger than the buffer, :class:`~qmigtool.errors.OutputError` if the folder exists already and is not empty, and
    :class:`~qmigtool.errors.UsageError` for a buffer that is not a number of whole pages.
    """
    if buffer_size is not None and (not buffer_size or buffer_size % PAGE_SIZE):
        raise UsageError(
            f"a buffer of {buffer_size} bytes", expected=f"whole pages of {PAGE_SIZE} bytes, as MSHV requires"
        )
    stream.prove()
    if not stream.vcpus:
        raise UnsupportedError("XSAVE state of a machine that is not x86", "no x86 vCPU in this stream")
    if mask is None:
        mask = LEGACY_MASK
        for vcpu in stream.vcpus:
            mask |= vcpu.xcr0 & MSHV.allowed() & layout.user_mask
    foreign = mask & ~(MSHV_MASK | LEGACY_MASK)
    if foreign:
        raise LiveStateError(
            f"MSHV has no place for {' '.join(mask_names(foreign))}", components=mask_names(foreign), section="MSHV"
        )
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": stream.machine,
        "accelerator": stream.accelerator.name,
        "layout": {"name": layout.name, "vendor": layout.vendor, "leaf_0xd": _leaf(layout)},
        "mask": f"{mask:#x}",
        "order": [
            {"what": "xcr0", "register": f"{XFEM:#x}"},
            {"what": "msrs"},
            {"what": "file", "vp_state": VP_STATE_XSAVE},
        ],
        "notes": [],
        "vcpus": [],
    }
    notes: list[str] = document["notes"]
    areas: dict[str, bytes] = {}
    for vcpu in stream.vcpus:
        # Raises LiveStateError, with names, for live state that the mask does not have.
        area = vcpu.xsave.compact(layout, mask=mask)
        name = _file_name(vcpu.index)
        needed = mshv_buffer_size(len(area.data))
        buffer = needed if buffer_size is None else buffer_size
        if needed > buffer:
            raise LiveStateError(
                f"the area of vCPU {vcpu.index} has {len(area.data)} bytes, the buffer {buffer}: a mask with fewer "
                "components makes it smaller",
                section="MSHV",
            )
        notes += _said(vcpu, mask, buffer)
        areas[name] = area.data.ljust(buffer, b"\0")
        document["vcpus"].append(
            {
                "vcpu": vcpu.index,
                "file": name,
                "size": len(area.data),
                "buffer": buffer,
                "xstate_bv": f"{area.xstate_bv:#x}",
                "xcomp_bv": f"{area.xcomp_bv:#x}",
                "xcr0": f"{vcpu.xcr0 & mask:#x}",
                "xcr0_beside": f"{vcpu.xcr0 & ~mask:#x}",
                "beside": {mask_names(1 << bit)[0]: area.supervisor[bit].hex() for bit in area.supervisor},
                "msrs": [_msr_json(msr, value) for msr, value in _msrs(stream, vcpu)],
            }
        )
    hint = ", or one with nothing but a bundle" if replace else ", or --replace for one of `mshv export`"
    with new_folder(folder, _is_bundle if replace else None, hint=hint) as made:
        for name, data in areas.items():
            Path(made, name).write_bytes(data)
        Path(made, MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


def _said(vcpu: VCpu, mask: int, buffer: int) -> Iterator[str]:
    """Yield the notes on a vCPU in the bundle."""
    if behind := vcpu.xcr0 & ~mask:
        yield (
            f"vCPU {vcpu.index}: {' '.join(mask_names(behind))} of XCR0 {vcpu.xcr0:#x} is left out: the mask "
            f"{mask:#x} does not have it, and a guest that uses it faults"
        )
    for msr in MSHV_MSRS:
        value = vcpu.device.number(msr.path)
        if msr.only is Only.FEATURE and value:
            yield f"vCPU {vcpu.index}: {msr.name} is {value:#x}, which only {msr.only} accepts"
    if buffer > PAGE_SIZE:
        yield f"vCPU {vcpu.index}: a buffer of {buffer} bytes, but QEMU 11.1 itself passes one page of {PAGE_SIZE}"


def _msr_json(msr: MshvMsr, value: int) -> dict[str, str]:
    only = {} if msr.only is None else {"only": msr.only.value}
    return {
        "index": f"{msr.number:#x}",
        "name": msr.name,
        "register": f"{msr.register:#x}",
        "value": f"{value:#x}",
        **only,
    }


def _is_bundle(folder: Path) -> bool:
    """Return whether a folder has a bundle and nothing else."""
    names = {one.name for one in folder.iterdir() if one.is_file() and not one.is_symlink()}
    try:
        vcpus = _load(folder / MANIFEST)["vcpus"]
        expected = {MANIFEST, *(one["file"] for one in vcpus)}
    except (OSError, QmigError, KeyError, TypeError):
        return False
    return names == expected == {one.name for one in folder.iterdir()}


def _file_name(index: int) -> str:
    return f"vcpu-{index}.xsave"


def _leaf(layout: Layout) -> dict[str, list[str]]:
    return {str(sub): [f"{register:#x}" for register in row] for sub, row in layout.leaf.items()}


def _msrs(stream: Stream, vcpu: VCpu) -> Iterator[tuple[MshvMsr, int]]:
    for msr in MSHV_MSRS:
        value = vcpu.device.number(msr.path)
        if msr.only is Only.VCPU_0 and vcpu.index:
            continue
        if value is None and "/" not in msr.path:
            continue  # this version does not have the field: not known to be 0
        if msr.number == TSC:
            vcpu.check_saver("where the TSC is")
        if msr.number == TSC and vcpu.tcg:
            value = stream.device("timer").number("cpu_ticks_offset")  # TCG's TSC is the ticks clock
        yield msr, (value or 0) % (1 << 64)


# -- import ----------------------------------------------------------------------------------------------------------


def import_bundle(rewriter: Rewriter, folder: str | os.PathLike[str], *, hyperv_quirk: bool = True) -> None:
    """Set the state of the vCPUs of a stream from a bundle: areas, XCR0 and MSRs.

    MSHV leaves CET_U, CET_S and PASID undeclared in the areas of a bundle: ``hyperv_quirk`` treats them as live.
    Where the bundle lists the MSRs of CET, they win over the area's bytes, and a difference is noted.

    Only what differs changes: importing an unchanged export gives the identical stream. Raises
    :class:`~qmigtool.errors.StreamError` for a broken bundle, :class:`~qmigtool.errors.UsageError` for a folder without
    one, :class:`~qmigtool.errors.LiveStateError` for an XCR0 with components that its layout does not have (dropped and
    recorded as lost if the rewriter is lossy), and what :meth:`~qmigtool.rewrite.Rewriter.import_area` raises.
    """
    manifest = Path(folder, MANIFEST)
    if not manifest.exists():
        raise UsageError(f"{str(folder)!r} is not a folder of `mshv export`", expected=f"a folder with {MANIFEST}")
    with _about(manifest):
        document = _load(manifest)
        layout, entries = _contents(document)
    stream = rewriter.draft.stream
    made_of = (document.get("machine"), document.get("accelerator"), len(entries))
    this = (stream.machine, stream.accelerator.name, len(rewriter.draft.vcpus))
    if made_of != this:
        rewriter.draft.note(f"the bundle was exported from {_words(*made_of)}; this stream is from {_words(*this)}")
    for index, size, xcr0, msrs in entries:
        # The name follows from the number: names in a file are never paths.
        path = Path(folder, _file_name(index))
        with _about(path):
            data = _read(path, MAX_AREA)
            if not 0 < size <= len(data) <= MAX_AREA or any(data[size:]):
                raise StreamError(
                    f"the area of vCPU {index} has {len(data)} bytes", section=path.name, expected=f"{size}, padded"
                )
        with _about(manifest):
            _set_xcr0(rewriter, index, xcr0, layout)
        with _about(path, XsaveError):
            area = XsaveArea(data[:size], layout)
            rewriter.import_area(index, area, hyperv_quirk=hyperv_quirk)
            in_area = list(_cet_of(area.with_hyperv_quirk() if hyperv_quirk else area))
        for number, value in in_area:
            if msrs.get(number, value) != value:
                rewriter.draft.note(
                    f"vCPU {index}: MSR {number:#x} is {value:#x} in the area and {msrs[number]:#x} in the list, "
                    "which wins"
                )
        for msr in MSHV_MSRS:
            if msr.number in msrs:
                _set_msr(rewriter, index, msr, msrs[msr.number], manifest)


@contextmanager
def _about(path: Path, kind: type[QmigError] = QmigError) -> Iterator[None]:
    """Name a file of the bundle in errors of this kind: it is at fault, not the stream."""
    try:
        yield
    except kind as error:
        error.file = error.file or str(path)
        raise


def _contents(document: dict[str, Any]) -> tuple[Layout, list[tuple[int, int, int, dict[int, int]]]]:
    """Return the layout, and (index, size of the area, XCR0, MSRs) of each vCPU."""
    try:
        layout = Layout.from_leaf_0xd(
            str(document["layout"]["name"]),
            _once(
                "subleaf {} of leaf 0xD",
                (
                    (_decimal(sub), tuple(_hex(register, 32) for register in row))
                    for sub, row in document["layout"]["leaf_0xd"].items()
                ),
            ),
            vendor=str(document["layout"].get("vendor", "")),
        )
        listed = [
            (
                _plain(entry["vcpu"]),
                _plain(entry["size"]),
                _hex(entry["xcr0"]) | _hex(entry.get("xcr0_beside", "0x0")),
                [(_hex(msr["index"], 32), _hex(msr["value"])) for msr in entry["msrs"]],
            )
            for entry in document["vcpus"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise StreamError(f"not an MSHV bundle: {error!r}", section=MANIFEST) from None
    unknown = {number for *_, msrs in listed for number, _ in msrs} - {msr.number for msr in MSHV_MSRS}
    if unknown or not listed:
        what = f"MSRs {' '.join(f'{number:#x}' for number in sorted(unknown)[:8])}" if unknown else "no vCPUs"
        raise StreamError(f"the bundle has {what}", section=MANIFEST, expected="a bundle as export writes it")
    _once("vCPU {}", ((index, None) for index, *_ in listed))
    return layout, [
        (index, size, xcr0, _once(f"MSR {{:#x}} of vCPU {index}", msrs)) for index, size, xcr0, msrs in listed
    ]


def _once(what: str, pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, _Value]:
    """Return pairs as a dict. Raises StreamError, which names the key by ``what``, for a key that is there twice."""
    made: dict[_Key, _Value] = {}
    for key, value in pairs:
        if key in made:
            raise StreamError(f"{what.format(key)[:80]} is listed twice", section=MANIFEST, expected="once")
        made[key] = value
    return made


def _set_xcr0(rewriter: Rewriter, index: int, xcr0: int, layout: Layout) -> None:
    """Set XCR0 of a vCPU from a bundle: what the bundle's CPU has, and what the vCPU has already."""
    vcpu = rewriter.draft.vcpu(vcpu_section(rewriter.draft, index))
    foreign = xcr0 & ~layout.user_mask & ~vcpu.xcr0
    if foreign:
        what = f"components in XCR0 that {layout.name} does not have: {' '.join(mask_names(foreign))}"
        if not rewriter.lossy:
            raise LiveStateError(
                f"the bundle gives vCPU {index} {what} (--lossy drops them)",
                components=mask_names(foreign),
                section=MANIFEST,
            )
        rewriter.draft.lose(f"the bundle has {what}", device=vcpu.device.label)
        xcr0 &= ~foreign
    if xcr0 == vcpu.xcr0:
        return
    if reasons := check_xcr0(xcr0):
        raise StreamError(f"{xcr0:#x} is not a valid XCR0: {reasons[0]}", section=MANIFEST)
    rewriter.set_xcr0(index, xcr0)


def _cet_of(area: XsaveArea) -> Iterator[tuple[int, int]]:
    """Yield the MSRs (number, value) that the CET components of an area hold."""
    places = {"/".join(field.path): field for field in XSAVE_FIELDS if CET_MASK >> field.component & 1}
    for msr in MSHV_MSRS:
        field = places.get(msr.path)
        if field is not None and area.xstate_bv >> field.component & 1:
            value = area.component(field.component)[field.offset : field.offset + 8]
            yield msr.number, int.from_bytes(value, "little")


def _read(path: Path, most: int) -> bytes:
    """Read a regular file, up to one byte more than its limit."""
    with os.fdopen(open_input(path), "rb") as file:
        return file.read(most + 1)


def _hex(text: Any, width: int = 64) -> int:
    """Return a number of up to ``width`` bits as export writes it. Raises ValueError for any other form."""
    found = word(text, width)
    if found is None:
        raise ValueError(f"{str(text)[:40]!r} is not a hexadecimal number (0x...) of {width} bits")
    return found


def _plain(number: Any) -> int:
    """Return a JSON number. Raises ValueError for anything else."""
    if type(number) is int:
        return number
    raise ValueError(f"{str(number)[:40]!r} is not a number")


def _decimal(text: str) -> int:
    """Return the number of a subleaf, the key of an object. Raises ValueError for anything else."""
    found = decimal(text, 2)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a subleaf")
    return found


def _refuse(token: str) -> Any:
    raise ValueError(f"a number {token[:32]!r}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of the manifest, whose keys are unique: the last would win without a message."""
    return _once("the key {!r}", pairs)


def _words(machine: object, accelerator: object, vcpus: int) -> str:
    return f"{machine} under {accelerator} with {vcpus} vCPU{'s' if vcpus != 1 else ''}"


def _load(path: Path) -> dict[str, Any]:
    raw = _read(path, MAX_MANIFEST)
    try:
        text = raw.decode() if len(raw) <= MAX_MANIFEST else ""
        document = load_json(
            text, section=path.name, parse_float=_refuse, parse_constant=_refuse, object_pairs_hook=_object
        )
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise StreamError("not an MSHV bundle", section=str(path.name), expected=f"JSON with schema {SCHEMA}")
    return document


def _set_msr(rewriter: Rewriter, index: int, msr: MshvMsr, value: int, manifest: Path) -> None:
    """Write an MSR of the manifest into its field; add the subsection that the field needs."""
    draft = rewriter.draft
    if msr.number == TSC:
        draft.vcpu(draft.section(f"cpu@{index}")).check_saver("where the TSC is")
    if msr.number == TSC and draft.tcg:
        path = "timer/cpu_ticks_offset"
        if index == 0:
            rewriter.set(path, value - (1 << 64) if value >> 63 else value)
        return
    section = draft.section(f"cpu@{index}")
    if section.device.get(msr.path) is None:
        if not value:
            return
        inside, parent = _subsections(msr.path), ""
        for name in inside:
            here = f"{parent}/{name}" if parent else name
            if draft.section(f"cpu@{index}").device.get(here) is None:
                rewriter.add_subsection("/".join(filter(None, (f"cpu@{index}", parent))), name)
            parent = here
    with _about(manifest):  # the value does not fit the field
        rewriter.set(f"cpu@{index}/{msr.path}", value)


def _subsections(path: str) -> list[str]:
    """Return the subsections on the way to a field: names that start with ``cpu/``."""
    parts = path.split("/")[:-1]
    if not parts or parts[0] != "cpu":
        raise UsageError(f"no field {path!r} in this stream")
    return ["/".join(parts[i : i + 2]) for i in range(0, len(parts), 2)]
