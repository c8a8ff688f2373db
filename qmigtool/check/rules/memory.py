"""Rules over guest memory: the RAM blocks, and whether their pages were sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qmigtool.check.rule import Context, Option, Options, finding, policy_rule, rule
from qmigtool.errors import UsageError
from qmigtool.findings import Finding
from qmigtool.stream.missing import missing_memory
from qmigtool.util.globs import matches
from qmigtool.util.values import size

__all__ = ["RULES"]

MAX_BLOCKS = 4  # named in one message
# Devices that do not plug all of their memory, so that not all of it is sent.
SPARSE = ("*virtio-mem", "*virtio-mem-device*")


def _sizes(value: Any, what: str) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is {value!r:.60}", expected='a table, such as { "pc.ram" = "4G" }')
    return {name: size(wanted, f"{what} of {name}") for name, wanted in value.items()}


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{what} is {value!r:.60}", expected="true or false")
    return value


@policy_rule(
    "ram-blocks",
    "The RAM blocks are as the policy requires",
    "The target must have each of them, in the same size, or the load fails.",
    severity="error",
    sizes=Option(_sizes, {}, 'bytes by name: { "pc.ram" = "4G", "pc.rom" = "128K" }'),
    exact=Option(_flag, False, "whether other blocks are forbidden"),
)
def ram_blocks(context: Context, options: Options) -> Iterator[Finding]:
    found = context.stream.ram_blocks
    sizes = options["sizes"]
    for block in found:
        # An exact name takes precedence over patterns; patterns apply in their order.
        fitting = [pattern for pattern in sizes if matches(pattern, block.idstr)]
        wanted = sizes.get(block.idstr, sizes[fitting[0]] if fitting else None)
        if wanted is not None and block.used_length != wanted:
            message = f"the RAM block has {block.used_length:#x} bytes, but the policy requires {wanted:#x}"
            yield finding(message, "ram", block.idstr, value=block.used_length, expected=wanted)
        elif wanted is None and options["exact"]:
            yield finding("the RAM block is not in the policy's list", "ram", block.idstr)
    for pattern in sizes:
        if not any(matches(pattern, block.idstr) for block in found):
            yield finding(f"no RAM block matches {pattern}, but the policy requires it", "ram", pattern)


def _has_sparse(context: Context) -> bool:
    return any(matches(pattern, device.name) for device in context.stream.devices for pattern in SPARSE)


@rule(
    "ram-block-sent",
    "No RAM block was left out",
    "Every page of every other block is in the stream and none of this one, so it was not just sent on other channels. "
    "QEMU does not notice: in the target the block keeps its own contents.",
)
def ram_block_sent(context: Context, _: Options) -> Iterator[Finding]:
    blocks = [block for block in context.usage if not block["elsewhere"]]
    unsent = [block for block in blocks if block["pages"] and not block["distinct"]]
    rest = [block for block in blocks if block["distinct"]]
    if rest and not any(block["absent"] for block in rest) and not _has_sparse(context):
        for block in unsent:
            yield finding(
                f"no page of the RAM block is in the stream, of {block['pages']}",
                "ram",
                block["name"],
                value=0,
                expected=block["pages"],
            )


@rule(
    "ram-pages-sent",
    "Every page of guest memory is in the stream",
    "Memory that was sent on other channels (multifd, postcopy) is not in this file, so it cannot be restored from the "
    "file alone; --channel adds them. Not checked where a balloon may have reported that the guest does not use pages.",
    severity="error",
    because="multifd and postcopy send them on other channels: --channel",
)
def ram_pages_sent(context: Context, _: Options) -> Iterator[Finding]:
    if any(ram_block_sent.check(context, {})):
        return
    lacking = missing_memory(context.stream)
    if lacking is None or lacking.excuse:
        return
    blocks = [block for block in context.usage if not block["elsewhere"]]
    short = [block for block in blocks if block["absent"]]
    if short:
        absent, pages = sum(block["absent"] for block in short), sum(block["pages"] for block in blocks)
        listed = ", ".join(f"{block['absent']} of {block['name']}" for block in short[:MAX_BLOCKS])
        more = f" and {len(short) - MAX_BLOCKS} more blocks" if len(short) > MAX_BLOCKS else ""
        yield finding(
            f"{absent} of {pages} pages are in none of the given channels: {listed}{more}",
            "ram",
            absent=absent,
            pages=pages,
        )


def _ratio(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{what} is {value!r:.60}", expected="a number from 0 to 1")
    return float(value)


@policy_rule(
    "ram-zero-ratio",
    "No more of guest memory is zero than the policy allows",
    "A guest that has run has written to its memory: if nearly all of it is zero, the guest may have been saved before "
    "it started, or its memory was lost.",
    severity="error",
    maximum=Option(_ratio, None, "the share of zero pages among those sent, from 0 to 1"),
)
def ram_zero_ratio(context: Context, options: Options) -> Iterator[Finding]:
    maximum = options["maximum"]
    if maximum is None:
        return
    blocks = context.usage
    pages, zero = sum(block["distinct"] for block in blocks), sum(block["zero"] for block in blocks)
    if pages and zero / pages > maximum:
        yield finding(
            f"{zero} of {pages} pages are zero ({zero / pages:.3f}), but the policy allows {maximum}",
            "ram",
            zero=zero,
            pages=pages,
            maximum=maximum,
        )


RULES = (ram_blocks, ram_block_sent, ram_pages_sent, ram_zero_ratio)
