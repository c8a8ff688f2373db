"""The command: see the docstring of the package."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import corpus, hostile, mutation, records
from tests.fuzz.targets import TARGETS, Target_


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=[*TARGETS, "all", "properties", "corpus", "hostile"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="the folder for findings")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only this hostile file or property"
    )
    parser.add_argument("--command", action="append", default=[], help="hostile: only this command, as in COMMANDS")
    parser.add_argument("--reproduce", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--no-atheris", action="store_true", help="change the corpus at random even if atheris is installed"
    )
    return parser.parse_args()


def at_random(name: str, target: Target_, seconds: float, seed: int, findings: Path) -> int:
    """Run a target on random changes of the corpus; return the number of findings."""
    rng = random.Random(seed)  # noqa: S311 - no secrets
    inputs = list(corpus.load().values())
    count, seen = 0, set()
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        data, changes = rng.choice(inputs), rng.choice((1, 1, 2, 4, 16))
        data = mutation.mutate(data, inputs, rng, changes) if rng.randrange(3) else records.fuzzed(data, rng, changes)
        count += 1
        try:
            target(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            if (type(error), place.filename, place.lineno) in seen:
                continue
            seen.add((type(error), place.filename, place.lineno))
            findings.mkdir(exist_ok=True)
            file = findings / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
            file.write_bytes(data)
            traceback.print_exc()
            print(f"finding: python -m tests.fuzz {name} --reproduce {file}", flush=True)
    print(f"{name}: {count} inputs in {time.monotonic() - begun:.0f} s (seed {seed}), {len(seen)} findings", flush=True)
    return len(seen)


def by_coverage(name: str, seconds: float, findings: Path) -> int:
    """Run a target under atheris, in a separate process: libFuzzer ends it at the first finding."""
    program = (
        "import sys, atheris\n"
        "with atheris.instrument_imports(include=['qmigtool']):\n"
        "    from tests.fuzz.targets import TARGETS\n"
        "target = TARGETS[sys.argv.pop(1)]\n"
        "atheris.Setup(sys.argv, target)\n"
        "atheris.Fuzz()\n"
    )
    findings.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="qmigtool-fuzz-") as folder:
        options = [f"-max_total_time={seconds:.0f}", "-max_len=65536", "-rss_limit_mb=2048", "-timeout=20"]
        options.append(f"-artifact_prefix={findings.absolute()}/{name}-")
        command = [sys.executable, "-c", program, name, folder, str(corpus.FOLDER), *options]
        return subprocess.run(command, check=False).returncode != 0


def has_atheris() -> bool:
    """Return whether atheris can be imported."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "hypothesis"]
GRACE = 60  # seconds that a test which has begun may take longer


def property_tests() -> list[str]:
    """Return the tests of hypothesis, without their parameters."""
    found = subprocess.run([*PYTEST, "-n0", "--collect-only"], check=False, capture_output=True, text=True).stdout
    return list(dict.fromkeys(line.partition("[")[0] for line in found.splitlines() if "::" in line))


def one_property(test: str, end: float) -> bool:
    """Run a test with fresh examples, and say how it went; False for a finding."""
    begun = time.monotonic()
    if begun >= end:
        return True
    command = [*PYTEST, "-n0", "--hypothesis-profile=fresh", test]
    try:
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=end + GRACE - begun)
    except subprocess.TimeoutExpired:
        print(f"{test}: stopped after {time.monotonic() - begun:.0f} s, no finding", flush=True)
        return True
    good = run.returncode == 0
    words = "no finding" if good else f"finding: pytest --hypothesis-profile=fresh {test}"
    print(f"{test}: {time.monotonic() - begun:.0f} s, {words}", flush=True)
    if not good:
        print(run.stdout, flush=True)
    return good


def properties(seconds: float, only: list[str]) -> int:
    """Run the tests of hypothesis one by one, in random order, each time with fresh examples; return the findings."""
    end, count, found = time.monotonic() + seconds, 0, 0
    tests = [test for test in property_tests() if not only or any(one in test for one in only)]
    print(f"{len(tests)} tests", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while tests and time.monotonic() < end:
            random.shuffle(tests)
            for good in pool.map(lambda test: (time.monotonic() < end, one_property(test, end)), tests):
                count, found = count + good[0], found + (not good[1])
    print(f"properties: {count} runs of {len(tests)} tests, {found} findings")
    return found


def main() -> int:
    """Run the command; return 1 if there was a finding."""
    options = arguments()
    if options.target == "corpus":
        corpus.write()
        return 0
    if options.target == "hostile":
        return 1 if hostile.matrix(options.only, options.command) else 0
    if options.target == "properties":
        return 1 if properties(options.seconds, options.only) else 0
    names = list(TARGETS) if options.target == "all" else [options.target]
    if options.reproduce is not None:
        for name in names:
            TARGETS[name](options.reproduce.read_bytes())
        return 0
    found = 0
    for name in names:
        share = options.seconds / len(names)
        if has_atheris() and not options.no_atheris:
            found += by_coverage(name, share, options.findings)
        else:
            seed = time.time_ns() & 0xFFFFFFFF if options.seed is None else options.seed
            found += at_random(name, TARGETS[name], share, seed, options.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
