"""A missing subsection equals one in which all fields have their defaults."""

import struct

from tests.diff.comparing import compared, edited


def test_a_missing_subsection_equals_one_with_all_defaults() -> None:
    """poll_control_msr and misc_enable are left out when they are 1, the others when 0 (target/i386/machine.c)."""
    bare = edited("kvm-avx512-7.2", lambda r: r.set("cpu@0/env.xcr0", 0xE7))
    for name, raw in (
        ("cpu/poll_control_msr", struct.pack(">Q", 1)),
        ("cpu/msr_ia32_misc_enable", struct.pack(">Q", 1)),
        ("cpu/pkru", struct.pack(">I", 0)),
        ("cpu/xss", struct.pack(">Q", 0)),
    ):
        more = edited("kvm-avx512-7.2", lambda r, name=name, raw=raw: r.add_subsection("cpu@0", name, data=raw))  # type: ignore[misc]
        assert len(more) > len(bare), name
        assert compared(bare, more).same, name
        assert compared(more, bare).same, name
