"""What a stream came in: memory of several channels, libvirt's header, and what was taken off."""

import struct
from pathlib import Path

import pytest

import qmigtool
from qmigtool.diff.ram import compare_ram
from qmigtool.errors import UnsupportedError
from qmigtool.rewrite import Rewriter
from tests.rewrite.conftest import Call
from tests.rewrite.editing import writer
from tests.support import casefiles
from tests.support.packedsamples import packed
from tests.support.paths import SAMPLES
from tests.support.ramwriter import channel, filled, multifd_main, packet
from tests.support.streamwriter import PAGE, Vmsd, num

CONTAINERS = SAMPLES / "containers"
DEVICE = ("dev", 0, Vmsd("dev", 1, [num("a", "uint32", 5)]))


def container(name: str, folder: Path) -> Path:
    import lzma

    path = folder / name
    path.write_bytes(lzma.decompress((CONTAINERS / f"{name}.xz").read_bytes()))
    return path


def same_memory(one: Path, other: Path) -> bool:
    with qmigtool.open(one) as a, qmigtool.open(other) as b:
        return b.complete and compare_ram(a, b).same


# -- several channels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["multifd-10.0.pcap", "postcopy-10.0.pcap"])
@pytest.mark.parametrize("edits", [(), ("--set", "cpu@0/env.mxcsr=0x1fa0")])
def test_a_capture_is_written_with_all_its_memory(
    name: str, edits: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    source, out = container(name, tmp_path), tmp_path / "out.mig"
    code, _, err = call("rewrite", source, *edits, "-o", out)
    assert code == 0
    assert "written as plain records (--ram plain)" in err
    assert same_memory(source, out)
    with qmigtool.open(out) as stream:
        assert stream.container.name == "raw"
        assert stream.ram.channels == 1
        assert not [one for one in stream.sections if (one.name or "").startswith(("POSTCOPY", "PACKAGED"))]


def main_and_channel(folder: Path) -> tuple[Path, Path]:
    main, other = folder / "main", folder / "channel"
    main.write_bytes(multifd_main(1, 2).finish())
    other.write_bytes(channel(3, packet([0, PAGE], filled(1) + filled(2))))
    return main, other


def test_a_main_channel_alone_is_refused(call: Call, tmp_path: Path) -> None:
    main, other = main_and_channel(tmp_path)
    for edits in ((), ("--machine-type", "pc-q35-7.2")):
        code, _, err = call("rewrite", main, *edits, "-o", tmp_path / "out")
        assert code == 63
        assert "2 pages of 'r' are missing" in err
        assert not (tmp_path / "out").exists()
    assert call("rewrite", main, "--channel", other, "-o", tmp_path / "out")[0] == 0
    with qmigtool.open(tmp_path / "out") as stream:
        assert bytes(stream.ram.page("r", 0)) == filled(1)
        assert bytes(stream.ram.page("r", PAGE)) == filled(2)
    code, _, _ = call("rewrite", main, "--ram", "plain", "--absent", "zero", "-o", tmp_path / "zero")
    assert code == 0


def test_a_real_main_channel_alone_is_refused(call: Call, tmp_path: Path) -> None:
    path = casefiles.put("load", "mfddest-10.0.mig", tmp_path)
    code, _, err = call("rewrite", path, "--drop-section", "timer", "-o", tmp_path / "out")
    assert code == 63
    assert "6144 pages of 'pc.ram'" in err


@pytest.mark.parametrize("name", ["multifd-none-7.2", "postcopy-preempt-11.1"])
def test_channels_that_are_given_are_joined(name: str, call: Call, tmp_path: Path) -> None:
    sample = packed(name)
    channels = [word for number, one in enumerate(sample.channels) for word in _channel(tmp_path, number, one)]
    assert call("rewrite", sample.path, *channels, "-o", tmp_path / "out")[0] == 0
    with qmigtool.open(sample.path, channels=sample.channels) as a, qmigtool.open(tmp_path / "out") as b:
        assert compare_ram(a, b).same
    assert call("rewrite", sample.path, "-o", tmp_path / "alone")[0] == 63


def _channel(folder: Path, number: int, data: object) -> tuple[str, str]:
    if isinstance(data, (str, Path)):
        return "--channel", str(data)
    path = folder / f"channel{number}"
    path.write_bytes(bytes(data))  # type: ignore[call-overload]
    return "--channel", str(path)


def test_pages_that_were_never_sent_prove_nothing(call: Call, tmp_path: Path) -> None:
    """With free-page-hinting a guest's unused memory is not sent: the stream is copied as it is."""
    w = writer(DEVICE)
    data = w.finish().replace(struct.pack(">Q", PAGE | 0x02) + b"\x01r\0", b"")
    (tmp_path / "in").write_bytes(data)
    with qmigtool.open(tmp_path / "in") as stream:
        assert stream.complete
        assert stream.ram.absent("r") == 1
    assert call("rewrite", tmp_path / "in", "-o", tmp_path / "out")[0] == 0
    assert (tmp_path / "out").read_bytes() == data
    assert call("rewrite", tmp_path / "in", "--set", "dev/a=6", "-o", tmp_path / "out")[0] == 0


def test_in_python(tmp_path: Path) -> None:
    main, other = main_and_channel(tmp_path)
    with qmigtool.open(main) as stream, pytest.raises(UnsupportedError, match="2 pages"):
        Rewriter(stream).gather()
    with qmigtool.open(main, channels=[other]) as stream:
        rewriter = Rewriter(stream)
        rewriter.gather()
        rewriter.gather()
        assert [one.edit for one in rewriter.changes] == ["ram"]
        rewriter.save(tmp_path / "out")
    assert same_memory(tmp_path / "out", tmp_path / "out")


# -- libvirt's header -------------------------------------------------------------------------------------------------


def head(path: Path) -> tuple[int, ...]:
    return struct.unpack("<5I", path.read_bytes()[16:36])


def test_the_head_follows_the_format_of_memory(call: Call, tmp_path: Path) -> None:
    """libvirt 9.0 restored what was made plain here; 10.0 loads the mapped-ram one from its offset in the image."""
    sparse = Path(casefiles.put("load", "libvirt11-sparse.save", tmp_path))
    plain, again = tmp_path / "plain.save", tmp_path / "again.save"
    assert head(sparse)[3] == 6
    code, out, _ = call("rewrite", sparse, "--ram", "plain", "-o", plain)
    assert code == 0
    assert "libvirt header: format" in out
    assert head(plain) == (*head(sparse)[:3], 0, head(sparse)[4])
    assert same_memory(sparse, plain)
    assert call("rewrite", plain, "--ram", "mapped-ram", "-o", again)[0] == 0
    assert head(again) == head(sparse)
    assert same_memory(sparse, again)
    for path, form in ((plain, "raw"), (again, "sparse")):
        with qmigtool.open(path) as stream:
            assert stream.container.details["format"] == form
            assert stream.source.whole[92 : 92 + 1227] == sparse.read_bytes()[92 : 92 + 1227]


def test_other_edits_leave_the_head(call: Call, tmp_path: Path) -> None:
    for name in ("libvirt11-sparse.save", "raw"):
        source = (
            container("libvirt-raw.save", tmp_path) if name == "raw" else Path(casefiles.put("load", name, tmp_path))
        )
        assert call("rewrite", source, "--set", "cpu@0/env.mxcsr=0x1fa0", "-o", tmp_path / "out")[0] == 0
        assert (tmp_path / "out").read_bytes()[:92] == source.read_bytes()[:92]


def test_the_other_byte_order_and_version_1(call: Call, tmp_path: Path) -> None:
    stream = writer(DEVICE).finish()
    for order, version in ((">", 2), ("<", 2), ("<", 1)):
        image = (
            b"LibvirtQemudSave" + struct.pack(f"{order}5I", version, 8, 1, 0, 0) + bytes(56) + b"<xml/>\0\0" + stream
        )
        (tmp_path / "in").write_bytes(image)
        code, _, _ = call("rewrite", tmp_path / "in", "--ram", "mapped-ram", "-o", tmp_path / "out")
        if version == 1:
            assert code == 63
            assert call("rewrite", tmp_path / "in", "--ram", "plain", "-o", tmp_path / "out")[0] == 0
            assert (tmp_path / "out").read_bytes()[:100] == image[:100]
            continue
        assert code == 0
        assert struct.unpack(f"{order}I", (tmp_path / "out").read_bytes()[28:32]) == (6,)


# -- what was taken off -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [("libvirt-gzip.save", "libvirt header, gzip"), ("savevm-7.2.qcow2", "qcow2"), ("multifd-10.0.pcap", "pcap")],
)
def test_what_was_taken_off_is_said(name: str, words: str, call: Call, tmp_path: Path) -> None:
    source = container(name, tmp_path)
    for edits in ((), ("--set", "cpu@0/env.mxcsr=0x1fa0")):
        code, _, err = call("rewrite", source, *edits, "-o", tmp_path / "out")
        assert code == 0
        assert f"does not have the source's wrapping: {words}" in err
    code, out, _ = call("rewrite", source, "-o", tmp_path / "out", "--json")
    assert code == 0
    assert words in out
    kind = {"libvirt": "libvirt --like FILE", "qcow2": "qcow2 --like FILE"}.get(words.partition(" ")[0])
    assert ("qmigtool wrap" in out) == (kind is not None)
    assert kind is None or f"`qmigtool wrap --as {kind}`" in out
    assert "wrapping" not in call("rewrite", tmp_path / "out", "-o", tmp_path / "copy")[2]
