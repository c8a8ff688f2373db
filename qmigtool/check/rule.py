"""The type of a rule: a check of a stream, with a name, a reason, and options that a policy sets.

A rule is a function from a :class:`Context` and the values of its options to findings
(:class:`~qmigtool.findings.Finding`)::

    @rule("cr0-legal", "CR0 has no contradiction", "...", per_vcpu)
    def cr0_legal(context, vcpu, options): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from qmigtool.errors import QmigError, UnsupportedError, UsageError
from qmigtool.findings import Finding, Severity
from qmigtool.findings.model import Wide
from qmigtool.parsers.section import Type
from qmigtool.util.text import is_wide

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.domainxml import Element
    from qmigtool.parsers.vmstate import Field
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu

__all__ = [
    "Check",
    "CheckRule",
    "Context",
    "Option",
    "Options",
    "at",
    "finding",
    "on",
    "policy_rule",
    "rule",
    "vcpu_rule",
]


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a rule: ``read`` converts the policy's value, or raises UsageError."""

    read: Callable[[Any, str], Any]
    default: Any
    meaning: str


class Context:
    """The stream that is checked, with data that several rules need."""

    def __init__(self, stream: Stream, baseline: Stream | None = None) -> None:
        self.stream = stream
        self.baseline = baseline

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices whose fields can be read. Bytes that contradict their description are a problem of the stream."""
        return self._sorted[0]

    @property
    def opaque(self) -> tuple[tuple[Device, UnsupportedError], ...]:
        """Devices without a description, or that QEMU describes wrongly."""
        return self._sorted[1]

    @cached_property
    def _sorted(self) -> tuple[tuple[Device, ...], tuple[tuple[Device, UnsupportedError], ...]]:
        good, opaque = [], []
        for device in self.stream.devices:
            try:
                _ = device.fields
            except UnsupportedError as error:
                opaque.append((device, error))
            except QmigError as error:
                self.stream.report(error)
            else:
                good.append(device)
        return tuple(good), tuple(opaque)

    @property
    def vcpus(self) -> tuple[VCpu, ...]:
        """The x86 vCPUs."""
        return self.stream.vcpus

    @property
    def accelerator(self) -> str:
        """The accelerator that saved the stream, as far as it is known."""
        return self.stream.accelerator.name

    @cached_property
    def usage(self) -> list[dict[str, Any]]:
        """How each RAM block was sent (:func:`qmigtool.ram.usage.blocks`); empty if that is not known."""
        stream = self.stream
        if not stream.ram_blocks or not any(section.type is Type.EOF for section in stream.sections) or stream.problems:
            return []  # pages are missing because the stream is not complete
        # Imported here: numpy is not needed for anything else.
        from qmigtool.ram import usage

        try:
            return usage.blocks(stream.ram)
        except UsageError:
            return []  # a pipe, whose records were not kept
        except QmigError as error:
            stream.report(error)
            return []

    @cached_property
    def domain(self) -> dict[str, Any]:
        """The facts of a save image's libvirt XML (:func:`qmigtool.stream.info.domain_document`); empty without one."""
        from qmigtool.stream.info import domain_document

        return domain_document(self.stream) or {}

    @cached_property
    def domain_root(self) -> Element | None:
        """That XML; None for another container and for XML that cannot be read, which ``xml-readable`` reports."""
        header = self.stream.container.header
        if header is None or "unread" in self.domain:
            return None
        from qmigtool.parsers.domainxml import check_domain  # few streams have one

        return check_domain(header.xml)

    def named(self, name: str) -> list[Device]:
        """Return the devices of a name, including those that cannot be decoded."""
        return [device for device in self.stream.devices if device.name == name]


def finding(
    message: str,
    device: str | None = None,
    path: str = "",
    offset: int | None = None,
    length: int | None = None,
    **values: Any,
) -> Finding:
    """Make a finding of what a rule found at one place; ``values`` are those of the finding.

    The rule's own part (its name, severity and reason) is added by :mod:`.engine`, as the policy has it.
    """
    return Finding("", Severity.WARNING, message, device=device, path=path, offset=offset, length=length, values=values)


def at(device: Device, path: str, message: str, **values: Any) -> Finding:
    """Make a finding at a field, with its place and its ``value``; at the device if it has no such field."""
    found = device.get(path)
    if found is None:
        return on(device, message, **values)
    return finding(message, device.label, path, found.offset, found.length, **(value_of(found) | values))


def on(device: Device, message: str, **values: Any) -> Finding:
    """Make a finding at a whole device."""
    return finding(message, device.label, "", device.section.offset, device.section.length, **values)


def value_of(field: Field) -> dict[str, Any]:
    """Return the ``value`` of a field among those of a finding; nothing for a struct or an array."""
    value = field.value
    if isinstance(value, int) and not isinstance(value, bool) and is_wide(field.type):
        value = Wide(value & (1 << 8 * field.length) - 1)
    return {"value": value} if isinstance(value, int | str) else {}


Options: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Context, Options], Iterator[Finding]]
VCpuCheck: TypeAlias = "Callable[[Context, VCpu, Options], Iterator[Finding]]"


@dataclass(frozen=True, slots=True)
class CheckRule:
    """One rule: :class:`~qmigtool.findings.Rule` has its texts, a policy sets its severity.

    ``by_policy``: it checks nothing unless its options are set. ``severity`` is that of the default policy, ``because``
    why it is not another one, if that is not obvious.
    """

    id: str
    title: str
    reason: str
    check: Check
    options: Mapping[str, Option] = field(default_factory=dict)
    by_policy: bool = False
    severity: str = "warning"
    because: str = ""

    def asks(self, options: Options) -> bool:
        """Whether there is anything to check with these options."""
        return not self.by_policy or any(options[name] != option.default for name, option in self.options.items())

    def option(self, name: str) -> Option:
        """Return an option; raises :class:`~qmigtool.errors.UsageError`."""
        try:
            return self.options[name]
        except KeyError:
            raise UsageError(f"the rule {self.id} has no option {name!r}") from None


def rule(
    id_: str, title: str, reason: str, severity: str = "warning", because: str = "", **options: Option
) -> Callable[[Check], CheckRule]:
    """Make a rule of a function that checks the whole stream."""

    def make(check: Check) -> CheckRule:
        return CheckRule(id_, title, reason, check, options, severity=severity, because=because)

    return make


def policy_rule(
    id_: str, title: str, reason: str, severity: str = "warning", because: str = "", **options: Option
) -> Callable[[Check], CheckRule]:
    """Make a rule of a function that checks the whole stream by its options."""

    def make(check: Check) -> CheckRule:
        return CheckRule(id_, title, reason, check, options, by_policy=True, severity=severity, because=because)

    return make


def vcpu_rule(
    id_: str, title: str, reason: str, severity: str = "warning", because: str = "", **options: Option
) -> Callable[[VCpuCheck], CheckRule]:
    """Make a rule of a function that checks one x86 vCPU; an unreadable vCPU does not stop the check of the others."""

    def make(check: VCpuCheck) -> CheckRule:
        def every(context: Context, given: Options) -> Iterator[Finding]:
            for vcpu in context.vcpus:
                try:
                    found = list(check(context, vcpu, given))
                except QmigError as error:
                    context.stream.report(error)
                else:
                    yield from found

        # Rules over vCPUs that have options check nothing without them.
        return CheckRule(
            id_, title, reason, every, options, by_policy=bool(options), severity=severity, because=because
        )

    return make
