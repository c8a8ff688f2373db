"""Edited memory, loaded by real QEMU, and compared byte by byte with what QEMU had when the stream was saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import qmigtool
from tests.oracle import guest
from tests.ram.test_against_qemu import (  # noqa: F401 - newer is a fixture
    BIOS,
    capabilities,
    migrate_to_socket,
    newer,
    save_while_writing,
)
from tests.rewrite.memories import CONTINUE, NORMAL, ZERO, mapped_areas, pages_of, saved, walk
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.process import QemuError
from tests.support.qemu.reloaded import refusal
from tests.support.streamwriter import PAGE, be64

pytestmark = pytest.mark.qemu

SIZE = 16 << 20
MACHINE = Machine(smp=1)
ROM = "0000:00:02.0/virtio-net-pci.rom"


class Vm(NamedTuple):
    """A stream, and guest-physical memory when it was saved."""

    path: Path
    memory: bytes


@contextmanager
def stopped(kernel: Path, machine: Machine = MACHINE) -> Iterator[Qemu]:
    with Qemu(machine, kernel=kernel) as qemu:
        qemu.cont()
        qemu.wait_until_spinning()
        qemu.stop()
        yield qemu


@pytest.fixture(scope="module")
def kernel(qemu_guest):
    return qemu_guest((guest.distinct_pattern(0, xcr0=7),))


@pytest.fixture(scope="module")
def vm(kernel, tmp_path_factory) -> Vm:
    path = tmp_path_factory.mktemp("vm") / "vm.mig"
    with stopped(kernel) as qemu:
        memory = qemu.pmemsave(0, SIZE)
        qemu.migrate_to_file(path)
    assert memory[guest.STATUS : guest.STATUS + 4] == b"SPIN"
    return Vm(path, memory)


def memory_of(path: Path, machine: Machine = MACHINE, uri: str | None = None, again: Path | None = None) -> bytes:
    """Load a stream, and return guest-physical memory; ``again``: and save what was loaded."""
    with Qemu(machine, incoming=True) as qemu:
        if uri is None:
            qemu.load(path)
        else:
            capabilities(qemu, "mapped-ram")
            qemu.execute("migrate-incoming", uri=uri)
            qemu.wait_for("the stream", lambda: qemu._migration_completed() and qemu.status() != "inmigrate")
        memory = qemu.pmemsave(0, SIZE)
        if again is not None:
            qemu.migrate_to_file(again)
    return memory


def check(found: bytes, memory: bytes) -> None:
    """All of it, devices that pmemsave reads between 640 KiB and 1 MiB included; says which pages differ."""
    assert len(found) == SIZE
    parts = [(i, slice(i * PAGE, (i + 1) * PAGE)) for i in range(SIZE // PAGE)]
    assert [i for i, part in parts if found[part] != memory[part]] == []


def test_what_is_loaded_is_compared(vm):
    """The stream as it is, and one with one page less."""
    check(memory_of(vm.path), vm.memory)
    data = bytearray(vm.path.read_bytes())
    at = data.index(vm.memory[guest.STATUS :][:PAGE])
    data[at] ^= 1
    broken = vm.path.with_name("broken.mig")
    broken.write_bytes(data)
    found = memory_of(broken)
    assert [i for i in range(SIZE) if found[i] != vm.memory[i]] == [guest.STATUS]
    with pytest.raises(AssertionError):
        check(found, vm.memory)


# -- another format --------------------------------------------------------------------------------------------------


def test_plain_again(vm, tmp_path):
    """Of a stopped guest QEMU writes what we write: each page once, in order, in one PART."""
    path = saved(vm.path, tmp_path / "out.mig", lambda r: r.ram("plain"))
    with qmigtool.open(vm.path) as stream:
        assert qmigtool.Rewriter(stream).splices() == []
    assert path.read_bytes() == vm.path.read_bytes()
    check(memory_of(path), vm.memory)


def test_squeezed(vm, tmp_path):
    """Zero pages are sent whole at first, as QEMU does not, but other writers do."""
    data = vm.path.read_bytes()
    walked = walk(data)
    for number in range(len(walked.sections)):
        mine = [r for r in walked.records if r.section == number]
        whole = [be64(r.page * PAGE | NORMAL | CONTINUE) + bytes(PAGE) if long(r) else r.raw for r in mine]
        data = data.replace(b"".join(r.raw for r in mine), b"".join(whole)) if mine else data
    large = tmp_path / "large.mig"
    large.write_bytes(data)
    assert len(data) > vm.path.stat().st_size + 1000 * PAGE
    path = saved(large, tmp_path / "out.mig", lambda r: r.squeeze_zero_pages())
    assert path.read_bytes() == vm.path.read_bytes()
    check(memory_of(large), vm.memory)
    check(memory_of(saved(large, tmp_path / "b.mig", lambda r: r.ram("plain"))), vm.memory)


def long(record) -> bool:
    return record.kind == ZERO and record.block == "pc.ram" and not record.named and record.page % 3 != 0


def test_compressed_to_plain(kernel, tmp_path):
    source = tmp_path / "vm.mig"
    with stopped(kernel) as qemu:
        memory = qemu.pmemsave(0, SIZE)
        capabilities(qemu, "compress")
        qemu.migrate_to_file(source)
    assert "unexpected compressed page" in refusal(MACHINE, source)
    check(memory_of(saved(source, tmp_path / "out.mig", lambda r: r.ram("plain"))), memory)


@pytest.mark.parametrize("method", ["none", "zlib", "zstd"])
def test_multifd_to_plain(kernel, tmp_path, method):
    with stopped(kernel) as qemu:
        memory = qemu.pmemsave(0, SIZE)
        capabilities(qemu, "multifd")
        try:
            qemu.execute("migrate-set-parameters", multifd_channels=2, multifd_compression=method)
        except QemuError as error:
            pytest.skip(str(error))
        listener = migrate_to_socket(qemu, tmp_path / "socket")
    main, *others = sorted(listener.finish(), key=lambda data: not data.startswith(b"QEVM"))
    (tmp_path / "main.mig").write_bytes(main)
    path = saved(tmp_path / "main.mig", tmp_path / "out.mig", lambda r: r.ram("plain"), channels=others)
    check(memory_of(path), memory)


def test_a_live_xbzrle_stream_to_plain(tmp_path):
    """The guest writes all the time. QEMU's own reading of the stream is what the plain one has to give."""
    bios, source = tmp_path / "bios.bin", tmp_path / "vm.mig"
    bios.write_bytes(BIOS)
    machine = Machine(extra=("-bios", str(bios)))
    with Qemu(machine) as qemu:
        save_while_writing(qemu, source, "xbzrle")
    kinds = [record.kind for record in walk(source.read_bytes()).records]
    assert kinds.count(0x40) > 100
    path = saved(source, tmp_path / "out.mig", lambda r: r.ram("plain"))
    assert {record.kind for record in walk(path.read_bytes()).records} == {NORMAL, ZERO}
    check(memory_of(path, machine), memory_of(source, machine))


