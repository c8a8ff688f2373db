"""The command: see the docstring of the package."""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz import corpus, hostile, mutation
from tests.fuzz.targets import TARGETS, Target_


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=[*TARGETS, "all", "properties", "corpus", "hostile"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="the folder for findings")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="hostile: only this file")
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
        data = mutation.mutate(rng.choice(inputs), inputs, rng, rng.choice((1, 1, 2, 4, 16)))
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


def properties(seconds: float) -> int:
    """Run every hypothesis test repeatedly, each time with fresh examples."""
    begun, rounds = time.monotonic(), 0
    while not rounds or time.monotonic() - begun < seconds:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-m", "hypothesis", "-p", "no:cacheprovider"]
        status = subprocess.run([*command, "--hypothesis-profile=fresh"], check=False).returncode
        if status:
            return status
        rounds += 1
    print(f"properties: {rounds} rounds in {time.monotonic() - begun:.0f} s, no finding")
    return 0


def main() -> int:
    """Run the command; return 1 if there was a finding."""
    options = arguments()
    if options.target == "corpus":
        corpus.write()
        return 0
    if options.target == "hostile":
        return 1 if hostile.matrix(options.only, options.command) else 0
    if options.target == "properties":
        return properties(options.seconds)
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
