"""What wraps a stream: recognised by its first bytes, so that it can be named.

Sources: ``src/qemu/qemu_saveimage.h`` of libvirt, ``docs/interop/qcow2.txt`` of QEMU, the formats' own documents.
"""

from __future__ import annotations

__all__ = ["recognise"]

MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"LibvirtQemudSave", "a libvirt save image"),
    (b"LibvirtQemudPart", "an unfinished libvirt save image"),
    (b"QFI\xfb", "a qcow2 image"),
    (b"\x1f\x8b", "gzip compression"),
    (b"BZh", "bzip2 compression"),
    (b"\xfd7zXZ\x00", "xz compression"),
    (b"\x28\xb5\x2f\xfd", "zstd compression"),
    (b"\x04\x22\x4d\x18", "lz4 compression"),
    (b"\x89LZO\x00\r\n\x1a\n", "lzop compression"),
    (b"\xa1\xb2\xc3\xd4", "a pcap capture"),
    (b"\xd4\xc3\xb2\xa1", "a pcap capture"),
    (b"\xa1\xb2\x3c\x4d", "a pcap capture"),
    (b"\x4d\x3c\xb2\xa1", "a pcap capture"),
    (b"\x0a\x0d\x0d\x0a", "a pcapng capture"),
    (b"\x11\x22\x33\x44\x00\x00\x00\x01", "a multifd channel"),
    (b"QCPR", "CPR state (cpr-transfer, cpr-exec)"),
)


def recognise(head: bytes) -> str | None:
    """Return what a file that starts with ``head`` (16 bytes are enough) is, or None if no container is known."""
    return next((what for magic, what in MAGICS if head.startswith(magic)), None)