# -- blocks ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roms(tmp_path_factory) -> tuple[Path, Path]:
    """A ROM of 64 KiB, and the same padded to double the size."""
    folder = tmp_path_factory.mktemp("roms")
    data = bytes(i * 7 % 251 for i in range(64 << 10))
    (folder / "a.rom").write_bytes(data)
    (folder / "b.rom").write_bytes(data[::-1] + b"\xee" * len(data))
    return folder / "a.rom", folder / "b.rom"


def with_rom(path: Path) -> Machine:
    return Machine(extra=("-device", f"virtio-net-pci,romfile={path}"))


@pytest.fixture(scope="module")
def with_small_rom(kernel, roms, tmp_path_factory) -> Vm:
    path = tmp_path_factory.mktemp("rom") / "vm.mig"
    with stopped(kernel, with_rom(roms[0])) as qemu:
        memory = qemu.pmemsave(0, SIZE)
        qemu.migrate_to_file(path)
    return Vm(path, memory)


def rom_of(path: Path, pages: int) -> bytes:
    content = pages_of(path).content
    return b"".join(content.get((ROM, i), bytes(PAGE)) for i in range(pages))


def check_rest(rest: bytes, own: bytes, version: tuple[int, int, int]) -> None:
    """A loader up to 7.2 at least keeps its own ROM; since 10.0 at the latest it does not read the file at all."""
    assert rest in (own, bytes(len(own)))
    if version < (8, 0, 0) or version >= (10, 0, 0):
        assert (rest == own) == (version < (8, 0, 0))


@pytest.fixture(scope="module")
def version() -> tuple[int, int, int]:
    with Qemu(MACHINE) as qemu:
        return qemu.version()


def test_a_rom_of_another_size(with_small_rom, roms, version, tmp_path):
    source, memory = with_small_rom
    small, large = (path.read_bytes() for path in roms)
    assert rom_of(source, 16) == small
    said = refusal(with_rom(roms[1]), source)
    assert f"Size mismatch: {ROM}: 0x10000 != 0x20000" in said
    path = saved(source, tmp_path / "out.mig", lambda r: r.resize_block(ROM, 128 << 10))
    found = memory_of(path, with_rom(roms[1]), again=tmp_path / "again.mig")
    check(found, memory)
    rom = rom_of(tmp_path / "again.mig", 32)
    assert rom[: 64 << 10] == small
    check_rest(rom[64 << 10 :], large[64 << 10 :], version)


def test_a_larger_rom_loads_where_there_is_a_smaller_one(roms, kernel, tmp_path):
    source = tmp_path / "vm.mig"
    with stopped(kernel, with_rom(roms[1])) as qemu:
        memory = qemu.pmemsave(0, SIZE)
        qemu.migrate_to_file(source)
    assert f"Size mismatch: {ROM}: 0x20000 != 0x10000" in refusal(with_rom(roms[0]), source)
    for number, form in enumerate((None, "plain")):
        edits = [lambda r: r.resize_block(ROM, "0x10000"), *([lambda r: r.ram("plain")] if form else [])]
        path = saved(source, tmp_path / f"{number}.mig", *edits)
        again = tmp_path / f"again{number}.mig"
        check(memory_of(path, with_rom(roms[0]), again=again), memory)
        assert rom_of(again, 16) == roms[1].read_bytes()[: 64 << 10]


