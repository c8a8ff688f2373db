"""The policies qemu-* against QEMU's own functions, compiled: the return value and every byte, for random inputs.

By default some thousands of inputs in-process and a few through the command line. For a hundred thousand, and three
hundred through the command line (about a minute):

    QMIGTOOL_XSAVE_CASES=100000 pytest tests/oracle/test_xsave_helper.py

Other inputs with QMIGTOOL_XSAVE_SEED=N.
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qmigtool.cli.main import run
from qmigtool.errors import XsaveError
from qmigtool.xsave import PolicyResult, compact_xsave_area, decompact_xsave_area, layout, layout_names
from tests.oracle.xsave_helper import Answer, Case, Row, Status, XsaveHelper

CASES = int(os.environ.get("QMIGTOOL_XSAVE_CASES", "5000"))
THROUGH_THE_COMMAND_LINE = 300 if CASES >= 100_000 else 20
SEED = int(os.environ.get("QMIGTOOL_XSAVE_SEED", "1"))
POLICIES = ("qemu-v1", "qemu-11.1", "qemu-next")
FLAG = 1 << 63
SIZES = (0, 511, 512, 519, 520, 527, 528, 575, 576, 577, 832, 840, 2432, 2440, 2688, 2696, 3000, 4096, 11008, 12288)

pytestmark = [pytest.mark.needs("gcc"), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def helpers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, XsaveHelper]]:
    """The compiled functions by policy: 11.1 has the text of the patch, the next one skips supervisor state."""
    folders = [tmp_path_factory.mktemp("posted"), tmp_path_factory.mktemp("next")]
    with XsaveHelper(folders[0]) as posted, XsaveHelper(folders[1], supervisor_skip=True) as later:
        yield {"qemu-v1": posted, "qemu-11.1": posted, "qemu-next": later}


def some_mask(rng: random.Random, base: int) -> int:
    """Make a mask that is `base`, less than it, a little more, or anything."""
    kind = rng.random()
    if kind < 0.4:
        return base
    if kind < 0.7:
        return base & rng.getrandbits(64)
    if kind < 0.9:
        return base ^ 1 << rng.randrange(64) ^ 1 << rng.randrange(64)
    return rng.getrandbits(64)


def some_leaf(rng: random.Random) -> dict[int, Row]:
    """Make leaf 0xD of a CPU, often with a row changed, missing or added, as no CPU has it."""
    leaf = dict(layout(rng.choice(layout_names())).leaf)
    while rng.random() < 0.35:
        subleaf = rng.choice((*leaf, rng.randrange(63)))
        change = rng.random()
        if change < 0.2:
            leaf.pop(subleaf, None)
        else:
            old = leaf.get(subleaf, (0, 0, 0, 0))
            new = (
                rng.choice((0, 1, 8, 64, 256, 808, 4096, 0xFFFFFFF8, rng.getrandbits(32))),
                rng.choice((0, 8, 576, 700, 832, 2432, 4090, 0xFFFFFFF8, rng.getrandbits(32))),
                rng.getrandbits(3),
                rng.getrandbits(32),
            )
            mixed = [one if rng.random() < 0.5 else other for one, other in zip(old, new, strict=True)]
            leaf[subleaf] = (mixed[0], mixed[1], mixed[2], mixed[3])
    return leaf


def some_case(rng: random.Random) -> Case:
    """Make an input: mostly one on which C gets far, often one on which it leaves a buffer."""
    host = some_leaf(rng)
    guest = host if rng.random() < 0.6 else some_leaf(rng)
    features = guest.get(0, (7, 0, 0, 0))
    advertised = features[3] << 32 | features[0]
    one = guest.get(1, (0, 0, 0, 0))
    every = advertised | one[3] << 32 | one[2]
    length = rng.choice(SIZES) if rng.random() < 0.3 else rng.choice((4096, 12288))
    source = bytearray(rng.randbytes(length))
    compact = rng.random() < 0.5
    if length >= 528:
        xcomp_bv = some_mask(rng, every) | FLAG if rng.random() < 0.97 else rng.getrandbits(63)
        source[512:528] = some_mask(rng, every).to_bytes(8, "little") + xcomp_bv.to_bytes(8, "little")
    target = rng.choice(SIZES) if rng.random() < 0.3 else rng.choice((4096, 12288))
    told = target if compact else rng.choice((length, length, length, length, rng.randrange(length + 600)))
    guest_xcr0 = some_mask(rng, advertised)
    return Case(compact, bytes(source), host, guest, guest_xcr0, some_mask(rng, guest_xcr0), target, told)


def ours(case: Case, policy: str) -> PolicyResult:
    if case.compact:
        return compact_xsave_area(
            case.source, host=case.host, guest_xcr0=case.guest_xcr0, xcr0=case.xcr0, buflen=case.told_size,
            policy=policy,
        )  # fmt: skip
    return decompact_xsave_area(
        case.source, host=case.host, guest=case.guest, guest_xcr0=case.guest_xcr0, xsave_buf_len=case.target_size,
        buflen=case.told_size, policy=policy,
    )  # fmt: skip


def refusal(answer: Answer, case: Case) -> str:
    """Return the pattern of what a refusal must say: the function, the access, its offset, the buffer's size."""
    function = re.escape("compact_xsave_area()" if case.compact else "decompact_xsave_area()")
    if answer.status is Status.ASSERTED:
        return rf"{function} aborts at assert\("
    verb, size = {
        Status.READ_OUTSIDE: ("reads", len(case.source)),
        Status.WRITE_OUTSIDE: ("writes", case.target_size),
    }[answer.status]
    return rf"{function} {verb} {answer.size} bytes at offset {answer.offset} of \w+, .*: it has {size} bytes$"


