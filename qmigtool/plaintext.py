"""Text for people and for JSON: names and values that come from a file, made harmless and readable."""

from __future__ import annotations

from typing import Any

__all__ = ["hexadecimal", "json_value", "printable", "text_value"]


def printable(text: str) -> str:
    """Escape what a terminal would act on, or a CI runner that reads what is printed: names come from the file.

    GitHub's runner takes ``::command::`` at the start of a line, and ``##[command]`` anywhere in it, for its own.
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if "##[" in text:
        text = text.replace("##[", "#\\x23[")
    return f"\\x3a{text[1:]}" if text.lstrip().startswith("::") and text.startswith(":") else text


def hexadecimal(value: int | None) -> str | None:
    """Write an address, mask or register as JSON has it."""
    return None if value is None else f"{value:#x}"


# Numbers of these types are addresses, masks or registers of 64 bits or more.
_WIDE = ("uint64", "int64 equal", "CPU_Double", "register")


def json_value(type_: str, value: Any) -> Any:
    """Return the value of a leaf of this vmdesc type as JSON has it: wide numbers and bytes as text."""
    if isinstance(value, list):
        return [json_value(type_, one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int) and type_.startswith(_WIDE):
        return hexadecimal(value)
    return value


def text_value(type_: str, value: Any) -> str:
    """Return the value of a leaf for people: unsigned numbers in hexadecimal, signed ones in decimal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex() if value.strip(b"\0") else f"{len(value)} zero bytes"
    if isinstance(value, int) and type_.startswith(("uint", *_WIDE)):
        return f"{value:#x}"
    return printable(str(value))
