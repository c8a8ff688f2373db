"""``python -m tests.bench [GROUP...]``: measure and print; see the head of the package."""

from __future__ import annotations

import importlib
import platform
import sys
import time

from tests.bench.measure import show

GROUPS = ("decode", "ram", "memory", "ramdiff", "batch", "processes", "rewriting", "captures")


def main(names: list[str]) -> int:
    """Run the groups named, or all."""
    unknown = set(names) - set(GROUPS)
    if unknown:
        print(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    print(f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}\n")
    start = time.perf_counter()
    for name in names or GROUPS:
        group = importlib.import_module(f"tests.bench.{name}")
        show(group.TITLE, group.figures())
    print(f"{time.perf_counter() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
