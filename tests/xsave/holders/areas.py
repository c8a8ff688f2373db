"""An area, its layout note, and a writer of ELF cores."""

import struct

from tests.support import casefiles

AREA = casefiles.read("xsave", "core.xstate")


NOTE = casefiles.read("xsave", "core.xlayout")


def note(owner, kind, contents):
    owner += b"\0"
    pad = b"\0" * (-len(owner) % 4), b"\0" * (-len(contents) % 4)
    return struct.pack("<III", len(owner), len(contents), kind) + owner + pad[0] + contents + pad[1]


def prstatus(pid, *, bits=64):
    at = 32 if bits == 64 else 24
    return note(b"CORE", 1, bytes(at) + struct.pack("<I", pid) + bytes(300))


def core(*notes, bits=64, kind=4, before=b""):
    """An ELF core with these notes in one segment, behind one that holds `before`."""
    contents = b"".join(notes)
    if bits == 64:
        start = 64 + 2 * 56
        head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, 2)
        head += bytes(6)
        segments = struct.pack("<IIQQQQQQ", 1, 0, start, 0, 0, len(before), 0, 0)
        segments += struct.pack("<IIQQQQQQ", 4, 0, start + len(before), 0, 0, len(contents), 0, 0)
    else:
        start = 52 + 2 * 32
        head = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHH", kind, 3, 1, 0, 52, 0, 0, 52, 32, 2)
        head += bytes(6)
        segments = struct.pack("<IIIIIIII", 1, start, 0, 0, len(before), 0, 0, 0)
        segments += struct.pack("<IIIIIIII", 4, start + len(before), 0, 0, len(contents), 0, 0, 0)
    return head + segments + before + contents