def test_a_rom_that_is_not_sent(with_small_rom, roms, version, tmp_path):
    source, memory = with_small_rom
    path = saved(source, tmp_path / "out.mig", lambda r: r.drop_block(ROM))
    check(memory_of(path, with_rom(roms[1]), again=tmp_path / "again.mig"), memory)
    check_rest(rom_of(tmp_path / "again.mig", 32), roms[1].read_bytes(), version)


def test_memory_by_another_name(vm, tmp_path):
    extra = ("-object", "memory-backend-ram,id=mem0,size=16M")
    machine = Machine(machine="pc,memory-backend=mem0", extra=extra)
    assert 'Unknown ramblock "pc.ram"' in refusal(machine, vm.path)
    path = saved(vm.path, tmp_path / "out.mig", lambda r: r.rename_block("pc.ram", "mem0"))
    check(memory_of(path, machine, again=tmp_path / "again.mig"), vm.memory)
    assert "mem0" in pages_of(tmp_path / "again.mig").sizes
    assert "pc.ram" in refusal(MACHINE, path) or "mem0" in refusal(MACHINE, path)


def test_scrubbed(vm, tmp_path):
    """Windows between 640 KiB and 1 MiB are other blocks and devices; what QEMU saves again shows all of pc.ram."""
    path = saved(vm.path, tmp_path / "out.mig", lambda r: r.scrub_ram("pc.ram"))
    assert "device 'kvm-tpr-opt'" in refusal(MACHINE, path)  # it looks for its option ROM in RAM; a note says so
    path = saved(path, tmp_path / "loadable.mig", lambda r: r.drop_section("kvm-tpr-opt"))
    found = memory_of(path, again=tmp_path / "again.mig")
    assert any(vm.memory[1 << 20 :])
    assert not any(found[:0xA0000])
    assert not any(found[1 << 20 :])
    before, after = pages_of(vm.path), pages_of(tmp_path / "again.mig")
    assert any(block == "pc.ram" for block, _ in before.content)
    assert {block for block, _ in after.content} == {block for block, _ in before.content} - {"pc.ram"}
    assert {page: data for page, data in before.content.items() if page[0] != "pc.ram"} == after.content


# -- a newer QEMU ----------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_and_mapped(newer, kernel, tmp_path):  # noqa: F811 - the fixture
    """One guest of the newer QEMU in both formats; for the second it is loaded and saved again."""
    plain, mapped = tmp_path / "plain.mig", tmp_path / "mapped.mig"
    with stopped(kernel) as qemu:
        memory = qemu.pmemsave(0, SIZE)
        qemu.migrate_to_file(plain)
    with Qemu(MACHINE, incoming=True) as qemu:
        qemu.load(plain)
        capabilities(qemu, "mapped-ram")
        qemu.execute("migrate", uri=f"file:{mapped}")
        qemu.wait_for("the migration", qemu._migration_completed)
    return plain, mapped, memory


def test_plain_to_mapped_ram_and_back(plain_and_mapped, tmp_path):
    plain, mapped, memory = plain_and_mapped
    made = saved(plain, tmp_path / "made.mig", lambda r: r.ram("mapped-ram"))
    check(memory_of(made, uri=f"file:{made}"), memory)
    back = saved(mapped, tmp_path / "back.mig", lambda r: r.ram("plain"))
    check(memory_of(back), memory)
    # QEMU has put the same pages in the same places.
    assert mapped_areas(made.read_bytes()) == mapped_areas(mapped.read_bytes())
    assert pages_of(back) == pages_of(plain)
    with pytest.raises(QemuError):
        memory_of(mapped)


def test_mapped_ram_with_edits(plain_and_mapped, tmp_path):
    _, mapped, memory = plain_and_mapped
    extra = ("-object", "memory-backend-ram,id=a-much-longer-name,size=16M")
    machine = Machine(machine="pc,memory-backend=a-much-longer-name", extra=extra)
    path = saved(mapped, tmp_path / "named.mig", lambda r: r.rename_block("pc.ram", "a-much-longer-name"))
    check(memory_of(path, machine, uri=f"file:{path}"), memory)
    path = saved(mapped, tmp_path / "without.mig", lambda r: r.drop_block("/rom@etc/acpi/tables"))
    check(memory_of(path, uri=f"file:{path}"), memory)
    edits = (lambda r: r.scrub_ram("pc.ram"), lambda r: r.drop_section("kvm-tpr-opt"))
    path = saved(mapped, tmp_path / "scrubbed.mig", *edits)
    found = memory_of(path, uri=f"file:{path}")
    assert not any(found[:0xA0000])
    assert not any(found[1 << 20 :])
