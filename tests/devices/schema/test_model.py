"""Schemas: learned from streams with a vmdesc, they describe exactly the same in streams without."""

import json
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool import tables
from qmigtool.devices.schema import fit
from qmigtool.devices.schema.model import built_in, learn, load, load_file
from qmigtool.errors import QmigError, StreamError, UnsupportedError
from qmigtool.parsers.vmdesc import parse_vmdesc
from tests.devices.schema.learning import cpu_body, facts, path, sub
from tests.support.packedsamples import NO_VMDESC, OTHER_TARGETS
from tests.support.streamwriter import (
    PAGE,
    Item,
    Pairs,
    StreamWriter,
    Vmsd,
    be32,
    dump,
    eos,
    mem_size,
    num,
    nums,
    raw,
    struct_,
    structs,
    zero,
)


def learned(*names):
    return load(learn([facts(name)[:2] for name in names]).to_json())


# A stream, and streams of the same QEMU with the same devices.
SIBLINGS = {
    "plain-7.2": ("pc-7.2",),
    "noconfig-7.2": ("pc-7.2",),
    "pc-7.2": ("noconfig-7.2", "nofooter-7.2"),
    "nofooter-7.2": ("xbzrle-7.2",),
    "advise-7.2": ("plain-7.2",),
    "compress-7.2": ("pc-7.2",),
    "multifd-zstd-live-7.2": ("plain-7.2",),
    "uuid-11.1": ("mapped-11.1",),
    "bgsnap-11.1": ("uuid-11.1",),
    "mapped-11.1": ("uuid-11.1",),
    "vmem-11.1": ("vmem-11.1",),
    "block-7.2": ("block-7.2",),
    "mapped-10.0": ("ignoreshared-10.0",),
    "dirtybitmap-10.0": ("dirtybitmap-10.0",),
    "twin-tcg-10.0": ("twin-tcg-10.0",),
    "q35-5.2": ("q35-5.2",),
    "q35-7.2": ("q35-7.2",),
    "microvm-10.0": ("microvm-10.0",),
    "plain-5.2": ("plain-5.2",),
    "kvm-avx512-7.2": ("kvm-avx512-7.2",),
    "i386-7.2": ("i386-7.2",),
    "arm-7.2": ("arm-7.2",),
    **{name: (name,) for name in OTHER_TARGETS if name != "s390x-min-7.2"},
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_what_siblings_taught_is_what_the_stream_itself_says(name):
    schema = learned(*SIBLINGS[name])
    _, machine, devices = facts(name)
    assert devices
    for idstr, version, body, description in devices:
        found = fit(schema, idstr, version, body, machine)
        assert found is not None, idstr
        if not found.ambiguous:
            assert found.description == description, idstr
        assert found.description.size == len(body)
    wrong = [idstr for idstr, v, body, d in devices if fit(schema, idstr, v, body, machine).description != d]
    # Malta has two shapes of one length, and nothing in a body tells which: that is what `ambiguous` is for.
    assert set(wrong) == ({"serial"} if name == "mips-malta-7.2" else set())


def test_one_sibling_is_not_another():
    """The test above can fail: what another machine taught does not describe this one."""
    schema = learned("microvm-10.0")
    _, machine, devices = facts("pc-7.2")
    assert sum(fit(schema, idstr, v, body, machine) is None for idstr, v, body, _ in devices) > 10


@pytest.mark.parametrize("name", ["pc-7.2", "q35-7.2", "pc-11.1", "plain-5.2", "aarch64-virt-gic2-7.2"])
def test_a_schema_written_and_read_is_the_same(name):
    first = learn([facts(name)[:2]], "mine")
    again = load(first.to_json())
    assert again.to_json() == first.to_json()
    assert again.name == "mine"
    document = json.loads(first.to_json())
    assert document["schema"] == 1
    assert len({json.dumps(row) for row in document["shapes"]}) == len(document["shapes"])
    # learning the same thing twice adds nothing
    again.add(*facts(name)[:2])
    assert again.to_json() == first.to_json()


def without_vmdesc(name):
    data = path(name).read_bytes()
    with qmigtool.open(data) as stream:
        eof = next(section for section in stream.sections if section.type == "eof")
    return data[: eof.end]


def vcpu_table(source, **options):
    with qmigtool.open(source, **options) as stream:
        return (
            list(tables.vcpus.rows(stream)),
            [row[:5] for row in tables.xsave_components.rows(stream)],
            [
                vcpu.xsave.to_bytes() if hasattr(vcpu.xsave, "to_bytes") else bytes(vcpu.xsave.data)
                for vcpu in stream.vcpus
            ],
        )


@pytest.mark.parametrize(
    "name", ["pc-7.2", "pc-11.1", "q35-7.2", "microvm-10.0", "kvm-avx512-7.2", "plain-5.2", "q35-5.2", "twin-kvm-10.0"]
)
def test_the_vcpu_table_without_a_vmdesc_is_the_same(name):
    """The built-in schema was learned from other streams than these."""
    with_it, without = vcpu_table(path(name)), vcpu_table(without_vmdesc(name))
    assert with_it == without
    assert with_it[0]


def test_a_stream_saved_without_a_vmdesc_is_like_its_sibling():
    """novmdesc-7.2 and noconfig-7.2 are saves of one guest on one machine: the vCPUs hold the same."""
    with qmigtool.open(path("novmdesc-7.2")) as stream, qmigtool.open(path("noconfig-7.2")) as sibling:
        assert stream.vmdesc is None
        assert len(stream.vcpus) == len(sibling.vcpus) > 1
        for one, other in zip(stream.vcpus, sibling.vcpus, strict=True):
            assert (one.xcr0, one.device.description) == (other.xcr0, other.device.description)
            assert one.xsave.xmm(1) == other.xsave.xmm(1)
            assert one.xsave.component("AVX") == other.xsave.component("AVX")
            assert [one.xsave.st(i) for i in range(8)] == [other.xsave.st(i) for i in range(8)]
        assert bytes(range(1, 17)) in [vcpu.xsave.xmm(1) for vcpu in stream.vcpus]


@pytest.mark.parametrize("name", ["novmdesc-nofooter-7.2", "i440fx-2.1-7.2"])
def test_neither_footers_nor_vmdesc(name):
    """Sections end where their shapes end; the twin with both says which sections and fields there are."""
    with qmigtool.open(path(name)) as stream, qmigtool.open(path("plain-7.2")) as twin:
        assert stream.complete, stream.problems
        assert {section.measured for section in stream.sections if section.type == "full"} == {"schema"}
        assert sum(section.length for section in stream.sections) == stream.size
        names = [device.name for device in stream.devices]
        theirs = [device.name for device in twin.devices]
        if name == "novmdesc-nofooter-7.2":
            assert names == theirs
            for one, other in zip(stream.devices, twin.devices, strict=True):
                # as long in QEMU 7.2 as in 10.0, of other fields, and both run a pc-i440fx-7.2
                if one.name not in ("globalstate", "hpet"):
                    assert [field.name for field in one.fields] == [field.name for field in other.fields]
        assert "cpu" in names
        assert set(names) <= set(theirs)
        for field in ("cpu@0/env.regs[4]", "cpu@0/env.mxcsr", "cpu@0/env.xcr0", "ioapic@0/id"):
            assert stream.field(field).value == twin.field(field).value


def test_streams_cut_of_their_vmdesc_and_their_footers():
    """pc-7.2 as QEMU would have written it without footers: made here, section by section."""
    data = path("pc-7.2").read_bytes()
    out = bytearray()
    bodies = []
    with qmigtool.open(data) as stream:
        for section in stream.sections:
            if section.type in ("vmdesc", "tail"):
                continue
            raw_ = data[section.offset : section.end]
            footer = section.type in ("start", "part", "end", "full")
            assert not footer or raw_[-5:-4] == b"\x7e"
            out += raw_[:-5] if footer else raw_
            if section.type == "full":
                bodies.append((section.name, section.instance_id, section.body_length))
    with qmigtool.open(bytes(out)) as bare:
        assert bare.complete, bare.problems
        found = [(s.name, s.instance_id, s.body_length) for s in bare.sections if s.type == "full"]
    assert found == bodies


def quad(value, count=1):
    return b"".join((value + i).to_bytes(8, "big") for i in range(count))


# name of the subsection -> (its bytes, {path: value}): written from target/i386/machine.c
CPU_SUBSECTIONS = {
    "cpu/avx512": (
        quad(0x5A00, 8) + quad(0x100, 64) + quad(0x1000, 128),
        {
            "cpu/avx512/env.opmask_regs[7]": 0x5A07,
            "cpu/avx512/env.xmm_regs[0][1]/_q_ZMMReg[4]": None,
        },
    ),
    "cpu/intel_amx_xtile": (bytes(range(64)) + bytes(8192), {"cpu/intel_amx_xtile/env.xtilecfg": list(range(64))}),
    "cpu/apx": (quad(0xE000, 16), {"cpu/apx/env.regs[15]": 0xE00F}),
    "cpu/pkru": (be32(0x55555554), {"cpu/pkru/env.pkru": 0x55555554}),
    "cpu/pkrs": (be32(0x11), {"cpu/pkrs/env.pkrs": 0x11}),
    "cpu/mpx": (
        quad(0x10, 8) + quad(0x20) + quad(0x30) + quad(0x40),
        {"cpu/mpx/env.bndcs_regs.sts": 0x30, "cpu/mpx/env.msr_bndcfgs": 0x40},
    ),
    "cpu/arch_lbr": (
        quad(1) + quad(32) + quad(0xF00, 96),
        {"cpu/arch_lbr/env.msr_lbr_depth": 32},
    ),
    "cpu/xss": (quad(0x1800), {"cpu/xss/env.xss": 0x1800}),
    "cpu/msr_xfd": (quad(0x40000) + quad(2), {"cpu/msr_xfd/env.msr_xfd_err": 2}),
    "cpu/msr_pl0_ssp": (quad(0x7000), {"cpu/msr_pl0_ssp/env.pl0_ssp": 0x7000}),
    "cpu/umwait": (be32(7), {"cpu/umwait/env.umwait": 7}),
    "cpu/tsc_khz": (quad(2_000_000), {"cpu/tsc_khz/env.tsc_khz": 2_000_000}),
    "cpu/spec_ctrl": (quad(1), {"cpu/spec_ctrl/env.spec_ctrl": 1}),
    "cpu/msr_hyperv_hypercall": (quad(3) + quad(4), {"cpu/msr_hyperv_hypercall/env.msr_hv_hypercall": 4}),
    "cpu/steal_time_msr": (quad(9), {"cpu/steal_time_msr/env.steal_time_msr": 9}),
}


CET = (quad(5) + quad(6), quad(1, 4) + quad(0x77))


def undescribed(*subsections, footers=True):
    w = StreamWriter(footers=footers)
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", PAGE)]) + eos())
    w.end(1, zero(0, "pc.ram") + eos())
    w.full(2, "cpu", 0, 12, cpu_body(*subsections))
    return w.finish(vmdesc=False)


@pytest.mark.parametrize("footers", [True, False])
@pytest.mark.parametrize("name", CPU_SUBSECTIONS)
def test_the_built_in_schema_knows_the_subsection(name, footers):
    data, values = CPU_SUBSECTIONS[name]
    with qmigtool.open(undescribed((name, data), footers=footers)) as stream:
        assert stream.complete, stream.problems
        cpu = stream.device("cpu@0")
        assert cpu.schema_name == built_in().name
        found = cpu.subsection(name)
        assert found is not None
        assert found.length - data.__len__() in (0, 6 + len(name))
        for at, value in values.items():
            if value is not None:
                found_value = cpu.field(at).value
                assert (found_value if isinstance(value, int) else list(found_value)) == value


def test_the_built_in_schema_knows_nested_subsections():
    cet, shstk = CET
    data = undescribed(("cpu/cet", cet, sub("cpu/cet_shstk", shstk)), ("cpu/pkru", be32(3)))
    with qmigtool.open(data) as stream:
        cpu = stream.device("cpu@0")
        assert cpu.field("cpu/cet/env.s_cet").value == 6
        assert cpu.field("cpu/cet/cpu/cet_shstk/env.guest_ssp").value == 0x77
        assert cpu.field("cpu/pkru/env.pkru").value == 3


def test_the_built_in_schema_takes_all_of_them_at_once():
    everything = [(name, data) for name, (data, _) in CPU_SUBSECTIONS.items()]
    with qmigtool.open(undescribed(*everything, footers=False)) as stream:
        assert stream.complete, stream.problems
        assert [s.name for s in stream.device("cpu@0").description.subsections] == [name for name, _ in everything]
        assert stream.vcpus[0].xsave.component("PKRU")[:4] == (0x55555554).to_bytes(4, "little")


@pytest.mark.parametrize(
    "subsections",
    [
        [("cpu/pkru", be32(1)[:-1])],
        [("cpu/pkru", be32(1) + b"\0")],
        [("cpu/nothing_known", b"")],
        [("cpu/pkru", be32(1)), ("cpu/pkru", be32(1))],
    ],
)
def test_what_does_not_fit_is_not_forced(subsections):
    with qmigtool.open(undescribed(*subsections)) as stream:
        cpu = stream.device("cpu@0")
        assert (cpu.description, cpu.schema_name) == (None, None)
        with pytest.raises(UnsupportedError):
            cpu.fields  # noqa: B018


def test_nothing_tells_where_an_unknown_section_ends():
    w = StreamWriter(footers=False)
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", PAGE)]) + eos())
    w.end(1, zero(0, "pc.ram") + eos())
    w.full(2, "no such device", 0, 1, bytes(99))
    with qmigtool.open(w.finish(vmdesc=False)) as stream:
        assert not stream.complete
        assert [type(problem) for problem in stream.problems] == [UnsupportedError]
        assert "no such device" in str(stream.problems[0])


def test_a_schema_in_use_is_told():
    with qmigtool.open(path("novmdesc-7.2")) as stream, qmigtool.open(path("pc-7.2")) as described:
        # Where several shapes fit, the choice is said, too.
        told = {built_in().name, f"{built_in().name}, one of several shapes that fit"}
        assert {device.schema_name for device in stream.devices} == told
        assert stream.schema_name == built_in().name
        assert {device.schema_name for device in described.devices} == {None}
        assert described.schema_name is None
    mine = learn([facts("pc-7.2")[:2]], "my own")
    with qmigtool.open(path("novmdesc-7.2"), schema=mine) as stream:
        assert stream.schema_name == "my own"


def described(*vmsds, page_size=PAGE):
    """A vmdesc with one device per description."""
    devices = [Pairs([("name", v.name), ("instance_id", 0), *v.pairs()]) for v in vmsds]
    return parse_vmdesc(dump(Pairs([("page_size", page_size), ("devices", devices)])).encode())


def taught(*vmsds, machine="pc-1"):
    return load(learn([(described(vmsd), machine) for vmsd in vmsds]).to_json())


def matches(schema, vmsd, machine=None):
    found = fit(schema, vmsd.name, vmsd.version, vmsd.body(), machine)
    return found is not None and found.description == described(vmsd).devices[0].description


INNER = Vmsd("in", 1, [num("x", "uint8", 5)], [Vmsd("in/more", 1, [num("y", "uint16", 6)])])


PLAIN = Vmsd("in", 1, [num("x", "uint8", 5)])


def test_a_struct_may_lack_the_subsections_it_was_learned_with():
    schema = taught(Vmsd("d", 1, [num("a", "uint8", 1), struct_("s", INNER), num("b", "uint8", 2)]))
    assert matches(schema, Vmsd("d", 1, [num("a", "uint8", 9), struct_("s", PLAIN), num("b", "uint8", 8)]))
    assert matches(schema, Vmsd("d", 1, [num("a", "uint8", 9), struct_("s", INNER), num("b", "uint8", 8)]))


def test_subsections_are_combined_that_were_never_seen_together():
    one, two = Vmsd("d/one", 1, [num("x", "uint32", 1)]), Vmsd("d/two", 2, [num("y", "uint8", 2)])
    schema = taught(Vmsd("d", 1, [num("a", "uint8", 1)], [one]), Vmsd("d", 1, [num("a", "uint8", 1)], [two]))
    assert matches(schema, Vmsd("d", 1, [num("a", "uint8", 3)], [one, two]))
    assert matches(schema, Vmsd("d", 1, [num("a", "uint8", 3)]))
    other = Vmsd("d/two", 1, [num("y", "uint8", 2)])  # another version is another thing
    assert fit(schema, "d", 1, Vmsd("d", 1, [num("a", "uint8", 3)], [other]).body()) is None


def test_arrays_of_structs_are_described_as_qemu_does():
    schema = taught(Vmsd("d", 1, [structs("s", [PLAIN, PLAIN, PLAIN])]))
    assert matches(schema, Vmsd("d", 1, [structs("s", [Vmsd("in", 1, [num("x", "uint8", i)]) for i in range(3)])]))
    assert not matches(schema, Vmsd("d", 1, [structs("s", [PLAIN, PLAIN])]))


def test_a_device_is_found_by_the_last_part_of_its_path():
    schema = taught(Vmsd("ide", 3, [num("a", "uint8", 1)]))
    assert fit(schema, "0000:00:01.1/ide", 3, b"x") is not None
    assert fit(schema, "0000:00:01.1/ide", 2, b"x") is None
    assert fit(schema, "ide/other", 3, b"x") is None


def test_ambiguity_is_told_and_the_machine_decides():
    first = Vmsd("d", 1, [num("old", "uint16", 1)])
    second = Vmsd("d", 1, [num("new", "uint8", 1), num("er", "uint8", 1)])
    for shapes in ([first, second], [second, first]):
        schema = learn([(described(shapes[0]), "pc-i440fx-1.0"), (described(shapes[1]), "pc-q35-2.0")])
        for machine, wanted in (
            ("pc-i440fx-1.0", shapes[0]),
            ("pc-q35-2.0", shapes[1]),
            ("pc-i440fx-9.0", shapes[0]),
            ("pc-q35-9.0", shapes[1]),
        ):
            found = fit(schema, "d", 1, b"ab", machine)
            assert found.ambiguous
            assert found.description == described(wanted).devices[0].description
        assert fit(schema, "d", 1, b"abc") is None
    assert not fit(taught(first), "d", 1, b"ab").ambiguous
    assert not fit(taught(first, first), "d", 1, b"ab").ambiguous


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_description_that_was_learned_fits_its_own_body(data):
    kinds = st.sampled_from(["uint8", "uint16", "int32", "uint64", "bool", "buffer", "array", "struct", "structs"])

    def vmsd(name, depth):
        fields: list[Item] = []
        for i in range(data.draw(st.integers(0, 4))):
            kind = data.draw(kinds)
            if kind == "buffer":
                fields.append(raw(f"f{i}", data.draw(st.binary(min_size=1, max_size=6))))
            elif kind == "array":
                fields.append(nums(f"f{i}", "uint16", data.draw(st.lists(st.integers(0, 9), min_size=2, max_size=4))))
            elif kind == "struct" and depth:
                fields.append(struct_(f"f{i}", vmsd(f"{name}_{i}", depth - 1)))
            elif kind == "structs" and depth:
                one = Vmsd(f"{name}_{i}", 1, [num("x", "uint8", 3)])
                fields.append(structs(f"f{i}", [one] * data.draw(st.integers(2, 4))))
            elif kind not in ("struct", "structs"):
                fields.append(num(f"f{i}", kind, 1))
        more = data.draw(st.integers(0, 2)) if depth else 0
        return Vmsd(name, 1, fields, [vmsd(f"{name}/s{i}", depth - 1) for i in range(more)])

    one = vmsd("d", 2)
    schema = taught(one)
    found = fit(schema, "d", 1, one.body())
    assert found is not None
    assert found.description.size == len(one.body())
    if not found.ambiguous:
        assert found.description == described(one).devices[0].description


GOOD = json.loads(learn([(described(Vmsd("d", 1, [struct_("s", INNER)])), "pc-1")]).to_json())


def changed(**parts):
    return json.dumps({**GOOD, **parts})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "{",
        '"schema"',
        "[" * 100_000,
        changed(schema=2),
        changed(schema="1"),
        changed(shapes=[]),
        changed(shapes={}),
        changed(shapes=[[]] * 9),
        changed(shapes=None),
        changed(devices=[["d", 1, [[99, []]]]]),
        changed(devices=[["d", 1, [[-99, []]]]]),
        changed(devices=[["d"]]),
        changed(devices=7),
        changed(devices=[["d", "one", [[0, []]]]]),
        changed(shapes=[["d", 1, [], [0]]], devices=[["d", 1, [[0, []]]]]),  # a shape inside itself
        changed(shapes=[["d", 1, [["f", "struct", 0, None, [0]]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "x", 0, None, [], [0]]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", -1]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", 1 << 60]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", 1, 1 << 30]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", 1, -1]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", 1, 1, 1, 1, 1, 1]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", "1"]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", 1.5]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", None]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f", "uint8", True]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, [["f"]], []]], devices=[["d", 1, [[0, []]]]]),
        changed(shapes=[["d", 1, "fields", []]], devices=[["d", 1, [[0, []]]]]),
    ],
)
def test_a_hostile_schema_is_refused(text):
    with pytest.raises(QmigError):
        load(text)


def test_a_deep_chain_of_shapes_is_refused():
    rows = [[f"d{i}", 1, [], [i + 1]] for i in range(5000)] + [["end", 1, [], []]]
    with pytest.raises(StreamError):
        load(changed(shapes=rows, devices=[["d", 1, [[0, []]]]]))


def test_a_schema_file_that_is_none(tmp_path):
    for name, data in (
        ("a.json", b"\xff\xfe"),
        ("a.json.xz", b"not xz"),
        ("b.json.xz", lzma.compress(b"{}")),
        ("c.json.xz", lzma.compress(learn([facts("pc-7.2")[:2]]).to_json().encode())[:-30]),
        ("d.json", b"{}"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StreamError):
            load_file(str(tmp_path / name))
    with pytest.raises(OSError, match="No such file"):
        load_file(str(tmp_path / "none"))


def test_streams_without_a_vmdesc_are_known():
    assert all(qmigtool.open(path(name)).vmdesc is None for name in NO_VMDESC)
