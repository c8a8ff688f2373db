"""What one command may cost, and what is said when it would be more."""

import json
import threading
import time
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.errors import BudgetError, UnsupportedError
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.util.budget import FREE, Budget, Limits, current, ensured, limited, portion
from tests.support import samplefiles


def test_each_limit_names_its_option_and_the_place() -> None:
    budget = Budget(Limits(seconds=0.01, memory=10, spool=10, objects=10))
    for what in ("memory", "spool", "objects"):
        budget.charge(what, 10)
        with pytest.raises(BudgetError, match=f"--max-{what} ") as caught:
            budget.charge(what, 1, 0x40, "cpu@0")
        assert (caught.value.offset, caught.value.section, caught.value.resource) == (0x40, "cpu@0", what)
        assert caught.value.exit_code == 63
        assert budget.exceeded is caught.value
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    with pytest.raises(BudgetError, match="--max-seconds "):
        budget.tick()
    assert isinstance(budget.exceeded, UnsupportedError)


def test_what_is_given_back_may_be_spent_again() -> None:
    budget = Budget(Limits(memory=10))
    for _ in range(5):
        budget.charge("memory", 8)
        with pytest.raises(BudgetError), budget.undone():
            budget.charge("memory", 8)
        budget.release("memory", 8)
    budget.charge("memory", 10)


def test_large_inputs_may_cost_more() -> None:
    budget = Budget()
    budget.admit(FREE)
    kinds = ("seconds", "spool", "objects", "memory")
    before = [budget.limit(kind) for kind in kinds]
    budget.admit(1 << 30)
    more = [budget.limit(kind) - old for kind, old in zip(kinds, before, strict=True)]
    assert more == [1024, 16 << 30, (1 << 30) // 12, (1 << 30) // 8]
    exact = Budget(Limits(grow=False))
    exact.admit(1 << 40)
    assert exact.limit("seconds") == Limits().seconds


@pytest.mark.parametrize("vcpus", [1, 200, 300, 500, 1024, 1400, 2048, 4096])
@pytest.mark.parametrize(
    ("size", "body", "values"), [(9500, 1842, 339), (12_000, 3458, 589), (28_000, 12_000, 1000)],
    ids=["SSE", "AVX-512", "AMX"],
)  # fmt: skip
def test_any_number_of_vcpus_is_allowed(vcpus: int, size: int, body: int, values: int) -> None:
    """QEMU 11.1 can start a q35 with 4096; ``size`` is that of a vCPU's sections and its part of the vmdesc."""
    budget = Budget()
    budget.admit(vcpus * size)
    budget.earn(vcpus * body)
    budget.charge("objects", 20_000 + vcpus * (values + 3 * 40))
    assert budget.limit("seconds") > vcpus * 0.006


def test_what_says_that_it_is_a_vcpu_earns_up_to_a_point() -> None:
    budget = Budget()
    before = budget.limit("seconds")
    budget.earn(1 << 40)
    assert budget.limit("objects") == 2 * Limits().objects
    assert budget.limit("seconds") == 2 * before


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_each_portion_may_cost_all_of_it() -> None:
    with limited(Limits(seconds=0.3, objects=10)) as budget:
        for _ in range(4):
            with portion() as one:
                assert current() is one
                one.charge("objects", 8)
                burn(0.1)
                one.tick()
        budget.tick()  # what the portions cost, they cost
        assert budget.seconds < 0.1
        assert budget.exceeded is None
        with pytest.raises(BudgetError), portion() as one:
            one.charge("objects", 11)
        assert budget.exceeded is not None  # keeps the exit status from being fine
        assert current() is budget


def test_outside_a_command_nothing_adds_up() -> None:
    """A test session, or a server, may live for days."""
    burn(0.05)
    for _ in range(3):
        with ensured() as budget:
            assert budget.seconds < 0.05
        with portion() as budget:
            assert budget.seconds < 0.05
    assert current().seconds < 0.05


@pytest.mark.slow
def test_many_honest_files_are_no_large_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = samplefiles.read("pc-7.2")
    for i in range(6):
        (tmp_path / f"{i}.mig").write_bytes(data)
    with qmigtool.open(data) as stream:
        one = 40 * len(stream.sections)  # at most, and what the rules decode is less than as much again
    assert run(["--max-objects", str(2 * one), "check", str(tmp_path)]) == 0
    assert run(["--max-objects", str(2 * one), "schema", "learn", *map(str, sorted(tmp_path.glob("*.mig"))),
                "-o", str(tmp_path / "out")]) == 0  # fmt: skip
    capsys.readouterr()
    assert run(["--max-objects", "50", "check", str(tmp_path)]) == 63


def test_a_budget_counts_for_its_block_and_thread() -> None:
    assert current() is not current()
    with limited(Limits(objects=5)) as budget:
        assert current() is budget
        with ensured() as same:
            assert same is budget
        others: list[Budget] = []
        thread = threading.Thread(target=lambda: others.append(current()))
        thread.start()
        thread.join()
        assert others[0] is not budget
    with ensured() as one, ensured() as other:
        assert one is other


def test_a_shared_shape_costs_nothing_to_count() -> None:
    body = {"vmsd_name": "x", "version": 1, "fields": [{"name": "v", "type": "uint8", "size": 1}]}
    length = 1
    for _ in range(40):  # each level has the one below twice
        fields = [{"name": n, "type": "struct", "struct": body, "size": length} for n in "ab"]
        body = {"vmsd_name": "x", "version": 1, "fields": fields}
        length *= 2
        if length >= 1 << 9:
            break
    text = json.dumps({"page_size": 4096, "devices": [{"name": "d", "instance_id": 0, **body}]}).encode()
    assert parse_vmdesc(text).devices[0].description.objects > length


def test_options_raise_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(samplefiles.path("kvm-avx512-7.2"))
    assert run(["--max-objects", "5", "show", file, "cpu@0"]) == 63
    said = capsys.readouterr().err
    assert "cpu@0" in said
    assert "--max-objects" in said
    assert run(["--max-objects", "1M", "show", file, "cpu@0"]) == 0
    assert run(["--max-objects", "5", "show", file, "cpu@0", "--json"]) == 63
    capsys.readouterr()
    assert run(["--max-memory", "nonsense", "info", file]) == 2
    assert run(["--max-seconds", "-1", "info", file]) == 2
