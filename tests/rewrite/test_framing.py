"""The configuration section and the footers: put in and left out, and every offset that follows."""

import pytest

import qmigtool
from qmigtool.errors import LiveStateError, UsageError
from tests.rewrite.editing import rewritten, sample, writer
from tests.support.streamwriter import Vmsd, capabilities, num, raw, target_page_bits, uuid_subsection

DEVICES = (
    ("dev", 0, Vmsd("dev", 1, [num("a", "uint32", 0x7E000000), raw("b", b"\x7e\0\0\0\2")])),
    ("dev", 1, Vmsd("dev", 1, [num("a", "uint32", 5)])),
)


def made(**how):
    return writer(*DEVICES, **how).finish()


@pytest.mark.parametrize("machine", [None, "pc-i440fx-7.2"])
def test_footers(machine):
    without, with_ = made(footers=False, machine=machine), made(machine=machine)
    assert rewritten(without, lambda r: r.add_footers()).data == with_
    done = rewritten(with_, lambda r: r.drop_footers())
    assert done.data == without
    assert [(one.edit, one.where) for one in done.changes] == [("drop-footers", "footers")]


@pytest.mark.parametrize("footers", [False, True])
def test_configuration(footers):
    without, with_ = made(footers=footers, machine=None), made(footers=footers)
    assert rewritten(without, lambda r: r.add_configuration("pc-i440fx-7.2")).data == with_
    assert rewritten(with_, lambda r: r.drop_configuration()).data == without
    named = rewritten(without, lambda r: r.add_configuration("x"), lambda r: r.machine_type("pc-i440fx-7.2"))
    assert named.data == with_


def test_page_size_of_arm():
    wanted = made(config=target_page_bits(12))
    assert rewritten(made(machine=None), lambda r: r.add_configuration("pc-i440fx-7.2", 4096)).data == wanted
    assert rewritten(made(machine=None), lambda r: r.add_configuration("pc-i440fx-7.2", "0x1000")).data == wanted


def test_all_at_once_with_other_edits():
    """Footers of what goes, comes and changes."""

    def edits(r):
        r.add_configuration("pc-i440fx-7.2")
        r.add_footers()
        r.drop_section("dev@1")
        r.add_section("new", 1, data=b"new")
        r.add_field("dev@0/c", "uint8")

    devices = (
        ("dev", 0, Vmsd("dev", 1, [*DEVICES[0][2].fields, num("c", "uint8", 0)])),
        ("new", 0, Vmsd("new", 1, [raw("data", b"new")])),
    )
    w = writer(devices[0])
    w.device(4, *devices[1])
    assert rewritten(made(footers=False, machine=None), edits).data == w.finish()


def test_memory_that_is_written_anew_has_footers_too():
    def both(r):
        r.add_footers()
        r.ram("plain")

    one = rewritten(made(footers=False), both).data
    assert one == rewritten(made(), lambda r: r.ram("plain")).data
    back = rewritten(one, lambda r: r.drop_footers(), lambda r: r.ram("plain")).data
    assert back == rewritten(made(footers=False), lambda r: r.ram("plain")).data


def test_offsets_of_mapped_ram_follow(tmp_path):
    """What precedes memory grows, so that every bitmap and page moves."""
    plain = rewritten(made(machine=None, footers=False), lambda r: r.add_configuration("pc-i440fx-7.2")).data
    one = rewritten(plain, lambda r: r.ram("mapped-ram"), lambda r: r.add_footers()).data
    with qmigtool.open(one) as found:
        assert found.complete
        assert found.footers
        assert found.capabilities == ("mapped-ram",)
        assert bytes(found.ram.page("r", 0)) == bytes(range(256)) * 16
    other = rewritten(rewritten(plain, lambda r: r.ram("mapped-ram")).data, lambda r: r.add_footers()).data
    assert other == one


@pytest.mark.parametrize("name", ["pc-11.1", "pc-7.2", "arm-7.2", "q35-7.2"])
def test_real_streams_there_and_back(name):
    source = sample(name)
    with qmigtool.open(source) as stream:
        old = stream.configuration
    assert old is not None
    bare = rewritten(source, lambda r: r.drop_configuration(), lambda r: r.drop_footers())
    with qmigtool.open(bare.data) as stream:
        assert stream.complete
        assert stream.configuration is None
        assert not stream.footers
        assert b'"configuration"' not in (stream.vmdesc_text or b"")
    back = rewritten(bare.data, lambda r: r.add_configuration(old.machine, old.page_size), lambda r: r.add_footers())
    if name != "pc-11.1":  # whose vmdesc describes the configuration, which QEMU never reads
        assert back.data == source.read_bytes()


@pytest.mark.parametrize(
    ("how", "edit"),
    [
        ({}, lambda r: r.add_configuration("pc-i440fx-7.2")),
        ({}, lambda r: r.add_footers()),
        ({"machine": None}, lambda r: r.drop_configuration()),
        ({"footers": False}, lambda r: r.drop_footers()),
        ({"machine": None}, lambda r: r.add_configuration("")),
        ({"machine": None}, lambda r: r.add_configuration("m" * 256)),
        ({"machine": None}, lambda r: r.add_configuration("m", 4095)),
        ({"machine": None}, lambda r: r.machine_type("pc-i440fx-7.2")),
    ],
)
def test_refused(how, edit):
    with pytest.raises(UsageError):
        rewritten(made(**how), edit)


def test_what_says_how_memory_is_read_stays():
    mapped = rewritten(made(), lambda r: r.ram("mapped-ram")).data
    with pytest.raises(LiveStateError, match="mapped-ram"):
        rewritten(mapped, lambda r: r.drop_configuration())
    done = rewritten(made(config=uuid_subsection(bytes(range(16)))), lambda r: r.drop_configuration())
    assert done.losses == ["the VM's UUID in the configuration section"]
    assert done.data == made(machine=None)
    listed = made(config=capabilities("validate-uuid"))
    with pytest.raises(LiveStateError):
        rewritten(listed, lambda r: r.drop_configuration())


def test_without_footers_and_vmdesc_state_cannot_be_read():
    with pytest.raises(UsageError, match="without footers and a vmdesc"):
        rewritten(writer(*DEVICES).finish(vmdesc=False), lambda r: r.drop_footers())


def test_command_line(call, tmp_path):
    (tmp_path / "in").write_bytes(made(machine=None, footers=False))
    options = ("--add-configuration", "pc-i440fx-7.2", "--add-footers")
    assert call("rewrite", tmp_path / "in", *options, "-o", tmp_path / "out")[0] == 0
    assert (tmp_path / "out").read_bytes() == made()
    assert call("rewrite", tmp_path / "out", "--drop-footers", "--drop-configuration", "-o", tmp_path / "back")[0] == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "in").read_bytes()
