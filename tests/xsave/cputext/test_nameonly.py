"""Texts without registers say which command prints them."""

import pytest

from qmigtool.cli.main import run
from qmigtool.errors import XsaveError
from qmigtool.xsave import parse_cpuid_dump
from tests.support import samplefiles
from tests.xsave.cputext.texts import ZEN4, kcpuid

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model name\t: AMD EPYC 9654 96-Core Processor
flags\t\t: fpu vme de pse xsave avx avx2 xsaveopt xsavec xgetbv1 xsaves
bugs\t\t: sysret_ss_attrs
"""


LSCPU = """Architecture:            x86_64
  CPU op-mode(s):        32-bit, 64-bit
Model name:              Intel(R) Core(TM)2 Duo
  Flags:                 fpu vme de sse3
"""


KCPUID = "CPU features:\n=============\n\n\tsse3                \n\txsave               \n\tclflush_size        : 0x8\n"


KCPUID_D = "CPUID_0xd_EAX[0x0]:\n\t xcr0_x87\t- x87 state\n"


LEAF_1 = "CPU:\n   version information (1/eax):\n      family = 0xf\n   miscellaneous (1/ebx):\n      brand id = 0x0\n"


SUBLEAF_2 = "CPU:\n   AVX/YMM features (0xd/2):\n      AVX/YMM save state byte size             = 0x00000100 (256)\n"


WHERE = "but not CPUID leaf 0xD, which has the components' offsets"


@pytest.mark.parametrize(
    ("text", "what", "give"),
    [
        (KCPUID, "kcpuid prints registers only with -r", "`kcpuid -r`"),
        (KCPUID_D, "kcpuid prints registers only with -r", "`kcpuid -r`"),
        (CPUINFO, f"/proc/cpuinfo has a CPU's name and flags (they have xsave), {WHERE}", "`cpuid -1 -r`"),
        (CPUINFO.replace("\n", "\r\n"), "/proc/cpuinfo has a CPU's name and flags (they have xsave)", "`cpuid -1 -r`"),
        ("> " + CPUINFO.replace("\n", "\n> "), "/proc/cpuinfo has a CPU's name and flags", "`cpuid -1 -r`"),
        (
            CPUINFO.split("\n")[4],
            "/proc/cpuinfo has a CPU's name and flags (they have xsave)",
            "| grep x86/fpu`",
        ),
        (CPUINFO.split("\n")[3], f"/proc/cpuinfo has a CPU's name, {WHERE}", "`kcpuid -r`"),
        (LEAF_1, "cpuid's text has (1/eax, 1/ebx) here, but not (0xd/0)", "`cpuid -1 -r`"),
        (SUBLEAF_2, "cpuid's text has (0xd/2) here, but not (0xd/0)", "without -l and -s"),
        (LSCPU, f"lscpu has a CPU's name and flags (they do not have xsave), {WHERE}", "`cpuid -1 -r`"),
    ],
    ids=["kcpuid", "kcpuid-d", "cpuinfo", "crlf", "quoted", "flags-line", "model-line", "leaf-1", "subleaf-2", "lscpu"],
)
def test_texts_without_registers_say_which_command_has_them(text, what, give, tmp_path, capsys):
    with pytest.raises(XsaveError) as raised:
        parse_cpuid_dump(text, "pasted.txt")
    assert what in str(raised.value)
    assert give in (raised.value.expected or "")
    path = tmp_path / "pasted"
    path.write_text(text, encoding="utf-8")
    stream, area = str(samplefiles.path("kvm-avx512-7.2")), str(tmp_path / "area")
    (tmp_path / "area").write_bytes(bytes(4096))
    for command in (
        ["xsave", "layouts", str(path)],
        ["xsave", "check", area, "--layout", str(path)],
        ["preflight", stream, "--target", str(path)],
    ):
        status = run(command)
        err = capsys.readouterr().err
        assert status in (2, 3)
        assert what in err
        assert give in err


def test_registers_count_whatever_else_a_text_has():
    assert parse_cpuid_dump(CPUINFO + KCPUID + kcpuid(ZEN4), "all.txt").leaf == ZEN4.leaf
