"""See the package: ``python -m tests.fleet COMMAND ...``."""

from __future__ import annotations

import sys

from tests.fleet import judge, make, offers, pack, remedies, vmsds

COMMANDS = {
    "judge": judge.main,
    "make": make.main,
    "offers": offers.main,
    "pack": pack.main,
    "remedies": remedies.main,
    "vmsds": vmsds.main,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m tests.fleet {'|'.join(COMMANDS)} ...")
    COMMANDS[sys.argv[1]](*sys.argv[2:])
