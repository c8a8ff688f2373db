"""Areas in what they come in, through every command that takes an AREA; and layouts out of cores."""

import json
import struct
import tracemalloc

import pytest

from tests.cli.calling import KVM
from tests.support import casefiles
from tests.xsave.holders.areas import AREA, NOTE, core, note, prstatus

CORES = ("core.elf", "core.xstate", "xen_xsave.rec", "ch_state.json")


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("layout", [(), ("--layout", "auto"), ("--layout", "amd-zen4")])
def test_check_reads_an_area_out_of_what_holds_it(name, layout, report, tmp_path):
    status, document, _ = report("xsave", "check", casefiles.put("xsave", name, tmp_path), *layout)
    assert status == 0, document
    assert document["fits"]
    assert document["layout"] == (
        "core.elf" if name == "core.elf" and layout != ("--layout", "amd-zen4") else "amd-zen4"
    )
    if name != "core.xstate":
        assert document["notes"][0].startswith(("the area of ", "area 0 in the document"))


@pytest.mark.parametrize("name", CORES)
def test_a_layout_of_another_vendor_is_noticed(name, report, tmp_path):
    status, document, _ = report("xsave", "check", casefiles.put("xsave", name, tmp_path), "--layout", "intel-icx")
    assert (status, document["fits"]) == (1, False)
    if name == "core.elf":
        assert document["misfits"][0] == "the file has opmask at 832, not at 1088"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("win_xstate.bin", "not an XSAVE area: Windows' XSTATE of a CONTEXT_EX"),
        ("core.xlayout", "not an XSAVE area: the layout of one"),
        ("dec.cpuid", "not an XSAVE area: text"),
    ],
)
def test_every_command_names_what_is_no_area(name, words, report, tmp_path):
    path, out = casefiles.put("xsave", name, tmp_path), tmp_path / "out"
    for arguments in (
        ("xsave", "check", path, "--layout", "intel-spr"),
        ("xsave", "check", path),
        ("xsave", "convert", path, out, "--to", "standard", "--layout", "intel-spr"),
        ("xsave", "convert", path, out, "--to", "standard", "--layout", "intel-spr", "--policy", "qemu-v1"),
        ("xsave", "import", KVM, path, "--vcpu", "0", "--layout", "intel-spr", "-o", out),
    ):
        status, document, _ = report(*arguments)
        assert status == 63, arguments
        assert words in document["error"]["message"]
        assert not out.exists()


def test_convert_takes_the_cores_layout_for_the_source(report, tmp_path):
    path, out = casefiles.put("xsave", "core.elf", tmp_path), tmp_path / "out"
    status, document, _ = report("xsave", "convert", path, out, "--to", "standard", "--layout", "intel-icx")
    assert (status, document["layout"], document["size"], document["xstate_bv"]) == (0, "intel-icx", 2696, "0xe7")
    written = out.read_bytes()
    # The registers of AVX-512 have moved from AMD's places to Intel's.
    for bit_size, old, new in ((64, 832, 1088), (512, 896, 1152), (1024, 1408, 1664)):
        assert written[new : new + bit_size] == AREA[old : old + bit_size]
    status, document, _ = report("xsave", "convert", path, out, "--to", "standard", "--layout", "auto")
    assert (status, document["layout"]) == (0, "core.elf")
    assert out.read_bytes()[576:] == AREA[576:]
    for arguments in (("--source-layout", "intel-icx"), ("--source-layout", "intel-icx", "--drop", "avx512")):
        status, document, _ = report(
            "xsave", "convert", path, out, "--to", "standard", "--layout", "intel-icx", *arguments
        )
        assert status == 1
        assert "opmask at 832, not at 1088" in document["error"]["message"]


def test_the_thread_and_the_vcpu_are_chosen(report, tmp_path):
    other = AREA[:24] + struct.pack("<I", 0x3F80) + AREA[28:]
    path = tmp_path / "two.core"
    path.write_bytes(
        core(prstatus(10), note(b"LINUX", 0x202, AREA), prstatus(11), note(b"LINUX", 0x202, other)) + bytes(1 << 21)
    )
    status, document, _ = report("xsave", "check", path)
    assert status == 2
    assert document["error"]["expected"] == "two.core#10, two.core#11"
    out = tmp_path / "out"
    status, document, _ = report("xsave", "convert", f"{path}#11", out, "--to", "standard", "--layout", "amd-zen4")
    assert (status, out.read_bytes()[24:28]) == (0, other[24:28])
    assert report("xsave", "check", f"{path}#12")[0] == 2
    state = tmp_path / "state.json"
    words = list(struct.unpack("<1024I", AREA + bytes(4096 - len(AREA))))
    state.write_text(json.dumps([{"xsave": {"region": words}}, {"xsave": {"region": words}}]))
    assert report("xsave", "check", state)[0] == 2
    status, document, _ = report("xsave", "check", f"{state}#1")
    assert (status, document["notes"][0]) == (0, "area 1 in the document, from 0 (2 in this JSON document)")


@pytest.mark.parametrize("where", ["behind", "before"])
def test_a_large_core_is_not_read_whole(where, report, tmp_path):
    """gdb writes the notes behind the memory, Linux before it."""
    notes = prstatus(10), note(b"LINUX", 0x202, AREA), note(b"LINUX", 0x205, NOTE)
    memory = 300 << 20
    path = tmp_path / "core"
    if where == "before":
        path.write_bytes(core(*notes))
    else:
        whole = bytearray(core(*notes))
        place = struct.unpack_from("<Q", whole, 64 + 56 + 8)[0]
        struct.pack_into("<Q", whole, 64 + 56 + 8, memory)
        path.write_bytes(whole[:place])
        with path.open("r+b") as file:
            file.seek(memory)
            file.write(whole[place:])
    with path.open("r+b") as file:
        file.truncate(memory + (1 << 20))
    tracemalloc.start()
    try:
        status, found, _ = report("xsave", "check", path)
        assert (status, found["layout"]) == (0, "core")
        assert report("xsave", "convert", path, tmp_path / "o", "--to", "compacted", "--layout", "amd-zen4")[0] == 0
        assert report("xsave", "layouts", path)[1]["layouts"][0]["name"] == "core"
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_large_file_that_is_no_core_is_refused(report, tmp_path):
    path = tmp_path / "disk"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    for command in (["check", path], ["layouts", path]):
        status, _, err = report("xsave", *command)
        assert status == 2
        assert "has more than 16777216 bytes" in err
