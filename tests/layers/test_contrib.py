"""``conf.exts.load("qmigtool")``."""

import json
import subprocess
import sys

from tests.support.paths import SAMPLES

LOAD = """
import json, sys
from scapy.config import conf
conf.exts.load("qmigtool")
from scapy.contrib.qemu_migration import *
import qmigtool.layers.known
from scapy.main import load_contrib
load_contrib("qemu_migration")
packets = rdqmig(sys.argv[1], count=3)
assert FileHeader is qmigtool.layers.known.FileHeader
print(json.dumps([repr(conf.exts), bytes(FileHeader()).hex(), [p.name for p in packets]]))
"""


def test_the_extension_is_loaded():
    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(SAMPLES / "pc-7.2.mig")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    listed, head, names = json.loads(done.stdout)
    assert "scapy.contrib.qemu_migration" in listed
    assert head == "5145564d00000003"
    assert names == ["FileHeader", "ItemType", "ItemType"]
