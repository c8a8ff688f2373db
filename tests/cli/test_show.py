"""`show`: its document, one value, and paths that lead nowhere."""

import subprocess
import sys

import pytest

from tests.cli.calling import PC, document


def test_show(call):
    found = document(call("show", PC, "cpu@3/env.xcr0", "--json"))
    assert found["devices"] == [
        {"name": "cpu", "instance_id": 3, "version_id": 12, "fields": {"env.xcr0": "0x7"}},
    ]
    assert (found["field"]["type"], found["field"]["kind"], found["field"]["length"]) == ("uint64", "leaf", 8)
    everything = document(call("show", PC, "--json"))["devices"]
    assert len(everything) == 40
    assert all(set(device) == {"name", "instance_id", "version_id", "fields"} for device in everything)
    assert everything[0]["name"] == "timer"


def test_one_number_is_printed_as_one_number(call):
    assert call("show", PC, "cpu/env.xcr0")[1] == "0x21f\n"
    assert call("show", PC, "cpu@3/env.xcr0")[1] == "0x7\n"


def test_a_reader_that_goes_away():
    """More than a pipe holds: else all may be written before the reader is gone."""
    with subprocess.Popen(
        [sys.executable, "-m", "qmigtool", "show", PC, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
    assert b"Traceback" not in err
    assert err == b""
    assert process.returncode == 2  # not all was written


def test_show_says_which_of_several_instances_it_shows(call):
    said = "qmigtool: 4 instances of cpu; cpu@0 shown (NAME@INSTANCE shows another)\n"
    assert call("show", PC, "cpu")[2] == said
    assert call("show", PC, "cpu/env.xcr0")[2] == said
    assert call("show", PC, "cpu/env.xcr0", "--json")[2] == said
    assert call("show", PC, "cpu@0/env.xcr0")[2] == ""
    assert call("show", PC, "cpu@3")[2] == ""
    assert call("show", PC, "timer")[2] == ""


def test_show_says_where_names_are(call):
    status, _, err = call("show", PC, "rtc")
    assert status == 2
    assert "no device 'rtc'" in err
    assert "`qmigtool show FILE` lists them" in err


@pytest.mark.parametrize("path", ["cpu@0/avx512", "cpu@0/cpu/avx512", "cpu@0/cpu/avx512/env.opmask_regs"])
def test_show_says_that_a_subsection_was_not_sent(call, path):
    status, _, err = call("show", PC, path)
    assert status == 2
    assert "cpu@0 has no subsection cpu/avx512 in this stream" in err
    status, _, err = call("show", PC, "cpu@0/avx51")
    assert (status, "subsection" in err) == (2, False)


def test_show_says_which_instances_there_are(call):
    status, _, err = call("show", PC, "cpu@9")
    assert status == 2
    assert "no instance 9 of device 'cpu' (expected cpu@0, cpu@1, cpu@2, cpu@3)" in err
