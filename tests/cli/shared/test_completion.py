"""Shell completion, in real bash, and that it is fast."""

import os
import shlex
import shutil
import struct
import subprocess
import sys

import pytest

from qmigtool.cli.shared.completion import parse_line, quoted
from tests.support import samplefiles
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
        (f"qmigtool dissect {PC} --section hp", {"hpet@0"}),
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


def image(path, name):
    """Write a qcow2 image whose only snapshot has a name of these bytes."""
    data = bytearray(samplefiles.container("savevm-7.2.qcow2"))
    (entry,) = struct.unpack_from(">Q", data, 64)
    id_size, _ = struct.unpack_from(">HH", data, entry + 12)
    (extra,) = struct.unpack_from(">I", data, entry + 36)
    struct.pack_into(">H", data, entry + 14, len(name))
    at = entry + 40 + extra + id_size
    data[at : at + len(name)] = name
    path.write_bytes(data)


NAMES = ["$(touch${IFS}pwned)", "`touch pwned`", "a;touch pwned", "a b", "a'b;touch pwned;'", 'x"$(touch pwned)"', "*",
         "~", "{a,b}", "!!", "#x", "a,b", "back\\slash", "cpu@0:$(touch pwned)", "&|<>", "\u00e9\u6f22"]  # fmt: skip


@pytest.mark.needs("bash")
@pytest.mark.parametrize("name", NAMES)
def test_bash_expands_nothing_of_a_name(environment, tmp_path, name):
    image(tmp_path / "e.qcow2", name.encode())
    (word,) = bash(environment, f"qmigtool info {tmp_path}/e.qcow2 --snapshot ")
    script = f"touch one two; printf '%s\\n' {word}"
    done = subprocess.run(["bash", "--norc", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{name}\n"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.needs("bash")
@pytest.mark.parametrize("name", [b"x\nplain,x", b"\x1b[31m", b"a\tb", "\u202ex".encode()])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_names_that_no_terminal_shows_are_not_offered(environment, tmp_path, shell, name):
    image(tmp_path / "e.qcow2", name)
    line = f"qmigtool info {tmp_path}/e.qcow2 --snapshot "
    asking = {"_QMIGTOOL_COMPLETE": f"{shell}_complete", "QMIGTOOL_LINE": line, "COMP_WORDS": line}
    asking["COMP_CWORD"] = "" if shell == "fish" else "4"
    done = subprocess.run(["qmigtool"], env={**environment, **asking}, capture_output=True, check=False)
    if shell != "powershell":  # older versions of click do not have it
        assert done.returncode == 0
    assert done.stdout.strip() == b""


def test_names_that_are_not_utf8_are_not_offered(environment, tmp_path):
    path = tmp_path / "s.mig"
    path.write_bytes(samplefiles.read("pc-7.2").replace(b"pc.rom", b"pc.r\xffm"))
    line = f"qmigtool rewrite {path} --drop-block pc.r"
    asking = {**environment, "_QMIGTOOL_COMPLETE": "bash_complete", "QMIGTOOL_LINE": line}
    done = subprocess.run(["qmigtool"], env=asking, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,pc.ram\n"
    assert done.stderr == ""


@pytest.mark.needs("bash")
def test_a_name_in_quotes(environment, tmp_path):
    image(tmp_path / "e.qcow2", b"it's $(x) `y` !z")
    for mark, end in (("'", "'"), ('"', '"'), ("--snapshot=", "")):
        option = "" if "=" in mark else "--snapshot "
        (word,) = bash(environment, f"qmigtool info {tmp_path}/e.qcow2 {option}{mark}it")
        whole = f"{mark}{word}{end}" if option else word
        done = subprocess.run(
            ["bash", "--norc", "-c", f"printf %s {whole}"], capture_output=True, text=True, check=True
        )
        assert done.stdout == "it's $(x) `y` !z"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("q a ", (["a"], "", 0, "")),
        ("q a b@1:x", (["a"], "b@1:x", 4, "")),
        (r"q a\ b\@c", ([], "a b@c", 0, "")),
        ("q 'a b'@c", ([], "a b@c", 4, "")),
        ("q 'a b'c", ([], "a bc", 0, "")),
        ("q x 'a@b c", (["x"], "a@b c", 0, "'")),
        ('q x@"a\\$b', ([], "x@a$b", 2, '"')),
        ("q '' ", ([""], "", 0, "")),
        ("q \\", ([], "", 0, "")),
    ],
)
def test_a_line_is_taken_apart_as_bash_does(line, expected):
    assert parse_line(line, "@:=") == expected


@pytest.mark.parametrize("name", NAMES)
def test_quotes(name):
    assert shlex.split(quoted(name)) == [name]
    assert shlex.split(f"'{quoted(name, chr(39))}'") == [name]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell", "no-shell"])
def test_without_its_variables(environment, shell):
    for more in ({}, {"COMP_WORDS": "q", "COMP_CWORD": "x"}, {"COMP_WORDS": "q '", "COMP_CWORD": " "}):
        asking = {**environment, "_QMIGTOOL_COMPLETE": f"{shell}_complete", **more}
        done = subprocess.run(["qmigtool"], env=asking, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 2)
        assert len(done.stderr.splitlines()) <= 1
        if not more and shell in ("bash", "zsh", "fish"):
            assert done.returncode == 2
            assert "_QMIGTOOL_COMPLETE is set" in done.stderr


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
