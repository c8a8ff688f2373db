"""What precedes the state: the machine type, the capabilities, the commands; and how a vmdesc describes it."""

import pytest

import qmigtool
from qmigtool.errors import UsageError
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import assert_true, bodies, get, pairs_of, rewritten, sample, stream_of, writer
from tests.support.samplefiles import DESCRIBED
from tests.support.streamwriter import Vmsd, be32, capabilities, num, str8, target_page_bits, uuid_subsection

DEVICE = ("dev", 0, Vmsd("dev", 1, [num("a", "uint32", 1)]))
UUID = bytes(range(16))


def build(machine, config=b"", **style):
    return writer(DEVICE, machine=machine, config=config).finish(**style)


def configuration(data):
    """The bytes of the section, and its description if the vmdesc has one."""
    with qmigtool.open(data) as stream:
        (section,) = (s for s in stream.sections if s.type == "configuration")
        text = stream.vmdesc_text
        raw = bytes(stream.source.view(section.body_offset, section.body_length))
        return raw, None if text is None else get(pairs_of(text), "configuration")


# -- machine types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pc-i440fx-9.2", "", "x", "pc-q35-10.0", "x" * 255, "Maschine-\u00e4"])
@pytest.mark.parametrize("config", [b"", target_page_bits(12), capabilities("zero"), uuid_subsection(UUID)])
def test_another_machine_type(name, config):
    source = build("pc-i440fx-7.2", config)
    done = rewritten(source, lambda r: r.machine_type(name))
    assert done.data == build(name, config)
    (change,) = done.changes
    assert (change.edit, change.where, change.offset) == ("machine-type", "configuration/machine", 9)
    assert (change.old, change.new) == ("pc-i440fx-7.2", name)


def test_the_same_machine_type_is_no_change():
    done = rewritten(build("pc"), lambda r: r.machine_type("pc"))
    assert (done.data, done.changes) == (build("pc"), [])


def test_a_machine_type_that_does_not_fit():
    with qmigtool.open(build("pc")) as stream:
        rewriter = Rewriter(stream)
        for name in ("x" * 256, "\u00e4" * 128):
            with pytest.raises(UsageError):
                rewriter.machine_type(name)
        assert rewriter.splices() == []


@pytest.mark.parametrize(
    "name", [*(n for n in DESCRIBED if n != "noconfig-7.2"), "plain-5.2", "uuid-11.1", "mapped-11.1"]
)
def test_the_machine_type_of_a_real_stream(name):
    """The vmdesc of 8.2 and later says how long the name is: it follows."""
    new = "a-rather-longer-machine-type-9.2"
    done = rewritten(sample(name), lambda r: r.machine_type(new))
    assert_true(done.data)
    old_raw, old_text = configuration(sample(name))
    raw, text = configuration(done.data)
    length = int.from_bytes(old_raw[:4], "big")
    assert raw == be32(len(new)) + new.encode() + old_raw[4 + length :]
    assert bodies(done.data) == bodies(sample(name))
    assert (text is None) == (old_text is None) == ("7.2" in name or "5.2" in name)
    if text is not None:
        sizes = [(get(f, "name"), get(f, "size")) for f in get(text, "fields")]
        before = [(get(f, "name"), get(f, "size")) for f in get(old_text, "fields")]
        assert before == [("len", 4), ("name", length)]
        assert sizes == [("len", 4), ("name", len(new))]
        assert [pair for pair in text if pair[0] != "fields"] == [pair for pair in old_text if pair[0] != "fields"]
    # And back: the identical stream, so nothing else was touched in between.
    back = rewritten(done.data, lambda r: r.machine_type(old_raw[4 : 4 + length].decode()))
    assert back.data == sample(name).read_bytes()


# -- streams without a configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["noconfig-7.2", "i440fx-2.1-7.2"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.machine_type("pc"),
        lambda r: r.upgrade_machine("pc-i440fx-9.2"),
        lambda r: r.add_capability("zero"),
        lambda r: r.drop_capability("zero"),
    ],
)
def test_without_a_configuration(name, edit):
    with qmigtool.open(sample(name)) as stream:
        rewriter = Rewriter(stream)
        with pytest.raises(UsageError):
            edit(rewriter)
        assert rewriter.splices() == []


# -- capabilities -----------------------------------------------------------------------------------------------------


