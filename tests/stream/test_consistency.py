"""A stream without a vmdesc, written over a longer stream: QEMU stops at its EOF. A damaged byte looks similar."""

import io

import pytest

import qmigtool
from qmigtool.cli.main import run
from tests.rewrite.editing import sample


def without_vmdesc(name):
    """Return a stream as a machine with suppress-vmdesc=on saves it."""
    data = sample(name).read_bytes()
    with qmigtool.open(data) as stream:
        return data[: next(section.end for section in stream.sections if section.type == "eof")]


def over(name, older, kept):
    """Return a stream without a vmdesc, and the last bytes of an older one behind it."""
    return without_vmdesc(name) + sample(older).read_bytes()[-kept:]


def types_of(data, kind):
    """Return where the items of one type start."""
    with qmigtool.open(data) as stream:
        return [section.offset for section in stream.sections if section.type == kind]


class Pipe(io.BytesIO):
    """Bytes that are read once."""

    def seekable(self):
        return False


@pytest.mark.parametrize("name", ["novmdesc-7.2", "pc-7.2", "q35-7.2", "microvm-10.0", "pc-11.1"])
@pytest.mark.parametrize(("older", "kept"), [("pc-7.2", 127_491), ("q35-7.2", 40_000), ("kvm-avx512-7.2", 20_000)])
def test_it_is_whole(name, older, kept):
    front = without_vmdesc(name)
    data = over(name, older, kept)
    with qmigtool.open(front) as alone, qmigtool.open(data) as stream:
        assert stream.prove()
        assert stream.complete, stream.problems
        assert stream.vmdesc is None
        assert stream.page_size == alone.page_size
        assert [(d.label, d.body) for d in stream.devices] == [(d.label, d.body) for d in alone.devices]
        assert [d.description for d in stream.devices] == [d.description for d in alone.devices]
        assert stream.sections[-1].type == "tail"
        assert stream.sections[-1].offset == len(front)


def test_every_command_reads_it(tmp_path, capsys):
    file = tmp_path / "over.mig"
    file.write_bytes(over("novmdesc-7.2", "pc-7.2", 127_491))
    for command in ("info", "show", "sections", "xsave table"):
        assert run([*command.split(), str(file)]) == 0, command
    capsys.readouterr()
    out = tmp_path / "out.mig"
    assert run(["rewrite", str(file), "--set", "cpu@0/env.regs[3]=0x1111", "-o", str(out)]) == 0
    assert out.stat().st_size == file.stat().st_size
    assert run(["preflight", str(file), "--target", "7.2", "--target", str(file)]) == 0


@pytest.mark.parametrize("zeros", [1, 40])
def test_a_damaged_type_byte_of_a_device_is_not_an_end(zeros):
    """The vmdesc at the end is the stream's own, and the sections after the damage are missing."""
    whole = sample("q35-7.2").read_bytes()
    for at in types_of(whole, "full"):
        data = bytearray(whole)
        data[at : at + zeros] = bytes(zeros)
        with qmigtool.open(bytes(data)) as stream:
            stream.prove()
            assert not stream.complete, at


def test_a_damaged_type_byte_where_no_vmdesc_is():
    """The rest of the section's header is behind the EOF; also where an older stream follows, and in a pipe."""
    front = without_vmdesc("novmdesc-7.2")
    older = sample("pc-7.2").read_bytes()[-50_000:]
    for at in types_of(front, "full"):
        for tail in (b"", older):
            data = bytearray(front + tail)
            data[at] = 0
            with qmigtool.open(bytes(data)) as stream:
                stream.prove()
                assert not stream.complete, at
        with qmigtool.open(io.BufferedReader(Pipe(bytes(data)))) as stream:
            assert [p.offset for p in stream.problems] == [at]
            assert "the rest of a section follows" in str(stream.error)


@pytest.mark.parametrize("kept", [0, 50_000, 127_491])
@pytest.mark.parametrize("kind", ["part", "end"])
def test_a_damaged_type_byte_in_memory_is_not_an_end(kind, kept):
    data = bytearray(over("novmdesc-7.2", "pc-7.2", kept) if kept else without_vmdesc("novmdesc-7.2"))
    data[types_of(bytes(data), kind)[-1]] = 0
    with qmigtool.open(bytes(data)) as stream:
        stream.prove()
        assert not stream.complete


@pytest.mark.parametrize("damage", [0x01, 0x04, 0x7E, 0xFF])
def test_a_damaged_eof(damage):
    data = bytearray(over("novmdesc-7.2", "pc-7.2", 127_491))
    data[len(without_vmdesc("novmdesc-7.2")) - 1] = damage
    with qmigtool.open(bytes(data)) as stream:
        stream.prove()
        assert not stream.complete


def test_a_section_that_the_schema_does_not_fit():
    """Its end is only that of a footer search: not known to be whole."""
    with qmigtool.open(over("novmdesc-7.2", "pc-7.2", 127_491)) as stream:
        section = next(s for s in stream.sections if s.name == "pcspk")
    data = bytearray(over("novmdesc-7.2", "pc-7.2", 127_491))
    data[section.body_offset - 1] = 77
    with qmigtool.open(bytes(data)) as stream:
        stream.prove()
        assert not stream.complete
        assert "of another stream" in str(stream.error)
