"""Files that contain an XSAVE area among other data: recognised by content, then read or named in an error.

===========  ====================================================================================================
model        an area that was found: its bytes, and the layout and XCR0 in its file
elfcore      an ELF core: notes NT_X86_XSTATE and NT_X86_XSAVE_LAYOUT, one area for each thread
xenrecord    Xen's HVM save record of a vCPU's extended state
vmmjson      JSON of other virtual machine monitors (Cloud Hypervisor's cpu_states)
windows      Windows' XSTATE of a CONTEXT_EX, which is recognised but not read: x87 and SSE are elsewhere
software     the bytes 464-511 of the legacy region, in which Linux records the area's components
===========  ====================================================================================================

:func:`find_area` tries them in turn. A file that is none of them is treated as a plain area.
"""

from __future__ import annotations

from mmap import mmap

from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.xsave.holders.elfcore import find_in_core, is_core, is_layout_note
from qmigtool.xsave.holders.model import FoundArea
from qmigtool.xsave.holders.vmmjson import find_in_json, is_json
from qmigtool.xsave.holders.windows import is_windows_xstate
from qmigtool.xsave.holders.xenrecord import find_in_xen, is_xen_pv, is_xen_xsave

__all__ = ["FoundArea", "find_area"]

NAMED = {
    b"QEVM": "a migration stream (`xsave export` extracts an area from it)",
    b"MDMP": "a Windows minidump",
    b"PAGEDU": "a Windows crash dump",
    b"KDUMP   ": "a kdump file",
    b"\x7fELF": "an ELF file",
}
"""First bytes of files that cannot be an area and are not read."""


def find_area(data: bytes | mmap, name: str, choice: str | None = None) -> FoundArea:
    """Return the area in a file; ``name`` is the file's name, ``choice`` selects one of several (a thread, a vCPU).

    Raises UnsupportedError ("not an XSAVE area: ...") for a recognised file without a readable area, UsageError if
    there are several and none is selected, or no such one, and the errors of the format's reader.
    """
    if is_core(data):
        return find_in_core(data, name, choice)
    data = bytes(data)
    if is_json(data):
        return find_in_json(data, name, choice)
    if choice is not None:
        raise UsageError(f"{name} has nothing to select", expected="no # after the name")
    if is_xen_xsave(data):
        return find_in_xen(data, name)
    what = next((what for magic, what in NAMED.items() if data.startswith(magic)), None)
    if what is None and is_layout_note(data):
        what = "the layout of one (an NT_X86_XSAVE_LAYOUT note), which --layout accepts"
    if what is None and is_windows_xstate(data):
        what = (
            "Windows' XSTATE of a CONTEXT_EX: the header and the extended region, in compacted format; x87, MXCSR and "
            "XMM are in the CONTEXT"
        )
    if what is None and is_xen_pv(data):
        what = "Xen's record of a PV vCPU's extended state"
    if what is None and _is_text(data):
        what = "text (a CPUID dump goes to --layout)"
    if what is not None:
        raise UnsupportedError(f"an XSAVE area in {what}", f"not an XSAVE area: {what}", section=name)
    return FoundArea(data)


def _is_text(data: bytes) -> bool:
    """Return whether all bytes are those of text: every area has zeros."""
    return len(data) > 0 and not data.translate(None, bytes(range(0x20, 0x7F)) + b"\t\n\r\f")