def check(case: Case, policy: str, answer: Answer) -> None:
    if answer.status is Status.DONE:
        assert ours(case, policy) == PolicyResult(answer.rc, answer.data)
        return
    with pytest.raises(XsaveError) as error:
        ours(case, policy)
    assert re.match(refusal(answer, case), error.value.message)
    assert error.value.offset == answer.offset


def test_every_byte_and_the_return_value(helpers: dict[str, XsaveHelper]) -> None:
    rng = random.Random(SEED)  # noqa: S311
    seen: Counter[tuple[bool, int]] = Counter()
    for number in range(CASES):
        case = some_case(rng)
        policy = POLICIES[number % 3]
        answer = helpers[policy].call(case)
        check(case, policy, answer)
        seen[case.compact, answer.rc if answer.status is Status.DONE and answer.rc <= 0 else -1000 - answer.status] += 1
    # The generator reaches every way in which a call can end.
    ends = {(False, 0), (False, -7), (False, -22), (True, -1000)} | {(False, -1000 - one) for one in (1, 2, 3)}
    assert ends | {(True, -1001), (True, -1002)} <= seen.keys(), seen
    assert sum(count for (_, end), count in seen.items() if end >= -1000) > CASES // 3


@pytest.fixture
def through_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[Case, str, str], tuple[int, dict[str, object], bytes | None]]:
    def call(case: Case, name: str, policy: str) -> tuple[int, dict[str, object], bytes | None]:
        source, out, guest = tmp_path / "in", tmp_path / "out", tmp_path / "guest.cpuid"
        source.write_bytes(case.source)
        out.unlink(missing_ok=True)
        rows = [
            f"   0x0000000d 0x{subleaf:02x}: eax=0x{a:08x} ebx=0x{b:08x} ecx=0x{c:08x} edx=0x{d:08x}"
            for subleaf, (a, b, c, d) in case.guest.items()
        ]
        guest.write_text("\n".join(["CPU 0:", *rows, ""]))
        options = ["--to", "compacted", "--xcr0", hex(case.xcr0)] if case.compact else ["--to", "standard"]
        options += ["--guest-xcr0", hex(case.guest_xcr0), "--size", str(case.target_size), "--layout", name]
        options += [] if case.compact else ["--guest-layout", str(guest)]
        status = run(["xsave", "convert", str(source), str(out), *options, "--policy", policy, "--json"])
        printed = capsys.readouterr().out
        return status, json.loads(printed) if printed else {}, out.read_bytes() if out.exists() else None

    return call


def test_the_command_line_adds_no_judgement(
    helpers: dict[str, XsaveHelper],
    through_the_command_line: Callable[[Case, str, str], tuple[int, dict[str, object], bytes | None]],
) -> None:
    rng = random.Random(SEED + 1)  # noqa: S311
    statuses: Counter[int] = Counter()
    for number in range(THROUGH_THE_COMMAND_LINE):
        name, guest = rng.choice(layout_names()), layout(rng.choice(layout_names())).leaf
        any_case = some_case(rng)
        case = Case(
            any_case.compact, any_case.source, layout(name).leaf, guest, any_case.guest_xcr0, any_case.xcr0,
            any_case.target_size, any_case.target_size if any_case.compact else len(any_case.source),
        )  # fmt: skip
        policy = POLICIES[number % 3]
        answer = helpers[policy].call(case)
        status, document, written = through_the_command_line(case, name, policy)
        statuses[status] += 1
        if answer.status is Status.DONE:
            assert (status, document["rc"], written) == (0 if answer.rc >= 0 else 1, answer.rc, answer.data)
        else:
            assert (status, written) == (3, None)
    assert statuses[0] > THROUGH_THE_COMMAND_LINE // 4
    assert statuses[3]
