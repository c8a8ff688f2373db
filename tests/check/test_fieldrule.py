"""Rules of a policy's own: each kind of question, on real fields whose values are known from elsewhere.

pc-7.2 has four vCPUs with XCR0 0x21f, 0x21f, 0x21f, 0x7 (samples/MANIFEST.md); kvm-avx512-7.2 has MXCSR 9fc0.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qmigtool.check.patterns import Expression
from qmigtool.errors import UsageError
from tests.check.checking import found, poked, sample

PC = "pc-7.2"


def asked(text: str, name: str = PC, data: bytes | None = None) -> list[str]:
    """Where ``[[field]]`` and what it says."""
    findings = found(sample(name) if data is None else data, f'extends = "nothing"\n[[field]]\nid = "it"\n{text}')
    assert {finding.rule for finding in findings} <= {"it"}
    return [f"{finding.where} {finding.message}" for finding in findings]


XCR0 = 'path = "cpu@*/env.xcr0"\n'


def test_elements_of_an_array_by_pattern():
    data = poked(PC, {"cpu@2/env.regs[5]": 0x1234, "cpu@2/env.fpregs[3]/tmp/tmp_exp": 0x777})
    for path in ("cpu@*/env.regs[*]", "cpu@2/env.regs[?]", "*/env.regs[5]"):
        says = asked(f'path = "{path}"\none_of = [0]\nrequired = true', data=data)
        assert "cpu@2/env.regs[5] is 0x1234, but the policy requires one of 0x0" in says
        assert not any(line.startswith("nothing") for line in says)
    count = len(asked('path = "cpu@*/env.regs[*]"\nabsent = true'))
    assert count == 4 * 16
    # Structs have elements of their own, and a pattern for the whole array finds it once.
    says = asked('path = "cpu@2/env.fpregs[*]/tmp/tmp_exp"\nequals = 0x777', data=data)
    assert [line.split()[0] for line in says] == [f"cpu@2/env.fpregs[{i}]/tmp/tmp_exp" for i in range(8) if i != 3]
    assert len(asked('path = "cpu@*/env.reg*"\nabsent = true')) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('equals = "0x21f"', ["cpu@3/env.xcr0 is 0x7, but the policy requires 0x21f"]),
        ("equals = 543", ["cpu@3/env.xcr0 is 0x7, but the policy requires 0x21f"]),
        ('one_of = [7, "0x21f"]', []),
        (
            "one_of = [1, 3, 7]",
            [f"cpu@{n}/env.xcr0 is 0x21f, but the policy requires one of 0x1, 0x3, 0x7" for n in range(3)],
        ),
        ("minimum = 8", ["cpu@3/env.xcr0 is 0x7, but the policy requires at least 0x8"]),
        ("maximum = 7", [f"cpu@{n}/env.xcr0 is 0x21f, but the policy requires at most 0x7" for n in range(3)]),
        ('within = "x87,sse,avx,mpx,pkru"', []),
        ('within = "0x1f"', [f"cpu@{n}/env.xcr0 is 0x21f, whose bits 0x200 are not within 0x1f" for n in range(3)]),
        ('has = "mpx"', ["cpu@3/env.xcr0 is 0x7, which lacks the bits 0x18"]),
        (
            'mask = "0x210"\nequals = "0x210"',
            ["cpu@3/env.xcr0 is 0x7 (0x0 of the bits 0x210), but the policy requires 0x210"],
        ),
        ("mask = 7\nequals = 7", []),
        (
            'equals = "x87,sse,avx,mpx,pkru"',
            ["cpu@3/env.xcr0 is 0x7, but the policy requires x87,sse,avx,mpx,pkru (0x21f)"],
        ),
        ('mask = "sse"\nequals = "sse"', []),
        ('one_of = ["x87,sse,avx", "0x21f"]', []),
        (
            'one_of = ["X87, SSE, bit2", 1]',
            [f"cpu@{n}/env.xcr0 is 0x21f, but the policy requires one of X87, SSE, bit2 (0x7), 0x1" for n in range(3)],
        ),
        (
            'equals = "x87,ssse"',
            [
                f"cpu@{n}/env.xcr0 is {v}, but the policy requires the text x87,ssse"
                for n, v in enumerate(["0x21f"] * 3 + ["0x7"])
            ],
        ),
        ("same = true", ["cpu@3/env.xcr0 is 0x7, but cpu@0/env.xcr0 is 0x21f"]),
        ('matches = "^0x2"', ["cpu@3/env.xcr0 is 0x7, which does not match ^0x2"]),
        ("absent = true", [f"cpu@{n}/env.xcr0 is present, but the policy requires it to be absent" for n in range(4)]),
    ],
)
def test_questions(text: str, says: list[str]) -> None:
    assert asked(XCR0 + text) == says


def test_paths() -> None:
    assert len(asked('path = "cpu@1/env.xcr0"\nequals = 1')) == 1
    assert len(asked('path = "cpu/env.xcr0"\nequals = 1')) == 4
    assert len(asked('path = "cpu@?/env.xcr0"\nequals = 1')) == 4
    assert len(asked('path = "*/env.xcr0"\nequals = 1')) == 4
    assert len(asked('path = "*/piix4_pm@0/pm1a_sts"\nabsent = true')) == len(
        asked('path = "0000:00:01.3/piix4_pm/pm1a_sts"\nabsent = true')
    )
    # Brackets are names, not sets.
    assert asked('path = "cpu@0/env.cr[0]"\nequals = 1')[0].startswith("cpu@0/env.cr[0] is 0x")
    assert [line.split()[0] for line in asked('path = "cpu@0/env.cr[*]"\nequals = "no"')] == [
        f"cpu@0/env.cr[{n}]" for n in (0, 2, 3, 4)
    ]
    assert len(asked('path = "cpu@0/env.regs"\nequals = "x"')) == 1


def test_what_is_not_there() -> None:
    path = 'path = "cpu@*/cpu/avx512/*"\n'
    assert asked(path + "has = 1") == [" no field of the stream matches cpu@*/cpu/avx512/*"]
    assert not asked(path + "has = 1\nrequired = false")
    assert not asked(path + "absent = true")
    assert not asked(path + "required = true", "kvm-avx512-7.2")


ENDLESS = ["^(0|00)*$", "^(0|00|000)*$", "^(0|00)*x?$"]


@pytest.mark.parametrize("pattern", ENDLESS)
def test_an_expression_without_end_is_ended(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty zeros, which such a pattern takes apart in more ways than there is time for."""
    monkeypatch.setattr("qmigtool.check.patterns.MAX_SECONDS", 0.2)
    data = poked(PC, {"globalstate/runstate": b"0" * 60 + b"!" + bytes(39)})
    started = time.process_time()
    with pytest.raises(UsageError, match="takes too long"):
        asked(f'path = "globalstate/runstate"\nmatches = "{pattern}"', data=data)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("pattern", ENDLESS)
