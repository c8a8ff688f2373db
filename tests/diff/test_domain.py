"""The libvirt XML of two save images: real ones of libvirt 9.0, and edited copies."""

from pathlib import Path

import pytest

from qmigtool.cli.main import run
from qmigtool.diff import DifferenceKind, compare_three
from tests.diff.comparing import compared, places
from tests.support import samplefiles
from tests.support.saveimages import HEAD, RAW, image


def only(found: list[str]) -> list[str]:
    return [place for place in found if place.startswith("[XML")]


def test_two_real_images_are_of_two_domains() -> None:
    found = compared(RAW, samplefiles.container("libvirt-gzip.save"))
    assert only(places(found)) == ["[XML uuid]"]
    (difference,) = (one for one in found.differences if one.path == "[XML uuid]")
    assert (difference.a, difference.b) == (
        "6258fef5-4708-4f50-b8ba-f17382d1a47f",
        "b53285ac-3ef9-4269-8de9-0fdee4291f17",
    )
    assert difference.device is None


@pytest.mark.parametrize(
    ("old", "new", "path", "a", "b"),
    [
        (b"<name>t<", b"<name>u<", "[XML name]", "t", "u"),
        (b"<domain type='qemu'>", b"<domain type='kvm'>", "[XML type]", "qemu", "kvm"),
        (b"machine='pc-i440fx-7.2'", b"machine='pc-q35-7.2'", "[XML machine]", "pc-i440fx-7.2", "pc-q35-7.2"),
        (b"<memory unit='KiB'>16384<", b"<memory unit='MiB'>32<", "[XML memory]", 16 << 20, 32 << 20),
        (b"<cpu mode='maximum' check='none'/>", b"", "[XML cpu_mode]", "maximum", None),
        (b"<cpu mode='maximum' check='none'/>", b"<cpu mode='maximum'><model>EPYC</model></cpu>", "[XML cpu_model]",
         None, "EPYC"),
        (b"<vcpu placement='static'>2<", b"<vcpu placement='static' current='2'>4<", "[XML maximum_vcpus]", 2, 4),
        (b"<input type='mouse' bus='ps2'/>", b"", "[XML device input mouse]", 1, None),
        (b"<input type='mouse' bus='ps2'/>", b"<input type='mouse'/><input type='mouse'/>",
         "[XML device input mouse]", 1, 2),
    ],
)  # fmt: skip
def test_a_fact_is_a_difference(old: bytes, new: bytes, path: str, a: object, b: object) -> None:
    found = compared(RAW, image((old, new)))
    assert places(found) == [path]
    (difference,) = found.differences
    assert (difference.a, difference.b) == (a, b)
    kind = DifferenceKind.ONLY_A if b is None else DifferenceKind.ONLY_B if a is None else DifferenceKind.CHANGED
    assert difference.kind is kind
    assert difference.as_dict()["path"] == path


def test_the_same_in_other_words() -> None:
    found = compared(RAW, image((b"<memory unit='KiB'>16384<", b"<memory unit='MiB'>16<")))
    assert found.same
    assert [note for note in found.notes if "none of the facts" in note]


def test_an_xml_that_cannot_be_read_is_undecided() -> None:
    broken = image((b"</domain>", b"</domein>"))
    found = compared(RAW, broken)
    assert not found.same
    assert not found.differences
    (why,) = found.undecided
    assert why.startswith("the libvirt XML cannot be compared: B: in libvirt XML: the XML is not well-formed")
    assert compared(broken, broken).same  # byte for byte


def test_a_bare_stream_has_none() -> None:
    length = int.from_bytes(RAW[20:24], "little")
    for one, other, has, lacks in ((RAW, RAW[HEAD + length :], "A", "B"), (RAW[HEAD + length :], RAW, "B", "A")):
        found = compared(one, other)
        assert found.same
        assert found.notes == (f"the libvirt XML of {has} is not compared: {lacks} has none",)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.save", tmp_path / "b.save"
    a.write_bytes(RAW)
    b.write_bytes(image((b"<memory unit='KiB'>16384<", b"<memory unit='MiB'>32<")))
    assert run(["diff", str(a), str(b)]) == 1
    assert "[XML memory]" in capsys.readouterr().out
    assert run(["diff", str(a), str(b), "--ignore", "[XML memory]"]) == 0


def test_a_common_base() -> None:
    import qmigtool

    with (
        qmigtool.open(RAW) as base,
        qmigtool.open(image((b"<name>t<", b"<name>u<"))) as a,
        qmigtool.open(image((b"<name>t<", b"<name>v<"))) as b,
    ):
        (change,) = compare_three(base, a, b).changes
    assert (change.path, change.base, change.a, change.b) == ("[XML name]", "t", "u", "v")
