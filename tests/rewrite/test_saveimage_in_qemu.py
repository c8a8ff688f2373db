"""A libvirt save image whose stream real QEMU (9.0 or later) loads from where libvirt has it, after every rewrite.

With save_image_format=sparse libvirt has QEMU write mapped-ram behind the head (``file:IMAGE,offset=N``), and load it
from there; with raw it hands QEMU the image's file descriptor behind the head, as ``tail`` does here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
from pathlib import Path

import pytest

import qmigtool
from qmigtool.parsers.saveimage import SaveFormat, read_save_image
from qmigtool.rewrite import Rewriter
from tests.support.qemu.machine import Machine, Qemu, QemuError

pytestmark = pytest.mark.qemu

SIZE = 16 << 20
MACHINE = Machine(machine="pc")
DATA = 4096 - 92  # bytes of XML and padding: the stream begins at 0x1000


def mapped_ram(qemu: Qemu) -> None:
    """Switch mapped-ram on; skip where QEMU has none."""
    try:
        qemu.execute("migrate-set-capabilities", capabilities=[{"capability": "mapped-ram", "state": True}])
    except QemuError as error:
        pytest.skip(f"this QEMU has no mapped-ram: {error}")


@pytest.fixture(scope="module", params=["QMIGTOOL_QEMU", "QMIGTOOL_QEMU_NEW"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Path]:
    """Return a save image, the guest's memory, and the QEMU that has saved it."""
    named = os.environ.get(request.param) or ("qemu-system-x86_64" if request.param == "QMIGTOOL_QEMU" else "")
    binary = shutil.which(named) if named else None
    if binary is None:
        pytest.skip(f"{request.param} names no QEMU")
    path = tmp_path_factory.mktemp("libvirt") / "vm.save"
    xml = b"<domain/>".ljust(DATA, b"\0")
    head = b"LibvirtQemudSave" + struct.pack("<5I", 2, DATA, 1, SaveFormat.SPARSE, 0) + bytes(56)
    path.write_bytes(head + xml)
    with Qemu(MACHINE, binary=Path(binary)) as qemu:
        mapped_ram(qemu)
        qemu.cont()
        qemu.wait_for("the firmware to leave a trace", lambda: any(qemu.pmemsave(0x400, 0x100)))
        qemu.stop()
        memory = qemu.pmemsave(0, SIZE)
        qemu.execute("migrate", uri=f"file:{path},offset={92 + DATA:#x}")
        qemu.wait_for("the migration", lambda: qemu.execute("query-migrate").get("status") == "completed")
    assert path.read_bytes()[: len(head)] == head
    return path, memory, Path(binary)


def restored(binary: Path, path: Path) -> bytes:
    """Load an image as libvirt does by what its head says; return the guest's memory."""
    with qmigtool.open(path) as stream:
        found = read_save_image(stream.source)
    with Qemu(MACHINE, incoming=True, binary=binary) as qemu:
        if found.format is SaveFormat.SPARSE:
            mapped_ram(qemu)
            uri = f"file:{path},offset={found.stream_offset:#x}"
        else:
            uri = f"exec:tail -c +{found.stream_offset + 1} {shlex.quote(str(path))}"
        qemu.execute("migrate-incoming", uri=uri)
        qemu.wait_for("the incoming migration", lambda: qemu.status() != "inmigrate")
        return qemu.pmemsave(0, SIZE)


@pytest.mark.parametrize("edits", [(), ("plain",), ("plain", "mapped-ram"), ("set",), ("drop",), ("name",)])
def test_qemu_loads_what_is_made_of_it(image: tuple[Path, bytes, Path], edits: tuple[str, ...], tmp_path: Path) -> None:
    path, memory, binary = image
    for number, one in enumerate(edits):
        out = tmp_path / f"{number}.save"
        with qmigtool.open(path) as stream:
            rewriter = Rewriter(stream)
            if one == "set":
                rewriter.set("cpu@0/env.mxcsr", 0x1FA0)
            elif one == "drop":
                rewriter.drop_section("timer@0")
            elif one == "name":  # as long as it was or not, RAM's pages follow it
                rewriter.machine_type(f"{stream.machine}-longer")
            else:
                rewriter.ram(one)
            rewriter.save(out)
        path = out
    if edits == ("name",):
        with qmigtool.open(path) as stream:
            rewriter = Rewriter(stream)
            rewriter.machine_type(stream.machine.removesuffix("-longer"))
            rewriter.save(tmp_path / "back.save")
        path = tmp_path / "back.save"
    assert restored(binary, path) == memory
