"""The compacted area of every vCPU for MSHV_SET_VP_STATE: sized for the layout and padded to whole pages."""

import sys
from pathlib import Path

import qmigtool
from qmigtool.xsave import mshv_buffer_size, parse_mask


def main(path: str, layout_name: str, mask: str, folder: str) -> None:
    layout = qmigtool.layout(layout_name)
    with qmigtool.open(path) as stream:
        for vcpu in stream.vcpus:
            # Raises LiveStateError, with the names, for live components that the mask does not have.
            area = vcpu.xsave.compact(layout, mask=parse_mask(mask))
            size = mshv_buffer_size(len(area.data))
            Path(folder, f"vcpu{vcpu.index}.xsave").write_bytes(area.data.ljust(size, b"\0"))
            print(f"vCPU {vcpu.index}: XCOMP_BV {area.xcomp_bv:#x}, {len(area.data)} bytes in a buffer of {size}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: compact_all.py FILE LAYOUT MASK FOLDER")
    main(*sys.argv[1:])
