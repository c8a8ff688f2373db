"""A real save image of libvirt with other XML."""

from tests.support import samplefiles

RAW = samplefiles.container("libvirt-raw.save")
HEAD = 92  # bytes of the header (libvirt: src/qemu/qemu_saveimage.h)


def image(*changes: tuple[bytes, bytes], raw: bytes = RAW) -> bytes:
    """Return the image with other XML; the length of the data and the offset of the cookie follow it."""
    end = raw.index(b"\0", HEAD)
    xml = raw[HEAD:end]
    for old, new in changes:
        assert xml.count(old) == 1
        xml = xml.replace(old, new)
    grown = len(xml) - (end - HEAD)
    cookie = int.from_bytes(raw[32:36], "little")
    length = int.from_bytes(raw[20:24], "little")
    head = raw[:20] + (length + grown).to_bytes(4, "little") + raw[24:32] + (cookie + grown).to_bytes(4, "little")
    return head + raw[36:HEAD] + xml + raw[end:]
