"""The four walks in CONTRIBUTING.md are what happens: the functions are entered, in this order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

GUIDE = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALKS = re.findall(r"<!-- walk: (.+) -->\n((?:\d+\. .+\n)+)", GUIDE)

TRACE = """
import sys
entered = []
def profile(frame, event, _):
    if event == "call":
        module = frame.f_globals.get("__name__", "")
        if module.startswith("qmigtool."):
            name = module.removeprefix("qmigtool.") + ":" + frame.f_code.co_qualname
            if name not in seen:
                seen.add(name)
                entered.append(name)
seen = set()
sys.setprofile(profile)
if sys.argv[1] == "qmigtool":
    from qmigtool.cli.main import run
    status = run(sys.argv[2:])
else:
    exec(sys.argv[1])
    status = 0
sys.setprofile(None)
print("\\n".join(entered), file=open("entered", "w"))
sys.exit(status)
"""


def test_there_are_four() -> None:
    assert len(WALKS) == 4


@pytest.mark.parametrize(("start", "steps"), WALKS, ids=lambda text: text.split()[1])
def test_a_walk_enters_its_functions_in_order(start: str, steps: str, tmp_path: Path) -> None:
    start = start.replace("OUT", "out")
    if start.startswith("qmigtool "):
        arguments = [word.replace("SAMPLE", str(sample())) for word in shlex.split(start)]
    else:
        arguments = [start.replace("SAMPLE", repr(str(sample())))]
    subprocess.run(
        [sys.executable, "-c", TRACE, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    entered = (tmp_path / "entered").read_text(encoding="utf-8").splitlines()
    for step in steps.splitlines():
        for name in re.findall(r"`([\w.]+:[\w.]+)`", step):
            assert name in entered
    first = [re.findall(r"`([\w.]+:[\w.]+)`", step)[0] for step in steps.splitlines()]
    assert [name for name in entered if name in first] == first


def sample() -> Path:
    return ROOT / "samples" / "kvm-avx512-7.2.mig"
