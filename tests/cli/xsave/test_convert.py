"""``xsave convert --policy qemu-*``: the bytes and the return value of C, not judged by the command line."""

import json
import struct

import pytest

from qmigtool.cli.main import run
from qmigtool.xsave import compact_xsave_area, layout
from tests.support import casefiles

POLICIES = ("qemu-v1", "qemu-11.1", "qemu-next")
FLAG = 1 << 63


@pytest.fixture
def convert(tmp_path, capsys):
    """Return a function that runs `xsave convert --json`: (exit status, the document, the bytes written or None)."""
    out = tmp_path / "out"

    def call(source, *options):
        out.unlink(missing_ok=True)
        status = run(["xsave", "convert", str(source), str(out), *options, "--json"])
        printed = capsys.readouterr().out
        return status, json.loads(printed) if printed else {}, out.read_bytes() if out.exists() else None

    return call


@pytest.mark.parametrize("policy", POLICIES)
def test_what_c_leaves_need_not_be_a_legal_area(policy, convert, tmp_path):
    area = casefiles.put("xsave", "k1a.compacted", tmp_path)
    options = ("--to", "standard", "--layout", "intel-spr", "--policy", policy, "--size", "3000")
    status, document, written = convert(area, *options)
    assert (status, document["rc"], document["size"], len(written)) == (0, 0, 3000, 3000)
    area = casefiles.put("xsave", "k1c.standard", tmp_path)
    options = ("--to", "compacted", "--layout", "amd-zen2", "--policy", policy)
    status, document, written = convert(area, *options)
    assert (status, document["rc"], document["size"], len(written)) == (0, 896, 4096, 4096)
    assert document["xcomp_bv"] == "0x8000000000000207"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_negative_return_value_is_a_refusal_and_the_bytes_are_written(policy, convert, tmp_path):
    source = tmp_path / "area"
    # Bit 20 is known to no CPU: -EINVAL, after AVX has been copied.
    source.write_bytes(bytes(512) + struct.pack("<QQ", 7, FLAG | 0x100007) + bytes(48) + b"A" * 256 + bytes(100))
    options = ("--to", "standard", "--layout", "intel-spr", "--policy", policy)
    status, document, written = convert(source, *options)
    assert (status, document["rc"]) == (1, -22)
    assert written == bytes(512) + struct.pack("<QQ", 7, 0x100007) + bytes(48) + b"A" * 256 + bytes(4096 - 832)


def test_the_area_may_carry_a_header_that_c_made_of_lbr(convert, tmp_path):
    """LBR's 808 bytes go to offset 0 and over the header: XCOMP_BV and XSTATE_BV are then LBR records."""
    source = tmp_path / "area"
    source.write_bytes(bytes(512) + struct.pack("<QQ", 0x8003, FLAG | 0x8003) + bytes(48) + b"\xff" * 808)
    options = ("--to", "standard", "--layout", "intel-spr", "--policy", "qemu-11.1")
    status, document, written = convert(source, *options)
    assert (status, document["rc"]) == (0, 0)
    assert written == b"\xff" * 808 + bytes(4096 - 808)
    assert (document["xstate_bv"], document["format"]) == ("0xffffffffffffffff", "compacted")


def test_outside_a_buffer_there_is_nothing_to_write(convert, tmp_path):
    source = tmp_path / "area"
    source.write_bytes(bytes(512) + struct.pack("<Q", 7) + bytes(2000))
    options = ("--to", "compacted", "--layout", "intel-icl", "--policy", "qemu-v1")
    status, document, written = convert(source, *options)
    assert (status, written) == (3, None)
    assert document["error"]["message"].startswith("compact_xsave_area() reads 1024 bytes at offset 1664 of xsave_buf")
    assert document["error"]["offset"] == 0x680


def test_masks_have_64_bits(convert, tmp_path):
    source = tmp_path / "area"
    source.write_bytes(bytes(512) + struct.pack("<Q", 3 | FLAG) + bytes(4000))
    ones = f"{(1 << 64) - 1:#x}"
    options = ("--to", "compacted", "--layout", "amd-zen4", "--policy", "qemu-v1", "--guest-xcr0", ones, "--xcr0", ones)
    status, document, written = convert(source, *options)
    every = (1 << 64) - 1
    done = compact_xsave_area(
        source.read_bytes(), host=layout("amd-zen4"), guest_xcr0=every, xcr0=every, buflen=4096, policy="qemu-v1"
    )
    assert (status, document["rc"], written) == (0, done.rc, done.data)
