"""`xsave layouts` and layouts out of cores and signal frames."""

import struct

from tests.support import casefiles
from tests.xsave.holders.areas import AREA, core, note, prstatus


def test_a_core_and_its_note_are_layouts(report, tmp_path):
    for name in ("core.elf", "core.xlayout"):
        status, document, _ = report("xsave", "layouts", casefiles.put("xsave", name, tmp_path))
        assert status == 0
        (found,) = document["layouts"]
        assert (found["xcr0_mask"], found["standard_size"]) == ("0xe7", 2432)
    without = tmp_path / "without.core"
    without.write_bytes(core(prstatus(1), note(b"LINUX", 0x202, AREA)))
    status, document, _ = report("xsave", "layouts", without)
    assert (status, document["error"]["message"]) == (
        63, "no layout: an ELF core without a note NT_X86_XSAVE_LAYOUT",
    )  # fmt: skip


def test_a_signal_frame_tells_its_size(report, tmp_path):
    """In a page of 4096 bytes the length tells nothing, the software bytes do."""
    frame = bytearray(AREA + bytes(4096 - len(AREA)))
    frame[832:] = bytes(4096 - 832)  # nothing but AVX in use
    struct.pack_into("<Q", frame, 512, 7)
    path = tmp_path / "frame"
    path.write_bytes(frame)
    assert report("xsave", "check", path, "--layout", "intel-icx")[0] == 0
    struct.pack_into("<IIQI", frame, 464, 0x46505853, 2436, 0xE7, 2432)
    path.write_bytes(frame)
    status, document, _ = report("xsave", "check", path, "--layout", "intel-icx")
    assert status == 1
    assert document["misfits"] == [
        "by the software bytes (464) an area with XCR0 0xe7 has 2432 bytes, but one of intel-icx has 2688"
    ]
    assert report("xsave", "check", path, "--layout", "amd-zen4")[0] == 0
