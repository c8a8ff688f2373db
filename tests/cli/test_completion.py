"""Shell completion, in real bash, and that it is fast."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PC = "samples/pc-7.2.mig"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "qmigtool"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m qmigtool "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def bash(environment, line):
    """Return what bash would offer where the cursor is at the end of ``line``."""
    script = r"""
eval "$(_QMIGTOOL_COMPLETE=bash_source qmigtool)"
function compopt { printf 'option %s\n' "$2"; }
COMP_LINE=$1
COMP_POINT=${#COMP_LINE}
f=$(complete -p qmigtool | sed 's/.*-F \([^ ]*\).*/\1/')
"$f" qmigtool
printf '%s\n' "${COMPREPLY[@]}"
"""
    command = ["bash", "--norc", "-c", script, "bash", line]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.needs("bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("qmigtool x", {"xsave"}),
        ("qmigtool xsave l", {"layouts"}),
        ("qmigtool check --list", {"--list-rules"}),
        ("qmigtool info ", {"option default"}),
        ("qmigtool info --quick samples/p", {"option default"}),
        ("qmigtool rewrite x --layout amd-zen", {"amd-zen1", "amd-zen4"}),
        ("qmigtool rewrite x --layout ./s", {"option default"}),
        (f"qmigtool show {PC} ap", {"apic@0", "apic@3"}),
        (f"qmigtool show {PC} cpu@1/env.xc", {"1/env.xcr0"}),
        (f"qmigtool show {PC} cpu@1/cpu/", {"option nospace"}),
        (f"qmigtool show {PC} 0000:00:01.3/piix4_pm@0/ar.pm1.c", {"0/ar.pm1.cnt.cnt"}),
        (f"qmigtool rewrite {PC} --set cpu@0/env.mx", {"option nospace", "0/env.mxcsr="}),
        (f"qmigtool rewrite {PC} --drop-section hp", {"hpet@0"}),
        (f"qmigtool rewrite {PC} --drop-block pc.r", {"pc.ram", "pc.rom"}),
        ("qmigtool rewrite x --to-accelerator m", {"mshv"}),
        ("qmigtool rewrite x --to-accelerator ", {"kvm", "tcg", "mshv", "whpx"}),
        ("qmigtool info x --accelerator k", {"kvm"}),
        ("qmigtool xsave check x --consumer XRSTOR", {"XRSTOR", "XRSTORS"}),
        ("qmigtool diff a b --count clo", {"clock"}),
        ("qmigtool show samples/containers/savevm-7.2.qcow2.xz --snapshot s", {"snap1"}),
        ("qmigtool show no-such-file cpu@", set()),
        ("qmigtool xsave convert a b --to com", {"compacted"}),
    ],
)
def test_bash(environment, line, offered):
    found = bash(environment, line)
    assert offered <= {*found}, found
    if "no-such" in line:
        assert found == [""]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(environment, shell):
    asking = {**environment, "_QMIGTOOL_COMPLETE": f"{shell}_source"}
    source = subprocess.run(["qmigtool"], env=asking, capture_output=True, text=True, check=True).stdout
    assert "qmigtool" in source
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    subprocess.run([shell, "-n", "-c", source], check=True, capture_output=True)


def test_names_complete_without_the_commands():
    program = """
import sys
from qmigtool.cli.main import run
run([])
print([m for m in sys.modules if m.startswith(('qmigtool.stream', 'qmigtool.rewrite', 'numpy'))], file=sys.stderr)
"""
    asking = {"_QMIGTOOL_COMPLETE": "bash_complete", "QMIGTOOL_LINE": "qmigtool xs", "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **asking},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "plain,xsave\n"
    assert done.stderr == "[]\n"
