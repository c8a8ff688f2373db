"""Every error that qmigtool raises on purpose.

::

    QmigError                 the root: catch this one
    +-- UsageError            the caller asked for something that does not exist        exit code 2
    |   +-- PathError         a path names no device or field; also a KeyError          exit code 2
    |   +-- SnapshotsError    an image holds several machines, and none is selected     exit code 2
    |   +-- MigrationsError   a capture has several migrations, and none is selected    exit code 2
    |   +-- OutputError       an output is an input, or its reader has closed it       exit code 2
    +-- ClosedError           a stream, or an object read from it, is used when closed  exit code 2
    +-- StreamError           the bytes do not follow the format                        exit code 3
    |   +-- TruncatedError    the input ends in the middle of something
    |   +-- GapError          a capture lacks a part of the stream, and continues behind it
    |   +-- LimitError        a number in the file is larger than any valid file needs
    +-- UnsupportedError      legal, but not supported; names the feature               exit code 63
    |   +-- BudgetError       more work than allowed; names the option to allow it      exit code 63
    |   +-- UndecidedError    neither the input nor the caller decides it
    +-- XsaveError            an XSAVE area or a layout is invalid                      exit code 3
        +-- LiveStateError    a conversion would lose live state; names the components  exit code 1

Each carries its place in fields (``offset``, ``section``, ``expected``), and can be pickled, because worker processes
raise them too. Any other exception that reaches a user is a defect of qmigtool.
"""

from __future__ import annotations

from typing import Any


class QmigError(Exception):
    """An error with its place in the stream, its section, and the value expected there.

    ``offset`` is an absolute byte offset in the stream (or in the XSAVE area, for an :class:`XsaveError`), ``section``
    the ``idstr`` or another name of the place, ``expected`` describes the expected value.
    """

    exit_code = 3
    file: str | None = None
    """The input that the error is about, where there are several; set by the code that opens it."""

    def __init__(
        self, message: str, *, offset: int | None = None, section: str | None = None, expected: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.section = section
        self.expected = expected

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())

    def __str__(self) -> str:
        place = []
        if self.offset is not None:
            place.append(f"at offset {self.offset:#x}")
        if self.section is not None:
            place.append(f"in {self.section}")
        where = " ".join(place)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} (expected {self.expected})" if self.expected else text

    def same(self, other: QmigError) -> bool:
        """Return whether both are the same error at the same place."""
        return type(self) is type(other) and self.as_dict() == other.as_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the ``error`` object of ``--json``."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "offset": self.offset,
            "section": self.section,
            "expected": self.expected,
        }


def _rebuild(cls: type[QmigError], state: dict[str, Any]) -> QmigError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class UsageError(QmigError):
    """The caller named something that does not exist: a field path, a vCPU, a layout, a mask."""

    exit_code = 2


class PathError(UsageError, KeyError):
    """A path names no device or field of a stream; also a :class:`KeyError`, as ``stream[path]`` raises."""


class SnapshotsError(UsageError):
    """An image has several snapshots of a running machine, and none was selected; ``snapshots`` lists all snapshots.

    Each is a dict of ``name``, ``id`` and ``vm_state_size``, in bytes: 0 for a snapshot of disks only.
    """

    def __init__(self, message: str, *, snapshots: tuple[dict[str, Any], ...] = (), **place: Any) -> None:
        super().__init__(message, **place)
        self.snapshots = snapshots

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with the snapshots."""
        return {**super().as_dict(), "snapshots": list(self.snapshots)}


class MigrationsError(UsageError):
    """A capture has several migrations, and none was selected; ``migrations`` lists them.

    Each is a dict of ``migration`` (its number), ``name`` of the main channel, ``bytes`` and ``channels`` in all.
    """

    def __init__(self, message: str, *, migrations: tuple[dict[str, Any], ...] = (), **place: Any) -> None:
        super().__init__(message, **place)
        self.migrations = migrations

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with the migrations."""
        return {**super().as_dict(), "migrations": list(self.migrations)}


class OutputError(UsageError):
    """The output cannot be written: it is an input, or its reader has closed it."""


class ClosedError(QmigError):
    """The stream is closed: its bytes cannot be read any more."""

    exit_code = 2


class StreamError(QmigError):
    """The bytes do not follow the format."""


class TruncatedError(StreamError):
    """The input ends in the middle of something; ``offset`` is where it ends."""


class GapError(StreamError):
    """The input lacks ``length`` bytes at ``offset``: a hole in a capture, behind which it continues."""

    def __init__(self, length: int, name: str = "", **place: Any) -> None:
        super().__init__(f"the capture lacks {length} bytes" + (f" of {name}" if name else ""), **place)
        self.length = length

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with the length."""
        return {**super().as_dict(), "length": self.length}


class LimitError(StreamError):
    """A count or a length in the file is larger than any valid file needs; it is not followed."""


class UnsupportedError(QmigError):
    """The stream is legal here, but this version of qmigtool cannot read it; ``feature`` names it."""

    exit_code = 63

    def __init__(
        self,
        feature: str,
        message: str | None = None,
        *,
        offset: int | None = None,
        section: str | None = None,
        expected: str | None = None,
    ) -> None:
        super().__init__(
            message or f"{feature} is not supported yet", offset=offset, section=section, expected=expected
        )
        self.feature = feature

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with the feature's name."""
        return {**super().as_dict(), "feature": self.feature}


class BudgetError(UnsupportedError):
    """Reading it exceeds a limit (:mod:`qmigtool.util.budget`); ``option`` raises the limit.

    ``resource`` is the name of the limit: ``seconds``, ``memory``, ``spool`` or ``objects``.
    """

    def __init__(
        self, resource: str, message: str, *, option: str, offset: int | None = None, section: str | None = None
    ) -> None:
        super().__init__(
            f"more {resource}",
            message,
            offset=offset,
            section=section,
            expected=f"less, or a higher qmigtool {option} before the command",
        )
        self.resource = resource
        self.option = option

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with the limit and the option."""
        return {**super().as_dict(), "resource": self.resource, "option": self.option}


class UndecidedError(UnsupportedError):
    """The question has an answer, but the input does not decide it; ``feature`` names what does.

    ``told`` is the message without ``advice``, the option that decides it: a command may have others.
    """

    def __init__(
        self,
        feature: str,
        message: str | None = None,
        *,
        advice: str = "",
        offset: int | None = None,
        section: str | None = None,
        expected: str | None = None,
    ) -> None:
        told = message or f"{feature} is undecided"
        whole = f"{told}; {advice}" if advice else told
        super().__init__(feature, whole, offset=offset, section=section, expected=expected)
        self.told = told


class XsaveError(QmigError):
    """An XSAVE area, a layout or a mask that the architecture does not allow."""


class LiveStateError(XsaveError):
    """A conversion would lose live state; ``components`` names it, as in ``("PKRU",)``.

    ``rule`` names the accelerator conversion rule that refuses it (or is empty), ``told`` is the message
    without the rule and ``advice``, which the message adds in parentheses.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        components: tuple[str, ...] = (),
        section: str | None = None,
        rule: str = "",
        advice: str = "",
    ) -> None:
        more = "; ".join(filter(None, (f"rule {rule}" if rule else "", advice)))
        super().__init__(f"{message} ({more})" if more else message, section=section)
        self.components = components
        self.rule = rule
        self.told = message

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, with the components' names."""
        return {**super().as_dict(), "components": list(self.components)}
