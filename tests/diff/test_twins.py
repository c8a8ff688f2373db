"""One guest, saved by KVM and by TCG: no register of the extended state differs, and what does has a name."""

import re

import pytest

from qmigtool.diff import default_noise
from tests.diff.comparing import compared, edited, places
from tests.rewrite.editing import sample

EXTENDED = re.compile(r"env\.(fp|xmm|mxcsr|xstate)|\[(ST|XMM|YMM|ZMM|k)\d")


def test_no_extended_register_differs() -> None:
    found = compared("twin-kvm-10.0", "twin-tcg-10.0")
    assert not [where for where in places(found) if EXTENDED.search(where)]


def test_the_bytes_of_the_x87_registers_do_differ() -> None:
    """Without the meaning they are not equal: the order is physical in one and of the stack in the other."""
    import qmigtool

    raws = []
    for name in ("twin-kvm-10.0", "twin-tcg-10.0"):
        with qmigtool.open(sample(name)) as stream:
            raws.append(stream.field("cpu@0/env.fpregs").raw)
    assert raws[0] != raws[1]
    assert sorted(raws[0][i : i + 10] for i in range(0, 80, 10)) == sorted(
        raws[1][i : i + 10] for i in range(0, 80, 10)
    )


def test_what_remains_is_named() -> None:
    found = compared("twin-kvm-10.0", "twin-tcg-10.0")
    assert [difference.where for difference in found.differences if difference.topic is None] == []
    topics = {difference.topic: difference.where for difference in found.differences}
    assert set(topics) == {"accelerator", "clock", "PIT", "PIC", "APIC", "SMM", "execution"}
    assert found.notes[0].startswith("A: saved by kvm")


@pytest.mark.parametrize(
    ("edit", "value", "register"),
    [
        ("env.fpregs[2]", bytes.fromhex("80000000000000003fff"), r"env\.fpregs\[\d\]"),
        ("env.mxcsr", 0x1F81, r"env\.mxcsr"),
        ("env.fpuc", 0x37E, r"env\.fpuc"),
    ],
)
def test_a_changed_register_of_a_twin_is_found(edit: str, value: int | bytes, register: str) -> None:
    if isinstance(value, bytes):
        parts = {"mantissa": int.from_bytes(value[:8], "big"), "exponent": int.from_bytes(value[8:], "big")}
        changed = edited("twin-tcg-10.0", lambda r: r.set(f"cpu@0/{edit}", b"".join(
            (parts["mantissa"].to_bytes(8, "big"), parts["exponent"].to_bytes(2, "big")))))  # fmt: skip
    else:
        changed = edited("twin-tcg-10.0", lambda r: r.set(f"cpu@0/{edit}", value))
    before = set(places(compared("twin-kvm-10.0", "twin-tcg-10.0")))
    more = [where for where in places(compared(sample("twin-kvm-10.0"), changed)) if where not in before]
    assert len(more) == 1
    assert re.fullmatch(rf"cpu@0/{register}", more[0])


def test_strict_rules_excuse_nothing() -> None:
    found = compared("twin-kvm-10.0", "twin-tcg-10.0", noise=default_noise().strict())
    assert found.excused == ()
    assert "cpu@0/env.xstate_bv" in places(found)
    assert "cpu@0/cpu/fpop_ip_dp/env.fpip" in places(found)
