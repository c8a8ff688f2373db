import gzip
import lzma

import pytest

from qmigtool.parsers.container import recognise


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"LibvirtQemudSave\x02\0\0\0", "libvirt"),
        (b"LibvirtQemudPart\x02\0\0\0", "unfinished libvirt"),
        (b"QFI\xfb\0\0\0\x03", "qcow2"),
        (gzip.compress(b"x"), "gzip"),
        (b"BZh91AY&SY", "bzip2"),
        (lzma.compress(b"x"), "xz"),
        (bytes.fromhex("28b52ffd0458"), "zstd"),
        (bytes.fromhex("04224d18"), "lz4 compression"),
        (bytes.fromhex("02214c18"), "legacy format of lz4"),
        (bytes.fromhex("502a4d1804000000"), "skippable"),
        (bytes.fromhex("5f2a4d1800000000"), "skippable"),
        (bytes.fromhex("894c5a4f000d0a1a0a"), "lzop"),
        (bytes.fromhex("a1b2c3d4"), "pcap"),
        (bytes.fromhex("d4c3b2a1"), "pcap"),
        (bytes.fromhex("a1b23c4d"), "pcap"),
        (bytes.fromhex("4d3cb2a1"), "pcap"),
        (bytes.fromhex("0a0d0d0a"), "pcapng"),
        (bytes.fromhex("1122334400000001"), "multifd"),
        (b"LUKS\xba\xbe\0\2", "LUKS"),
        (b"QED\0\0\0\1\0", "QED"),
        (b"KDMV\1\0\0\0", "VMDK"),
        (b"vhdxfileQ\0", "VHDX"),
        (b"QCPR\0\0\0\x01", "CPR"),
    ],
)
def test_each_by_its_first_bytes(head, words):
    found = recognise(head[:16])
    assert found is not None
    assert words in found.what
    assert recognise(b"\0" + head) is None


@pytest.mark.parametrize("head", [b"", b"Q", b"QEVM\0\0\0\x03", b"LibvirtQemudSav", bytes(16), b"QFI", b"\x1f"])
def test_no_container(head):
    assert recognise(head) is None
