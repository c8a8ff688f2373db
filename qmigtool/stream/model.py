"""An opened migration stream: the public class :class:`Stream`. Its facts are those of :mod:`qmigtool.stream.facts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.devices.device import find
from qmigtool.errors import ClosedError, PathError, QmigError, UsageError
from qmigtool.stream.facts import Facts
from qmigtool.stream.info import counts, info_document, lacking_memory
from qmigtool.util.jsontext import SCHEMA

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from qmigtool.devices.device import Device
    from qmigtool.parsers.vmstate import Field

__all__ = ["Stream"]


class Stream(Facts):
    """An opened stream; use :func:`qmigtool.open`, and close it or use it as a context manager.

    ``stream["cpu@0/env.xcr0"]`` is a device, a subsection or a field, by the path that ``qmigtool show`` accepts.

    ``problems`` are the errors found so far, in order; reading :attr:`sections` may add some, because
    only that reads RAM. ``container`` describes the container (:class:`~qmigtool.stream.unwrapped.Container`).
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream {self.source.name!r}, {self.machine or 'no machine type'}, read {self.strategy}>"

    def _repr_html_(self) -> str:
        """Show the stream in a notebook; RAM's headers are not read for that."""
        from qmigtool.util.html import html_table

        accelerator = self.accelerator
        devices, vcpus = counts(self)
        how = "given" if accelerator.given else f"inferred: {', '.join(accelerator.evidence) or 'no evidence'}"
        container = self.container
        lines = [
            ("container", container.name + ("" if container.compression == "none" else f", {container.compression}")),
            ("machine", self.machine or "not in the stream"),
            ("accelerator", f"{accelerator.name} ({how})"),
            ("vCPUs", "unknown" if vcpus is None else vcpus),
            ("devices", "unknown" if devices is None else devices),
            ("RAM", ", ".join(f"{one.idstr} {one.used_length} bytes" for one in self.ram_blocks)),
            ("vmdesc", self.vmdesc is not None),
            ("proved", self.proved),
        ]
        return html_table(self.source.name, ("", ""), lines, [f"problem: {one}" for one in self.problems])

    def close(self) -> None:
        """Close the file and the extra channels.

        After that, every use of the stream and of objects that read from it (devices, fields, vCPUs, memory) raises
        :class:`~qmigtool.errors.ClosedError`. :attr:`problems` remain, and so do values that were read: numbers, XSAVE
        areas, tables.
        """
        self._inputs.close()
        self.__class__ = _Closed

    def __getitem__(self, path: str) -> Device | Field:
        """Return what is at ``name[@instance][/field/...]``: a device, or one of its subsections and fields.

        Raises :class:`~qmigtool.errors.PathError`, which is a :class:`KeyError` too, if the stream has no such device
        or field, and what :attr:`Device.fields <qmigtool.devices.device.Device.fields>` raises.
        """
        if not isinstance(path, str):
            raise TypeError(f"a path is a str, not {type(path).__name__}")
        try:
            device, rest = find(self.devices, path)
            return device.field(rest) if rest else device
        except UsageError as error:
            raise PathError(error.message, expected=error.expected) from None

    def __contains__(self, path: object) -> bool:
        """Whether the stream has a device or a field at a path; False for what cannot be decoded."""
        if not isinstance(path, str):
            return False
        try:
            self[path]
        except ClosedError:
            raise
        except QmigError:
            return False
        return True

    def info(self) -> dict[str, Any]:
        """Return the document that ``qmigtool info --json`` prints; reads all of RAM's headers."""
        self.prove()
        return {"schema": SCHEMA, **info_document(self, lacking_memory(self))}


class _Closed(Stream):
    """The reading of a closed stream: every access raises an error."""

    _STILL = ("close", "problems", "error", "_repr_html_")

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name in _Closed._STILL:
            return super().__getattribute__(name)
        raise ClosedError("the stream is closed")

    def __enter__(self) -> Self:
        raise ClosedError("the stream is closed")

    def __repr__(self) -> str:
        return "<Stream, closed>"

    def close(self) -> None:
        """Do nothing: it is closed."""

    def _repr_html_(self) -> str:
        from qmigtool.util.html import html_text

        return html_text(repr(self))
