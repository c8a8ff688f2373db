"""Every edit as a method, what they change, and the output.

::

    with qmigtool.open("vm.mig") as stream:
        edits = qmigtool.Rewriter(stream)
        edits.set("cpu@0/env.mxcsr", 0x1F80)
        edits.drop_component("pkru")
        for change in edits.changes:
            print(change.where, change.old, change.new)
        edits.save("fixed.mig")

Edits apply in the order of the calls; each sees the results of those before it.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from qmigtool.errors import UsageError
from qmigtool.rewrite import (
    accelerators,
    areas,
    blocks,
    bodyfields,
    components,
    editoption,
    elsewhere,
    fields,
    framing,
    header,
    machines,
    structure,
)
from qmigtool.rewrite.changes import Change, told
from qmigtool.rewrite.declare import EDITS, OPTIONS, edit, whole, without_option
from qmigtool.rewrite.decoding import check_decoding
from qmigtool.rewrite.draft import Draft
from qmigtool.rewrite.editoption import Heading
from qmigtool.rewrite.output import splices_of
from qmigtool.rewrite.splice import write_stream
from qmigtool.rewrite.verify import verify
from qmigtool.util.files import replacing
from qmigtool.util.values import parse_number
from qmigtool.xsave import layout as find_layout
from qmigtool.xsave import parse_mask

if TYPE_CHECKING:
    from qmigtool.ram.model import Absent
    from qmigtool.rewrite.splice import Splice
    from qmigtool.stream.model import Stream
    from qmigtool.xsave import Layout, XsaveArea

__all__ = ["EDITS", "OPTIONS", "Rewriter"]


class Rewriter:
    """Edits of one stream. Raises the stream's first problem if it is not complete.

    ``lossy`` lets :meth:`to_accelerator` and :meth:`import_area` drop state that cannot be expressed; without it such
    state is a :class:`~qmigtool.errors.LiveStateError`. Edits whose purpose is to drop something
    (:meth:`drop_component`, :meth:`drop_block`) do not need it. Both kinds of loss are listed in :attr:`losses`.
    Any edit raises :class:`~qmigtool.errors.UsageError` for something that does not exist or does not fit.
    """

    def __init__(self, stream: Stream, *, lossy: bool = False) -> None:
        self.draft = Draft(stream)
        self.lossy = lossy

    # -- result ------------------------------------------------------------------------------------------------------

    @property
    def changes(self) -> list[Change]:
        """What was changed, in the order made."""
        return self.draft.changes

    @property
    def losses(self) -> list[str]:
        """Descriptions of the state that was dropped."""
        return [told(one) for one in self.draft.losses]

    @property
    def notes(self) -> list[str]:
        """Other facts that the user should know."""
        return [told(one) for one in self.draft.notes]

    def gather(self, absent: Absent = "error") -> None:
        """Join memory that was sent in several channels, as :meth:`ram` with ``plain`` does, unless a format is chosen.

        Raises :class:`~qmigtool.errors.UnsupportedError` if some of it is in none of the given channels, unless
        ``absent`` is ``"zero"``: QEMU cannot load a main channel alone. The command line calls this before it writes
        anything.
        """
        with self.draft.edit("ram"):
            elsewhere.gather(self.draft, absent)

    def splices(self) -> list[Splice]:
        """Return the spans that are replaced, in the order of the source; raises what a check of the result raises."""
        for check in self.draft.checks:
            check()
        check_decoding(self.draft)
        return splices_of(self.draft)

    def write(self, target: BinaryIO, splices: Sequence[Splice] | None = None) -> int:
        """Write the output to a binary file; return its size in bytes. ``splices`` as :meth:`splices` gave them."""
        return write_stream(self.draft.stream, target, self.splices() if splices is None else splices)

    def save(
        self, path: str | os.PathLike[str], *inputs: str | os.PathLike[str], splices: Sequence[Splice] | None = None
    ) -> int:
        """Write the output to a temporary file, check it, and rename it to the target; return its size.

        The check reads the output again and compares it with the edits. The target must not be the source or one of
        ``inputs``.
        """
        known: list[int | str] = [*self.draft.stream.descriptors, *(os.fspath(one) for one in inputs)]
        with replacing(path, *known) as file:
            size = self.write(file, splices)
            file.flush()
            self.verify(file)
        return size

    def verify(self, file: BinaryIO) -> None:
        """Read the output and compare it with the edits; raises :class:`~qmigtool.errors.StreamError`.

        Only a file that can be read again is checked, not a pipe. Memory is read only where edits changed it; otherwise
        it was copied, and if the device state can be reached from its end nothing else is read.
        """
        verify(self.draft, file)

    # -- values and structure ----------------------------------------------------------------------------------------

    @edit(
        Heading.FIELDS,
        ("PATH=VALUE",),
        "Set a field: cpu@0/env.mxcsr=0x1f80, cpu@0/env.dr=[0,...].",
        editoption.set_field,
    )
    def set(self, path: str, to: Any) -> None:
        """Set the field at ``name[@instance]/field/...``.

        A number, ``True``, text; a list for an array; a mapping of some of its fields for a struct; bytes, or
        ``"hex:..."``, for anything.
        """
        fields.set_field(self.draft, path, to)

    @edit(
        Heading.FIELDS,
        ("PATH", "TYPE[,after=FIELD][=VALUE]"),
        "Add a field: 0000:00:01.3/piix4_pm/acpi_pci_hotplug.acpi_index uint32.",
        editoption.add_field,
    )
    def add_field(self, path: str, type: str | None = None, value: Any = None, after: str | None = None) -> None:  # noqa: A002 - what it is called
        """Insert the field ``path`` into its device, struct or subsection, after the field ``after``.

        For fields that QEMU sends under a condition (``VMSTATE_..._TEST``). ``type`` is as in a vmdesc: ``uint32``,
        ``uint8[16]``, ``buffer:64``, or a struct that QEMU is known to send. Type and place default to those that QEMU
        is known to send; the value defaults to zero.
        """
        bodyfields.add_field(self.draft, path, type, value, after)

    @edit(Heading.FIELDS, ("PATH",), "Remove a field.")
    def drop_field(self, path: str) -> None:
        """Drop a field, its bytes and its description."""
        bodyfields.drop_field(self.draft, path)

    @edit(
        Heading.FIELDS,
        ("PARENT", "NAME[=HEX]"),
        "Add a subsection with these bytes, by default zeros.",
        editoption.add_subsection,
    )
    def add_subsection(
        self,
        path: str,
        name: str,
        values: Mapping[str, Any] | None = None,
        data: bytes | str | None = None,
        version: int | str | None = None,
    ) -> None:
        """Add the subsection ``name`` to the device, struct or subsection at ``path``.

        Its fields are zero except for ``values``. One that no schema has needs ``data``, its bytes (or hex digits).
        """
        structure.add_subsection(
            self.draft, path, name, values, _bytes(data), None if version is None else _number(version)
        )

    @edit(Heading.FIELDS, ("PATH",), "Remove a subsection: cpu@0/cpu/pkru.")
    def drop_subsection(self, path: str) -> None:
        """Drop the subsection at ``path``."""
        structure.drop_subsection(self.draft, path)

    @edit(Heading.FIELDS, ("PATH", "NAME"), "Rename a subsection.")
    def rename_subsection(self, path: str, to: str) -> None:
        """Rename the subsection at ``path``."""
        structure.rename_subsection(self.draft, path, to)

    @edit(Heading.SECTIONS, ("NAME[@N]", "VERSION[=HEX]"), "Add a section after the last one.", editoption.add_section)
    def add_section(
        self,
        name: str,
        version: int | str,
        instance_id: int | str = 0,
        values: Mapping[str, Any] | None = None,
        data: bytes | str | None = None,
        after: str | None = None,
    ) -> None:
        """Add a section of device state after ``after``, by default after the last one."""
        structure.add_section(self.draft, name, _number(instance_id), _number(version), _bytes(data), values, after)

    @edit(Heading.SECTIONS, ("NAME[@N]",), "Remove a section: kvmclock.")
    def drop_section(self, path: str) -> None:
        """Drop the section ``name[@instance]``."""
        structure.drop_section(self.draft, path)

    @edit(Heading.SECTIONS, ("NAME[@N]", "NAME[@N]"), "Rename a section, or its instance.", editoption.rename_section)
    def rename_section(self, path: str, to: str | None = None, instance_id: int | str | None = None) -> None:
        """Change the idstr of the section ``name[@instance]``, its instance_id, or both."""
        structure.rename_section(self.draft, path, to, None if instance_id is None else _number(instance_id))

    @edit(Heading.SECTIONS, ("PATH", "N"), "Set the version_id of a section or subsection.")
    def set_version(self, path: str, to: int | str) -> None:
        """Set the version_id of the section or subsection at ``path``; its bytes stay."""
        structure.set_version(self.draft, path, _number(to))

    # -- what precedes the state -------------------------------------------------------------------------------------

    @edit(Heading.FRAMING, ("NAME",), "Set the name of the machine type, without changing state.")
    def machine_type(self, name: str) -> None:
        """Change the machine type of the stream; the state stays."""
        header.set_machine_type(self.draft, name)

    @edit(Heading.FRAMING, ("NAME",), "Set a newer or older version of the machine type, and adapt the state.")
    def upgrade_machine(self, name: str) -> None:
        """Change the version of the machine type, and the state that depends on it."""
        machines.upgrade(self.draft, name)

    @edit(Heading.FRAMING, ("MACHINE",), "Add a configuration section.")
    def add_configuration(self, machine: str, page_size: int | str | None = None) -> None:
        """Add a configuration section with this machine type (``page_size`` in bytes: on Arm)."""
        framing.add_configuration(self.draft, machine, None if page_size is None else _number(page_size))

    @edit(Heading.FRAMING, (), "Remove the configuration section.")
    def drop_configuration(self) -> None:
        """Drop the configuration section."""
        framing.drop_configuration(self.draft)

    @edit(Heading.FRAMING, (), "Add a footer to every section.")
    def add_footers(self) -> None:
        """Add a footer to every section."""
        framing.set_footers(self.draft, True)

    @edit(Heading.FRAMING, (), "Remove the footers of all sections.")
    def drop_footers(self) -> None:
        """Drop the footers of all sections."""
        framing.set_footers(self.draft, False)

    @edit(Heading.FRAMING, ("NAME",), "Add a migration capability.")
    def add_capability(self, name: str) -> None:
        """Add a migration capability to the list."""
        header.add_capability(self.draft, name)

    @edit(Heading.FRAMING, ("NAME",), "Remove a migration capability.")
    def drop_capability(self, name: str) -> None:
        """Remove a migration capability from the list."""
        header.drop_capability(self.draft, name)

    @edit(Heading.FRAMING, ("NAME",), "Remove commands: SWITCHOVER_START.")
    def drop_command(self, name: str) -> None:
        """Drop every command of this name, for example ``SWITCHOVER_START``."""
        header.drop_command(self.draft, name)

    # -- memory ------------------------------------------------------------------------------------------------------

    @edit(Heading.MEMORY, ("NAME", "NAME"), "Rename a RAM block.")
    def rename_block(self, name: str, to: str) -> None:
        """Rename a RAM block, in the list and in every record."""
        blocks.rename_block(self.draft, name, to)

    @edit(Heading.MEMORY, ("NAME", "BYTES"), "Resize a RAM block: 0x80000, 512K, 1M.", editoption.resize_block)
    def resize_block(self, name: str, to: int | str) -> None:
        """Change the size of a RAM block, in bytes; pages beyond it are dropped."""
        blocks.resize_block(self.draft, name, _number(to))

    @edit(Heading.MEMORY, ("NAME",), "Remove a RAM block.")
    def drop_block(self, name: str) -> None:
        """Drop a RAM block and its pages."""
        blocks.drop_block(self.draft, name)

    @edit(Heading.MEMORY, ("plain|mapped-ram",), "Write memory as plain records, or as mapped-ram.")
    def ram(self, format: str, absent: Absent = "error") -> None:  # noqa: A002 - what it is called
        """Write memory as ``plain`` records or as ``mapped-ram``; join other channels.

        With ``absent`` set to ``"zero"``, pages that no channel holds become zero pages.
        """
        blocks.set_format(self.draft, format, absent)

    @edit(Heading.MEMORY, (), "Write pages of zeros as zero pages.")
    def squeeze_zero_pages(self) -> None:
        """Send every page that contains only zeros as a zero page, however it was sent."""
        blocks.squeeze_zero_pages(self.draft)

    @edit(Heading.MEMORY, ("NAME",), "Make every page of a RAM block a zero page.", flag="scrub-block")
    @edit(Heading.MEMORY, (), "Make every page a zero page.")
    def scrub_ram(self, *names: str) -> None:
        """Make every page of these blocks (default: of all) a zero page."""
        blocks.scrub_ram(self.draft, names)

    # -- extended state ----------------------------------------------------------------------------------------------

    @edit(Heading.EXTENDED, ("MASK",), "Remove components: amx,pkru.")
    def drop_component(self, mask: int | str) -> None:
        """Drop components from every vCPU, for example ``"amx,pkru"``; live state is listed in :attr:`losses`."""
        components.drop_components(self.draft, _mask(mask))

    @edit(Heading.EXTENDED, ("VCPU", "MASK"), "Set the XCR0 of a vCPU.")
    def set_xcr0(self, vcpu: int | str, mask: int | str) -> None:
        """Set XCR0 of a vCPU; raises :class:`~qmigtool.errors.UsageError` for a value that no CPU accepts."""
        components.set_xcr0(self.draft, _number(vcpu), _mask(mask))

    @edit(Heading.EXTENDED, ("xstate-bv",), "Declare live components in XSTATE_BV.")
    def repair(self, what: str) -> None:
        """Repair a known fault: ``"xstate-bv"`` declares live components in XSTATE_BV.

        Nothing else changes: for a stream saved by TCG, :attr:`notes` lists what is still in TCG's form.
        """
        if what != "xstate-bv":
            raise UsageError(f"no repair {what!r}", expected="xstate-bv")
        components.repair_xstate_bv(self.draft)
        if self.draft.tcg is not False:
            components.say_what_is_left(self.draft)

    @without_option
    def require_layout(self, layout: Layout | str) -> None:
        """Refuse an output with components that a CPU of this layout does not have."""
        target = find_layout(layout) if isinstance(layout, str) else layout
        self.draft.checks.append(lambda: components.check_components(self.draft, target))

    @whole("xsave-import")
    def import_area(
        self,
        vcpu: int,
        area: XsaveArea,
        *,
        lossy: bool | None = None,
        force: bool = False,
        hyperv_quirk: bool | None = None,
    ) -> None:
        """Set the state of a vCPU from an XSAVE area, in either format and any layout.

        State that no field of a stream can hold (PT, PASID, HDC, UINTR, HWP, LWP) raises
        :class:`~qmigtool.errors.LiveStateError`, or with ``lossy`` is dropped and listed in :attr:`losses`; so does an
        area that does not fit its layout, unless ``force``. ``hyperv_quirk`` treats CET_U, CET_S and PASID as live
        although XSTATE_BV does not declare them (default: if MSHV or WHPX saved the stream).
        """
        lossy = self.lossy if lossy is None else lossy
        areas.import_area(self.draft, _number(vcpu), area, lossy=lossy, force=force, hyperv_quirk=hyperv_quirk)

    # -- accelerators ------------------------------------------------------------------------------------------------

    @edit(Heading.EXTENDED, ("|".join(accelerators.TARGETS),), "Convert the state for an accelerator.")
    def to_accelerator(
        self, name: str, layout: Layout | str | None = None, xcr0: int | str | None = None, lossy: bool | None = None
    ) -> None:
        """Convert the state to the form that ``name`` loads, one of :data:`qmigtool.x86.traits.TARGETS`.

        ``layout`` (or ``xcr0``) gives the user components of the target: other components are dropped if they are idle.
        Each rule that is applied is among :attr:`changes`. State that the target cannot express raises
        :class:`~qmigtool.errors.LiveStateError`, or with ``lossy`` is dropped and listed in :attr:`losses`.
        """
        target = find_layout(layout) if isinstance(layout, str) else layout
        mask = target.user_mask if target is not None else None
        if xcr0 is not None:
            components.check_legal(_mask(xcr0))
            mask = _mask(xcr0) if mask is None else mask & _mask(xcr0)
        given = [] if target is None else [f"layout {target.name}"]
        given += [] if xcr0 is None else [f"XCR0 {_mask(xcr0):#x}"]
        mask_name = " with ".join(given)
        lossy = self.lossy if lossy is None else lossy
        accelerators.convert(self.draft, name, mask=mask, mask_name=mask_name, lossy=lossy)


def _bytes(data: bytes | str | None) -> bytes | None:
    if not isinstance(data, str):
        return data
    with contextlib.suppress(ValueError):
        return bytes.fromhex(data.removeprefix("hex:"))
    raise UsageError(f"{data[:40]!r} is not a string of hex digits")


def _number(value: int | str) -> int:
    try:
        found = parse_number(value) if isinstance(value, str) else operator.index(value)
    except TypeError:
        found = None
    if found is None:
        raise UsageError(f"{value!r:.60} is not a number")
    return found


def _mask(value: int | str) -> int:
    return parse_mask(value if isinstance(value, str) else f"{value:#x}")
