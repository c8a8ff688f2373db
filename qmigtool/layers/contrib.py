"""QEMU migration streams: every record, and what reads a file into packets.

scapy loads this file as ``scapy.contrib.qemu_migration``, after ``conf.exts.load("qmigtool")``; see
:func:`qmigtool.scapy_ext`. It only has the names: the classes are those of :mod:`qmigtool.layers`.
"""

# scapy.contrib.description = QEMU migration streams
# scapy.contrib.status = loads

from qmigtool.layers import channels, known, reading
from qmigtool.layers.channels import *  # noqa: F403
from qmigtool.layers.known import *  # noqa: F403
from qmigtool.layers.reading import *  # noqa: F403

__all__ = [*known.__all__, *reading.__all__, *channels.__all__]
