"""Component presence across vCPUs, as a pandas pivot: live state that a vCPU does not declare."""

import sys

import qmigtool


def main(path: str) -> None:
    with qmigtool.open(path) as stream:
        frame = qmigtool.tables.xsave_components(stream)
    frame["lost_by_kvm"] = frame["live"] & ~frame["declared"]
    print(frame.pivot(index="vcpu", columns="name", values="lost_by_kvm").to_string())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: presence.py FILE")
    main(*sys.argv[1:])