def test_an_expression_without_end_is_ended_in_any_thread(pattern: str) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError, match="takes too long"):
        pool.submit(Expression(pattern, 0.1).found_in, "0" * 60 + "!").result(timeout=60)


def test_the_time_of_an_expression_is_for_all_values() -> None:
    slow = Expression("^(0|00)*$", seconds=0.3)
    for length in (10, 12, 14):
        assert not slow.found_in("0" * length + "!")
    assert Expression("^r[a-z]+$").found_in("running")
    with pytest.raises(UsageError, match="takes too long"):
        any(slow.found_in("0" * 20 + "!") for _ in range(10_000))


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999999999}", "(?P<x", "[", "(" * 5000, "a" * 5000])
def test_what_is_no_expression(pattern: str) -> None:
    with pytest.raises(UsageError, match="regular expression"):
        Expression(pattern)


def test_types() -> None:
    state = 'path = "globalstate/runstate"\n'
    assert not asked(state + 'equals = "paused"', "kvm-avx512-7.2")
    assert not asked(state + f'equals = "{(b"paused".ljust(100, bytes(1))).hex()}"', "kvm-avx512-7.2")
    assert asked(state + 'equals = "running"') != []
    assert asked(state + "minimum = 5")[0].endswith("not a number, but the policy requires one")
    negative = 'path = "cpu@0/env.a20_mask"\n'
    assert not asked(negative + "equals = -1")
    assert asked('path = "cpu@0/env.xcr0"\nequals = "text"')
    assert asked('path = "cpu@0/env.xcr0"\nequals = true')


def test_severity_why_and_place() -> None:
    policy = f'[[field]]\n{XCR0}equals = "0x21f"\nseverity = "note"\nwhy = "all alike"\nid = "mine"'
    (finding,) = [one for one in found(sample(PC), policy) if one.rule == "mine"]
    assert (finding.severity.value, finding.reason) == ("note", "all alike")
    assert finding.length == 8
    assert sample(PC)[finding.offset : (finding.offset or 0) + 8] == (7).to_bytes(8, "big")
    assert not [one for one in found(sample(PC), policy.replace('"note"', '"off"')) if one.rule == "mine"]


def test_bits_of_a_signed_field() -> None:
    data = poked(PC, {"cpu@0/env.a20_mask": 0x7FFFFFFF})
    assert asked('path = "cpu@0/env.a20_mask"\nhas = "0x80000000"', data=data) == [
        "cpu@0/env.a20_mask is 0x7fffffff, which lacks the bits 0x80000000"
    ]
