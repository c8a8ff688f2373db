"""Commands that print tables, and what they print."""

from qmigtool.cli.main import run

PC, KVM = ("samples/pc-7.2.mig", "samples/kvm-avx512-7.2.mig")
KVM_TWIN, TCG_TWIN = ("samples/twin-kvm-10.0.mig", "samples/twin-tcg-10.0.mig")
TARGET = "samples/target.toml"
TABLES = [
    ["diff", KVM_TWIN, TCG_TWIN],
    ["diff", "--list-noise"],
    ["preflight", TCG_TWIN, "--target", TARGET],
    ["check", PC, "--policy", "samples/policy.toml"],
    ["check", "--list-rules"],
    ["sections", PC],
    ["show", PC],
    ["info", PC, KVM],
    ["info", KVM],
    ["ram", PC],
    ["xsave", "table", PC],
    ["xsave", "table", PC, KVM, "--layout", "amd-zen4"],
    ["xsave", "layouts"],
    ["xsave", "check", "samples/areas/zen4-avx512.compacted.bin", "--layout", "amd-zen4"],
    ["xsave", "check", "samples/areas/zen4-avx512.compacted.bin", "--layout", "amd-zen4", "--xcr0", "7"],
    ["xsave", "layouts", "intel-spr"],
    ["schema", "diff", PC, "samples/pc-11.1.mig"],
    ["rewrite", PC, "--set", "cpu@0/env.mxcsr=0x1fa0", "--dry-run"],
]


def names(arguments):
    return " ".join(arguments[:2])


def printed(capsys, *arguments):
    run([*arguments])
    return capsys.readouterr().out
