"""Convert many areas at once: one plan, a numpy array of areas in, a numpy array of areas out."""

import sys

import numpy as np

import qmigtool
from qmigtool.xsave import Format, make_plan
from qmigtool.xsave.batch import apply_batch


def main(path: str, count: str) -> None:
    layout = qmigtool.layout("amd-zen4")
    with qmigtool.open(path) as stream:
        area = stream.vcpus[0].xsave.expand(layout)
    plan = make_plan(layout, Format.STANDARD, layout.user_mask, layout, Format.COMPACTED, layout.user_mask)
    areas = np.tile(np.frombuffer(area.data, np.uint8), (int(count), 1))
    compacted = apply_batch(plan, areas)
    print(f"{areas.shape} standard -> {compacted.shape} compacted")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: batch.py FILE COUNT")
    main(*sys.argv[1:])