def test_capabilities_come_and_go():
    source = build("pc", target_page_bits(12) + uuid_subsection(UUID))
    one = build("pc", target_page_bits(12) + capabilities("zero-blocks") + uuid_subsection(UUID))
    two = build("pc", target_page_bits(12) + capabilities("zero-blocks", "late") + uuid_subsection(UUID))
    done = rewritten(source, lambda r: r.add_capability("zero-blocks"))
    assert done.data == one
    (change,) = done.changes
    assert (change.where, change.old, change.new) == ("configuration/capabilities", None, "zero-blocks")
    assert rewritten(one, lambda r: r.add_capability("late")).data == two
    assert rewritten(one, lambda r: r.add_capability("zero-blocks")).splices == []
    assert rewritten(
        two, lambda r: r.drop_capability("zero-blocks"), lambda r: r.add_capability("zero-blocks")
    ).data == (build("pc", target_page_bits(12) + capabilities("late", "zero-blocks") + uuid_subsection(UUID)))
    assert (
        rewritten(two, lambda r: r.drop_capability("late"), lambda r: r.drop_capability("zero-blocks")).data == source
    )


@pytest.mark.parametrize("name", ["", "x" * 256, "mapped-ram"])
def test_capabilities_that_cannot_be(name):
    with qmigtool.open(build("pc")) as stream:
        rewriter = Rewriter(stream)
        for edit in (rewriter.add_capability, rewriter.drop_capability):
            with pytest.raises(UsageError):
                edit(name)
        assert rewriter.splices() == []


def test_as_many_capabilities_as_a_loader_reads():
    names = [f"c{i}" for i in range(64)]
    with qmigtool.open(build("pc", capabilities(*names))) as stream, pytest.raises(UsageError):
        Rewriter(stream).add_capability("one more")
    done = rewritten(build("pc", capabilities(*names[:63])), lambda r: r.add_capability("c63"))
    assert done.data == build("pc", capabilities(*names))


def test_a_vmdesc_describes_them_as_qemu_does():
    """QEMU 10.0 itself described ignoreshared-10.0, which has the one capability that dirtybitmap-10.0 has not."""
    raw, text = configuration(sample("ignoreshared-10.0"))
    assert raw.endswith(be32(1) + str8("x-ignore-shared"))
    done = rewritten(sample("twin-tcg-10.0"), lambda r: r.add_capability("x-ignore-shared"))
    mine, described = configuration(done.data)
    assert mine[-16:] == raw[-16:]
    assert get(described, "subsections") == get(text, "subsections")
    assert_true(done.data)
    back = rewritten(done.data, lambda r: r.drop_capability("x-ignore-shared"))
    assert back.data == sample("twin-tcg-10.0").read_bytes()


def test_a_vmdesc_describes_two_of_them_as_qemu_does():
    """QEMU measures the first of them only, and takes the others for as long."""
    raw, text = configuration(sample("mapped-ignoreshared-11.1"))
    assert raw.endswith(be32(2) + str8("x-ignore-shared") + str8("mapped-ram"))
    done = rewritten(sample("mapped-11.1"), lambda r: r.add_capability("x-ignore-shared"))
    assert configuration(done.data) == (raw, text)


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["SWITCHOVER_START", "switchover_start"])
def test_a_command_goes(written):
    with qmigtool.open(sample("microvm-10.0")) as stream:
        (section,) = (s for s in stream.sections if s.type == "command")
    source = sample("microvm-10.0").read_bytes()
    done = rewritten(source, lambda r: r.drop_command(written))
    assert done.data == source[: section.offset] + source[section.end :]
    assert len(source) - len(done.data) == 5
    (change,) = done.changes
    assert (change.where, change.offset, change.old) == ("command SWITCHOVER_START", section.offset, "SWITCHOVER_START")
    with qmigtool.open(done.data) as stream:
        rewriter = Rewriter(stream)
        with pytest.raises(UsageError) as caught:
            rewriter.drop_command(written)
        assert "no commands" in str(caught.value)


def test_every_command_of_that_name_goes():
    def commands(data):
        with qmigtool.open(data) as stream:
            assert stream.complete
            return [s.name for s in stream.sections if s.type == "command"]

    before = commands(sample("advise-7.2"))
    assert {"PING", "POSTCOPY_ADVISE"} <= set(before)
    done = rewritten(
        sample("advise-7.2"), lambda r: r.drop_command("PING"), lambda r: r.drop_command("POSTCOPY_ADVISE")
    )
    assert commands(done.data) == [name for name in before if name not in ("PING", "POSTCOPY_ADVISE")]
    with qmigtool.open(sample("advise-7.2")) as stream:
        rewriter = Rewriter(stream)
        rewriter.drop_command("PING")
        for name in ("PING", "none", ""):
            with pytest.raises(UsageError):
                rewriter.drop_command(name)
        assert len(rewriter.changes) == before.count("PING")


def test_a_stream_of_nothing_but_its_head():
    assert rewritten(stream_of(), lambda r: r.machine_type("pc")).data == writer(machine="pc").finish()
