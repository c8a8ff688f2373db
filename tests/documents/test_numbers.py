"""In every document offsets and lengths are integers; addresses, masks and registers are ``"0x..."`` strings."""

import json
import re

import pytest

from qmigtool.cli.main import run
from tests.support import samplefiles

PC, KVM = str(samplefiles.path("pc-7.2")), str(samplefiles.path("kvm-avx512-7.2"))
COUNTED = re.compile(r"(^|_)(offset|offset_a|offset_b|length|size|bytes|pages)$")
MASKS = {"xcr0", "xss", "xstate_bv", "xstate_bv_recomputed", "xcomp_bv", "mxcsr", "mask", "xcr0_mask", "xss_mask"}


def numbers(value, key=""):
    """Give (key, value) of everything in a document but the fields of devices."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name not in ("fields", "a", "b"):
                yield from numbers(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one, key)
    else:
        yield key, value


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", PC],
        ["sections", PC],
        ["show", PC, "cpu@0/env.xcr0"],
        ["xsave", "table", KVM],
        ["xsave", "layouts"],
        ["ram", PC],
        ["diff", PC, KVM, "--ram", "--moved"],
        ["check", KVM, PC],
        ["preflight", KVM, "--target", PC, "--target", "7.2"],
        ["rewrite", KVM, "--dry-run", "--set", "cpu@0/env.mxcsr=0x1fa0"],
        ["info", "BROKEN"],
        ["show", "BROKEN"],
        ["check", "BROKEN"],
    ],
    ids=lambda arguments: "-".join(one.rpartition("/")[2] for one in arguments),
)
def test_every_number_is_of_its_kind(arguments, capsys, tmp_path):
    broken = tmp_path / "broken.mig"
    broken.write_bytes(samplefiles.path("pc-7.2").read_bytes()[:100_000])
    run([*(str(broken) if one == "BROKEN" else one for one in arguments), "--json"])
    found = [(key, one) for key, one in numbers(json.loads(capsys.readouterr().out)) if one is not None]
    wrong = [
        (key, one)
        for key, one in found
        if (COUNTED.search(key) and type(one) is not int)
        or (key in MASKS and not re.fullmatch("0x[0-9a-f]+", str(one)))
    ]
    assert not wrong
    assert any(COUNTED.search(key) for key, _ in found)
