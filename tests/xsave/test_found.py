"""``--layout auto`` where there is no area to read, and where layouts differ in the target format alone."""

import pytest

from qmigtool.cli.main import run
from tests.support import samplefiles

KVM = str(samplefiles.path("kvm-avx512-7.2"))


@pytest.fixture
def call(capsys):
    def go(*arguments):
        status = run(list(arguments))
        return status, *capsys.readouterr()

    return go


@pytest.mark.parametrize(
    "words",
    [
        ("layouts", "auto"),
        ("table", KVM, "--layout", "auto"),
        ("export", KVM, "--vcpu", "0", "--layout", "AUTO", "--format", "standard", "-o", "unwritten"),
    ],
)
def test_auto_is_refused_where_no_area_is_read(call, words):
    status, _, err = call("xsave", *words)
    assert status == 2
    assert "auto is for commands that read an area (xsave check, convert, import)" in err


def test_layouts_that_differ_in_the_target_format_are_named_with_the_option(call, tmp_path):
    area, out = tmp_path / "area", tmp_path / "out"
    export = ("--vcpu", "0", "--layout", "amd-zen4", "--format", "compacted")
    assert call("xsave", "export", KVM, *export, "-o", str(area))[0] == 0
    status, _, err = call("xsave", "convert", str(area), str(out), "--to", "standard")
    assert (status, out.exists()) == (63, False)
    assert "several layouts fit this area and read it alike, but arrange the result differently: amd-zen4 " in err
    assert "(expected --layout amd-zen4 or --layout intel-skx)" in err
    for layout in ("amd-zen4", "intel-skx"):
        assert call("xsave", "convert", str(area), str(out), "--to", "standard", "--layout", layout)[0] == 0


@pytest.mark.parametrize("command", ["convert", "import"])
def test_help_names_its_arguments_and_63(call, command):
    _, out, _ = call("xsave", command, "--help")
    assert "63" in out
    assert ("AREA" in out) == (command == "import")
