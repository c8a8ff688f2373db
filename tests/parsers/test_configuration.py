import pytest

from qmigtool.errors import LimitError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.configuration import Configuration, parse_configuration
from qmigtool.parsers.window import NeedMoreData, Window
from tests.support import samplefiles
from tests.support.streamwriter import be32, capabilities, str8, target_page_bits, uuid_subsection

MACHINE = be32(7) + b"pc-9.99"
UUID = bytes(range(0x10, 0x20))


def parse(data):
    return parse_configuration(Window(data, base=9, final=True), 9)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (b"", {}),
        (target_page_bits(12), {"page_size": 4096}),
        (target_page_bits(8), {"page_size": 256}),
        (target_page_bits(20), {"page_size": 1 << 20}),
        (capabilities("x-ignore-shared", "mapped-ram"), {"capabilities": ("x-ignore-shared", "mapped-ram")}),
        (capabilities(), {}),
        (uuid_subsection(UUID), {"uuid": UUID}),
        (
            target_page_bits(16) + capabilities("mapped-ram") + uuid_subsection(UUID),
            {"page_size": 65_536, "capabilities": ("mapped-ram",), "uuid": UUID},
        ),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"\x01\0\0\0\x01", b"\0"])
def test_subsections(more, expected, behind):
    data = MACHINE + more + behind
    assert parse(data) == (Configuration("pc-9.99", **expected), 9 + len(data) - len(behind))


def test_the_bytes_of_the_facts():
    data = b"\x05\x1econfiguration/target-page-bits" + bytes.fromhex("00000001 0000000c")
    assert parse(be32(8) + b"virt-7.2" + data)[0] == Configuration("virt-7.2", 4096)


def test_machine_names_of_any_bytes():
    found, _ = parse(be32(5) + b"a\xff\x00\n\x1b")
    assert found.machine.encode("utf-8", "surrogateescape") == b"a\xff\x00\n\x1b"
    assert parse(be32(0))[0].machine == ""


@pytest.mark.parametrize(
    ("data", "kind", "offset"),
    [
        (be32(256) + bytes(256), LimitError, 9),
        (be32(0xFFFFFFFF), LimitError, 9),
        (MACHINE + target_page_bits(7), StreamError, 9 + 11 + 36),
        (MACHINE + target_page_bits(0xFFFFFFFF), StreamError, 9 + 11 + 36),
        (MACHINE + capabilities(*"x" * 65), LimitError, 9 + 11 + 32),
        (MACHINE + b"\x05" + str8("configuration/new") + be32(1), UnsupportedError, 20),
        (MACHINE + b"\x05\0", StreamError, 21),
    ],
)
def test_what_is_refused(data, kind, offset):
    with pytest.raises(kind) as caught:
        parse(data)
    assert type(caught.value) is kind
    assert caught.value.offset == offset


def test_every_cut():
    data = MACHINE + target_page_bits(12) + capabilities("mapped-ram") + uuid_subsection(UUID)
    whole = {len(MACHINE), len(MACHINE + target_page_bits(12)), len(data) - len(uuid_subsection(UUID))}
    for cut in range(len(data)):
        if cut in whole:
            continue
        with pytest.raises(TruncatedError) as caught:
            parse(data[:cut])
        assert caught.value.offset == 9 + cut
        with pytest.raises(NeedMoreData):
            parse_configuration(Window(data[:cut], base=9), 9)


def test_an_open_window_has_to_show_what_follows():
    with pytest.raises(NeedMoreData):
        parse_configuration(Window(MACHINE), 0)


@pytest.mark.parametrize(
    ("name", "machine", "page_size"),
    [
        ("pc-7.2", "pc-i440fx-7.2", None),
        ("q35-7.2", "pc-q35-7.2", None),
        ("microvm-10.0", "microvm", None),
        ("arm-7.2", "virt-7.2", 4096),
    ],
)
def test_samples(name, machine, page_size):
    found, _ = parse_configuration(Window(samplefiles.read(name), final=True), 9)
    assert found == Configuration(machine, page_size)
