"""Registers with the names of their bits, and their offsets in the file."""

import sys

import qmigtool
from qmigtool.x86.registers import register_for


def main(path: str) -> None:
    with qmigtool.open(path) as stream:
        for vcpu in stream.vcpus:
            for name in ("env.cr[0]", "env.cr[4]", "env.xcr0", "env.mxcsr"):
                field = vcpu.device.field(name)
                register = register_for("cpu", name)
                words = register.describe(field.value) if register else ""
                print(f"cpu {vcpu.index} {name:10} at {field.offset:#x}: {field.value:#x} {words}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: registers.py FILE")
    main(*sys.argv[1:])
