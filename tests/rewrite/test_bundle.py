"""The MSHV bundle: out of a stream and back into it, and broken bundles."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import LiveStateError, OutputError, QmigError, StreamError, UsageError
from qmigtool.rewrite import Rewriter
from qmigtool.rewrite.bundle import export_bundle, import_bundle
from qmigtool.x86.mshv import MSHV_MSRS
from qmigtool.xsave import layout
from tests.rewrite.editing import assert_true, bodies, rewritten, sample, stream_of
from tests.support import casefiles
from tests.support.streamwriter import Vmsd, num, x86_cpu

STREAMS = ["kvm-avx512-7.2", "pc-7.2", "pc-11.1", "q35-7.2", "twin-kvm-10.0", "twin-tcg-10.0", "microvm-10.0"]
STREAMS += ["plain-5.2", "nofooter-7.2"]


def exported(source, folder, where="amd-zen4", *, replace=False, **options):
    with qmigtool.open(source, **options) as stream:
        return export_bundle(stream, folder, layout(where), replace=replace)


def imported(source, folder, **options):
    return rewritten(source, lambda r: import_bundle(r, folder), **options)


def change(folder, edit):
    document = json.loads((folder / "bundle.json").read_text())
    edit(document)
    (folder / "bundle.json").write_text(json.dumps(document))


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_there_and_back_changes_nothing(name, tmp_path):
    done = 0
    for where in ("amd-zen4", "intel-clx", "intel-spr", "qemu"):
        try:
            document = exported(sample(name), tmp_path / where, where)
        except LiveStateError:
            continue
        done += 1
        for entry in document["vcpus"]:
            data = (tmp_path / where / entry["file"]).read_bytes()
            assert len(data) == entry["buffer"]
            assert len(data) % 4096 == 0
            assert not any(data[entry["size"] :])
            # XSTATE_BV and XCOMP_BV by hand.
            assert int.from_bytes(data[512:520], "little") == int(entry["xstate_bv"], 0)
            assert int.from_bytes(data[520:528], "little") == int(entry["xcomp_bv"], 0) >= 1 << 63
        assert json.loads((tmp_path / where / "bundle.json").read_text()) == document
        back = imported(sample(name), tmp_path / where)
        assert (back.data, back.changes) == (sample(name).read_bytes(), [])
    assert done >= 2


def test_a_hypervisor_changed_a_register(tmp_path):
    exported(sample("kvm-avx512-7.2"), tmp_path / "b")
    file = tmp_path / "b" / "vcpu-0.xsave"
    data = bytearray(file.read_bytes())
    data[160:168] = bytes(range(8))
    file.write_bytes(data)
    done = imported(sample("kvm-avx512-7.2"), tmp_path / "b")
    with qmigtool.open(done.data) as stream:
        assert stream.field("cpu@0/env.xmm_regs[0][0]/_q_ZMMReg[0]").value == 0x0706050403020100
    assert len(done.changes) == 1
    assert_true(done.data)


PATHS = {msr.name: msr.path for msr in MSHV_MSRS}
VALUE = 0x0123456789ABCDEF


@pytest.mark.slow
@pytest.mark.parametrize("msr", [msr for msr in MSHV_MSRS if msr.name != "TSC"], ids=lambda msr: msr.name)
def test_every_msr_arrives_in_its_field(msr, tmp_path):
    """Also one whose subsection was not sent: it comes, and nothing else."""
    source = sample("kvm-avx512-7.2")
    exported(source, tmp_path / "b")
    value = VALUE & 0xFFFFFFFF if msr.name == "SYSENTER_CS" else VALUE
    found = []

    def edit(document):
        for one in document["vcpus"][0]["msrs"]:
            if int(one["index"], 0) == msr.number:
                found.append(one["name"])
                one["value"] = hex(value)

    change(tmp_path / "b", edit)
    assert found == [msr.name]
    done = imported(source, tmp_path / "b")
    with qmigtool.open(done.data) as stream, qmigtool.open(source) as old:
        assert stream.field(f"cpu@0/{msr.path}").value == value
        for other in MSHV_MSRS:
            if other != msr:
                before, after = old.device("cpu").number(other.path), stream.device("cpu").number(other.path)
                assert (after or 0) == (before or 0), other.name
    assert_true(done.data)
    assert {k: v for k, v in bodies(done.data).items() if k[0] != "cpu"} == (
        {k: v for k, v in bodies(source).items() if k[0] != "cpu"}
    )


def test_the_numbers_of_msrs():
    """From the SDM and the TLFS, a few of each."""
    numbers = {msr.name: msr.number for msr in MSHV_MSRS}
    known = {"EFER": 0xC0000080, "PAT": 0x277, "STAR": 0xC0000081, "LSTAR": 0xC0000082, "TSC": 0x10, "XSS": 0xDA0}
    known |= {"KERNEL_GS_BASE": 0xC0000102, "TSC_AUX": 0xC0000103, "MTRR_DEF_TYPE": 0x2FF, "SPEC_CTRL": 0x48}
    known |= {"MTRR_PHYSBASE7": 0x20E, "MTRR_PHYSMASK7": 0x20F, "HV_GUEST_OS_ID": 0x40000000, "S_CET": 0x6A2}
    assert {name: numbers[name] for name in known} == known
    assert len(set(numbers.values())) == len(MSHV_MSRS)
    assert PATHS["MTRR_FIX_26F"] == "env.mtrr_fixed[10]"


def test_tsc_of_tcg_is_the_clock_of_the_machine(tmp_path):
    exported(sample("pc-7.2"), tmp_path / "b")

    def edit(document):
        for vcpu in document["vcpus"]:
            for one in vcpu["msrs"]:
                if one["name"] == "TSC":
                    one["value"] = hex((1 << 64) - 5 - vcpu["vcpu"])

    change(tmp_path / "b", edit)
    done = imported(sample("pc-7.2"), tmp_path / "b")
    assert [(c.where, c.new) for c in done.changes] == [("timer@0/cpu_ticks_offset", -5)]
    with qmigtool.open(sample("kvm-avx512-7.2")) as stream:
        before = stream.field("cpu/env.tsc").value
    exported(sample("kvm-avx512-7.2"), tmp_path / "k")
    change(tmp_path / "k", edit)
    done = imported(sample("kvm-avx512-7.2"), tmp_path / "k")
    assert [(c.where, c.old, c.new) for c in done.changes] == [("cpu@0/env.tsc", before, (1 << 64) - 5)]


def test_xcr0_arrives(tmp_path):
    exported(sample("twin-kvm-10.0"), tmp_path / "b")
    change(tmp_path / "b", lambda d: d["vcpus"][0].update(xcr0="0xe7"))
    done = imported(sample("twin-kvm-10.0"), tmp_path / "b")
    assert [(c.where, c.old, c.new) for c in done.changes] == [("cpu@0/env.xcr0", 7, 0xE7)]


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_what_is_exported_has_a_place(tmp_path):
    pkru = Vmsd("cpu/pkru", 1, [num("env.pkru", "uint32", 5)])
    with qmigtool.open(sample("arm-7.2")) as stream, pytest.raises(QmigError):
        export_bundle(stream, tmp_path / "b", layout("qemu"))
    source = stream_of(("cpu", 0, x86_cpu(subsections=[pkru], xcr0=0x207, xstate_bv=0x207)))
    with pytest.raises(LiveStateError) as caught:
        exported(source, tmp_path / "b", "amd-zen2", accelerator="kvm")
    assert "PKRU" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text("precious")
    with pytest.raises(UsageError):
        exported(sample("pc-7.2"), tmp_path / "b")
    assert (tmp_path / "b" / "file").read_text() == "precious"


# A small stream: one vCPU, and a bundle of it.
SMALL = stream_of(("timer", 0, Vmsd("timer", 2, [num("cpu_ticks_offset", "int64", 5)])), ("cpu", 0, x86_cpu()))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mshv") / "bundle"
    exported(SMALL, folder, accelerator="kvm")
    return folder


def refused(folder, kind=QmigError):
    with qmigtool.open(SMALL, accelerator="kvm") as stream, pytest.raises(kind):
        import_bundle(Rewriter(stream), folder)


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "5", "[]", "{}", "{", '{"schema": 2}', '{"schema": "1"}', '{"schema": 1}', '{"schema": true'),
        *('{"schema": 1, "vcpus": []}', '{"schema": 1, "layout": {}, "vcpus": []}', "[" * 100_000, "\x00"),
        *('{"schema": 1, "layout": {"name": "x", "leaf_0xd": {}}, "vcpus": []}', '{"schema": 1, "layout": 5}'),
    ],
)
def test_a_manifest_that_is_none(text, bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)
    (folder / "bundle.json").write_text(text)
    refused(folder)


def test_a_manifest_that_is_not_even_text(bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)
    (folder / "bundle.json").write_bytes(b"\xff\xfe" * 100)
    refused(folder, StreamError)
    (folder / "bundle.json").write_bytes(b" " * (17 << 20))
    refused(folder, StreamError)


ODD = [
    None,
    True,
    -1,
    5,
    1 << 70,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "0x",
    "-1",
    "0x1ffffffffffffffff",
    [],
    [[]],
    {},
    {"0": []},
]
PLACES = [
    ("layout",),
    ("layout", "leaf_0xd"),
    ("layout", "leaf_0xd", "0"),
    ("layout", "leaf_0xd", "2"),
    ("layout", "leaf_0xd", "2", 0),
    ("layout", "leaf_0xd", "x"),
    ("vcpus",),
    ("vcpus", 0),
    ("vcpus", 0, "vcpu"),
    ("vcpus", 0, "size"),
    ("vcpus", 0, "xcr0"),
    ("vcpus", 0, "msrs"),
    ("vcpus", 0, "msrs", 0),
    ("vcpus", 0, "msrs", 0, "index"),
    ("vcpus", 0, "msrs", 0, "value"),
    ("vcpus", 0, "msrs", 10, "value"),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda p: "/".join(map(str, p)))
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_values_of_the_wrong_kind(place, value, bundle, tmp_path):
    """It is an error of ours, or it is taken for what it says; never a traceback."""
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)

    def edit(document):
        *way, last = place
        for key in way:
            document = document[key]
        document[last] = value

    change(folder, edit)
    with qmigtool.open(SMALL, accelerator="kvm") as stream:
        rewriter = Rewriter(stream)
        try:
            import_bundle(rewriter, folder)
        except (QmigError, FileNotFoundError):
            return
    out = rewritten(SMALL, lambda r: import_bundle(r, folder), accelerator="kvm").data
    assert_true(out)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_documents_of_any_kind(bundle, tmp_path_factory, data):
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["vcpu", "size", "xcr0", "msrs", "index", "value", "name", "leaf_0xd", "0", "1"]), inner
            )
        ),
        max_leaves=12,
    )
    folder = tmp_path_factory.mktemp("any") / "b"
    shutil.copytree(bundle, folder)
    document = json.loads((bundle / "bundle.json").read_text())
    document[data.draw(st.sampled_from(["layout", "vcpus"]))] = data.draw(values)
    (folder / "bundle.json").write_text(json.dumps(document))
    with qmigtool.open(SMALL, accelerator="kvm") as stream:
        try:
            import_bundle(Rewriter(stream), folder)
        except (QmigError, FileNotFoundError):
            return


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "vcpu-7.xsave", "", 5, None])
def test_names_of_files_are_never_paths(name, bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)
    (tmp_path / "outside").write_bytes(b"\xff" * 4096)
    (folder / "vcpu-7.xsave").write_bytes(b"\xff" * 4096)
    change(folder, lambda d: d["vcpus"][0].update(file=name))
    assert imported(SMALL, folder, accelerator="kvm").data == SMALL


@pytest.mark.parametrize(
    "value", ["10", "0b111", "0o7", "0x_7", " 0x7", "0x7 ", "+0x7", "7", 7, "0X7", "0x" + "0" * 17]
)
@pytest.mark.parametrize("place", [("xcr0",), ("xcr0_beside",), ("msrs", 0, "value"), ("msrs", 0, "index")], ids=str)
def test_a_number_is_written_as_export_does(place, value, bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)

    def edit(document):
        *way, last = place
        part = document["vcpus"][0]
        for key in way:
            part = part[key]
        part[last] = value

    change(folder, edit)
    refused(folder, StreamError)


@pytest.mark.parametrize("key", ["vcpu", "size"])
@pytest.mark.parametrize("value", ["0", True, "0x240", "1_0"])
def test_a_plain_number_is_one(key, value, bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)
    change(folder, lambda d: d["vcpus"][0].update({key: value}))
    refused(folder, StreamError)


@pytest.mark.parametrize("value", ["0x5", "0x0", "0x63", "0x8000000000000003"])
def test_an_xcr0_that_no_cpu_takes(value, tmp_path):
    exported(sample("kvm-avx512-7.2"), tmp_path / "b", "qemu")
    change(tmp_path / "b", lambda d: d["vcpus"][0].update(xcr0=value))
    with qmigtool.open(sample("kvm-avx512-7.2")) as stream, pytest.raises((StreamError, LiveStateError)):
        import_bundle(Rewriter(stream), tmp_path / "b")


def test_an_xcr0_that_does_not_enable_what_the_area_has(tmp_path):
    exported(sample("kvm-avx512-7.2"), tmp_path / "b")
    change(tmp_path / "b", lambda d: d["vcpus"][0].update(xcr0="0x7"))
    with qmigtool.open(sample("kvm-avx512-7.2")) as stream:
        with pytest.raises(LiveStateError) as caught:
            import_bundle(Rewriter(stream), tmp_path / "b")
        assert caught.value.components == ("opmask", "ZMM_Hi256", "Hi16_ZMM")
    done = rewritten(sample("kvm-avx512-7.2"), lambda r: import_bundle(r, tmp_path / "b"), lossy=True)
    with qmigtool.open(done.data) as stream:
        (vcpu,) = stream.vcpus
        assert (vcpu.xcr0, vcpu.xstate_bv & 0xE0, vcpu.live & 0xE0) == (7, 0, 0)
    assert "opmask ZMM_Hi256 Hi16_ZMM" in done.losses[0]


def test_an_xcr0_of_another_cpu_than_the_bundle_has(tmp_path):
    """MPX: amd-zen4 does not have it."""
    exported(sample("kvm-avx512-7.2"), tmp_path / "b")
    change(tmp_path / "b", lambda d: d["vcpus"][0].update(xcr0_beside="0x18"))
    wanted = pytest.raises(LiveStateError, match="amd-zen4 does not have: BNDREGS BNDCSR")
    with qmigtool.open(sample("kvm-avx512-7.2")) as stream, wanted:
        import_bundle(Rewriter(stream), tmp_path / "b")
    done = rewritten(sample("kvm-avx512-7.2"), lambda r: import_bundle(r, tmp_path / "b"), lossy=True)
    assert done.data == sample("kvm-avx512-7.2").read_bytes()
    assert "BNDREGS BNDCSR" in done.losses[0]


def test_areas_of_the_wrong_size(bundle, tmp_path):
    for number, edit in enumerate(
        [
            lambda f: f.write_bytes(b""),
            lambda f: f.write_bytes(f.read_bytes()[:500]),
            lambda f: f.write_bytes(f.read_bytes()[:-1] + b"\1"),  # padding is zeros
            lambda f: f.write_bytes(bytes(2 << 20)),
            lambda f: f.write_bytes(b"\xff" * 4096),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(bundle, folder)
        edit(folder / "vcpu-0.xsave")
        refused(folder)
    for number, size in enumerate([0, -1, 575, 4097, 1 << 30]):
        folder = tmp_path / f"size {number}"
        shutil.copytree(bundle, folder)
        change(folder, lambda d, size=size: d["vcpus"][0].update(size=size))
        refused(folder)
    (folder / "vcpu-0.xsave").unlink()
    with qmigtool.open(SMALL, accelerator="kvm") as stream, pytest.raises((QmigError, FileNotFoundError)):
        import_bundle(Rewriter(stream), folder)


def twice(document, place):
    """Return the manifest with the first key of the object at ``place`` twice."""
    part = document
    for key in place:
        part = part[key]
    key = next(iter(part))
    part["again"] = part[key]
    return json.dumps(document).replace('"again":', f"{json.dumps(key)}:")


@pytest.mark.parametrize(
    "place",
    [(), ("layout",), ("layout", "leaf_0xd"), ("vcpus", 0), ("vcpus", 0, "msrs", 0)],
    ids=lambda place: "/".join(map(str, place)) or "document",
)
def test_a_key_that_is_there_twice(place, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    manifest = tmp_path / "b" / "bundle.json"
    manifest.write_text(twice(json.loads(manifest.read_text()), place))
    with (
        qmigtool.open(SMALL, accelerator="kvm") as stream,
        pytest.raises(StreamError, match="is listed twice") as caught,
    ):
        import_bundle(Rewriter(stream), tmp_path / "b")
    assert caught.value.file == str(manifest)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda d: d["vcpus"][0].update(msrs=[{"index": "0x277", "value": v} for v in ("0x1", "0x2")]),
            "MSR 0x277 of vCPU 0",
        ),
        (lambda d: d["vcpus"].append(d["vcpus"][0]), "vCPU 0"),
        (lambda d: d["layout"]["leaf_0xd"].update({"02": ["0x100", "0x240", "0x0", "0x0"]}), ""),
    ],
)
def test_an_item_that_is_listed_twice(edit, message, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    change(tmp_path / "b", edit)
    with qmigtool.open(SMALL, accelerator="kvm") as stream, pytest.raises(StreamError) as caught:
        import_bundle(Rewriter(stream), tmp_path / "b")
    assert caught.value.message == (f"{message} is listed twice" if message else caught.value.message)
    assert caught.value.file == str(tmp_path / "b" / "bundle.json")


def test_an_error_names_the_file_of_the_bundle(bundle, tmp_path, capsys):
    """The stream is not at fault."""
    source = tmp_path / "source.mig"
    source.write_bytes(SMALL)
    cases = {
        "bundle.json": [
            lambda folder: (folder / "bundle.json").write_text("{}"),
            lambda folder: change(folder, lambda d: d["vcpus"][0].update(xcr0="0x5")),
            lambda folder: change(folder, lambda d: d["vcpus"][0].update(xcr0="0x8000000000000003")),
        ],
        "vcpu-0.xsave": [
            lambda folder: (folder / "vcpu-0.xsave").write_bytes(bytes(600)),
            lambda folder: (folder / "vcpu-0.xsave").write_bytes(b"\xff" * 4096),
        ],
    }
    for name, edits in cases.items():
        for number, edit in enumerate(edits):
            folder = tmp_path / f"{name} {number}"
            shutil.copytree(bundle, folder)
            edit(folder)
            command = ["mshv", "import", str(source), str(folder), "--accelerator", "kvm", "-o", str(tmp_path / "out")]
            assert main.run(command) in (1, 3), (name, number)
            assert f"{folder / name}: " in capsys.readouterr().err, (name, number)


def test_a_vcpu_that_is_not_there(bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle, folder)
    (folder / "vcpu-3.xsave").write_bytes((folder / "vcpu-0.xsave").read_bytes())
    change(folder, lambda d: d["vcpus"][0].update(vcpu=3))
    refused(folder, UsageError)


# -- the program ------------------------------------------------------------------------------------------------------


def test_the_program(tmp_path, capsys):
    source, folder, out = str(sample("pc-7.2")), str(tmp_path / "b"), tmp_path / "out"
    assert main.run(["mshv", "export", source, "-o", folder, "--layout", "amd-zen4"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("vCPU") == 4
    assert main.run(["mshv", "import", source, folder, "-o", str(out)]) == 0
    assert out.read_bytes() == sample("pc-7.2").read_bytes()
    assert main.run(["mshv", "export", source, "-o", folder, "--layout", "amd-zen4"]) == 2
    assert main.run(["mshv", "import", source, folder, "-o", source]) == 2
    assert main.run(["mshv", "import", source, str(tmp_path / "none"), "-o", str(out)]) == 2
    (tmp_path / "b" / "bundle.json").write_text("{}")
    assert main.run(["mshv", "import", source, folder, "-o", str(tmp_path / "never")]) == 3
    (tmp_path / "b" / "vcpu-1.xsave").unlink()
    assert not (tmp_path / "never").exists()
    assert "Traceback" not in "".join(capsys.readouterr())


# -- what the bundle says ----------------------------------------------------------------------------------------------


def test_the_order_and_the_registers(tmp_path):
    """As QEMU 11.1.3 wrote them on a stand-in for /dev/mshv; tests/oracle/test_mshv_bundle.py asks it."""
    document = exported(sample("pc-7.2"), tmp_path / "b")
    assert [step["what"] for step in document["order"]] == ["xcr0", "msrs", "file"]
    assert document["order"][0]["register"] == "0x40005"
    first, second = ([one["name"] for one in entry["msrs"]] for entry in document["vcpus"][:2])
    assert first[12:20] == [
        *("TSC_ADJUST", "HV_HYPERCALL", "HV_GUEST_OS_ID", "HV_REFERENCE_TSC", "HV_SCONTROL", "HV_SIEFP", "HV_SIMP"),
        "MTRR_DEF_TYPE",
    ]
    assert first[20:29] == [
        *("U_CET", "S_CET", "PL0_SSP", "PL1_SSP", "PL2_SSP", "PL3_SSP", "INTERRUPT_SSP_TABLE", "XSS", "SPEC_CTRL"),
    ]
    assert first[29:45] == [f"MTRR_PHYS{kind}{i}" for kind in ("BASE", "MASK") for i in range(8)]
    assert [name for name in first if name not in second] == ["HV_HYPERCALL", "HV_GUEST_OS_ID", "HV_REFERENCE_TSC"]
    by_name = {one["name"]: one for one in document["vcpus"][0]["msrs"]}
    assert by_name["XSS"]["register"] == "0x8008b"
    assert {name for name, one in by_name.items() if one.get("only") == "a partition with the feature"} == {
        *("TSC_ADJUST", "U_CET", "S_CET", "PL0_SSP", "PL1_SSP", "PL2_SSP", "PL3_SSP", "INTERRUPT_SSP_TABLE", "XSS"),
        "SPEC_CTRL",
    }
    assert len({one["register"] for one in by_name.values()}) == len(by_name)


def test_what_stays_behind_is_said(tmp_path, capsys):
    """pc-7.2: XCR0 0x21f on three vCPUs, and MSHV's header has no PKRU."""
    document = exported(sample("pc-7.2"), tmp_path / "b", "intel-clx")
    behind = [note for note in document["notes"] if "is left out" in note]
    assert [note.split(":")[0] for note in behind] == ["vCPU 0", "vCPU 1", "vCPU 2"]
    assert all("PKRU of XCR0 0x21f" in note for note in behind)
    source = str(sample("pc-7.2"))
    assert main.run(["mshv", "export", source, "-o", str(tmp_path / "c"), "--layout", "intel-clx", "--mask", "7"]) == 0
    said = capsys.readouterr().err
    assert said.count("BNDREGS BNDCSR PKRU of XCR0 0x21f is left out") == 3


def test_live_msrs_that_need_a_feature_are_said(tmp_path):
    document = exported(casefiles.read("xsave", "cet-guest.mig"), tmp_path / "b", accelerator="mshv")
    said = " ".join(document["notes"])
    for name in ("XSS is 0x1800", "U_CET is 0x3", "PL0_SSP is 0xfeed0000", "INTERRUPT_SSP_TABLE is 0x3333"):
        assert name in said


@pytest.mark.parametrize(
    ("size", "code"), [("4096", 0), ("8K", 0), ("0x3000", 0), ("0", 2), ("100", 2), ("4097", 2), ("2M", 2), ("x", 2)]
)
def test_the_buffer(size, code, tmp_path, capsys):
    source, folder = str(sample("kvm-avx512-7.2")), tmp_path / "b"
    arguments = ["mshv", "export", source, "-o", str(folder), "--layout", "amd-zen4", "--buffer-size", size, "--json"]
    assert main.run(arguments) == code
    out = capsys.readouterr().out
    if not code:
        entry = json.loads(out)["vcpus"][0]
        wanted = {"4096": 4096, "8K": 8192, "0x3000": 12288}[size]
        assert entry["buffer"] == wanted == (folder / "vcpu-0.xsave").stat().st_size
        assert any("one page" in note for note in json.loads(out)["notes"]) == (wanted > 4096)
        assert main.run(["mshv", "import", source, str(folder), "--dry-run"]) == 0
    else:
        assert not folder.exists()


def test_an_area_that_is_larger_than_the_buffer(tmp_path):
    source = casefiles.read("xsave", "xfd.mig")
    with qmigtool.open(source) as stream:
        with pytest.raises(LiveStateError, match="10688 bytes, the buffer 4096"):
            export_bundle(stream, tmp_path / "b", layout("intel-spr"), 0x600E7, buffer_size=4096)
        document = export_bundle(stream, tmp_path / "b", layout("intel-spr"), 0x600E7, buffer_size=12288)
        assert document["vcpus"][0]["buffer"] == 12288


def test_a_page_that_hyperv_filled(tmp_path):
    """CET_U and CET_S are in the page without their XSTATE_BV bits; the list of MSRs counts."""
    source = casefiles.read("xsave", "cet-guest.mig")
    exported(source, tmp_path / "b", accelerator="mshv")
    page = casefiles.read("xsave", "hyperv-page-quirk.compacted")
    (tmp_path / "b" / "vcpu-0.xsave").write_bytes(page)
    change(tmp_path / "b", lambda d: d["vcpus"][0].update(size=2472))
    with qmigtool.open(source, accelerator="mshv") as stream:
        rewriter = Rewriter(stream)
        import_bundle(rewriter, tmp_path / "b")
        assert rewriter.changes == []  # the page has the guest's own CET state
        assert any("CET_U CET_S" in note for note in rewriter.notes)
    other = bytearray(page)
    other[2432] = 7
    (tmp_path / "b" / "vcpu-0.xsave").write_bytes(other)
    with qmigtool.open(source, accelerator="mshv") as stream:
        rewriter = Rewriter(stream)
        import_bundle(rewriter, tmp_path / "b")
        assert any("MSR 0x6a0 is 0x7 in the area and 0x3 in the list" in note for note in rewriter.notes)


def test_an_export_is_repeated_only_where_it_replaces_nothing_but_a_bundle(tmp_path):
    folder = tmp_path / "bundle"
    exported(SMALL, folder, accelerator="kvm")
    first = {one.name: one.read_bytes() for one in folder.iterdir()}
    (folder / "vcpu-0.xsave").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"exists already.*--replace"):
        exported(SMALL, folder, accelerator="kvm")
    exported(SMALL, folder, accelerator="kvm", replace=True)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == first
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="exists already"):
        exported(SMALL, folder, accelerator="kvm", replace=True)
    assert (folder / "mine.txt").read_text() == "keep"
    (folder / "mine.txt").unlink()
    (folder / "bundle.json").write_text("{}")
    with pytest.raises(OutputError, match="exists already"):
        exported(SMALL, folder, accelerator="kvm", replace=True)
    assert [one.name for one in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_without_a_bundle_is_refused_by_what_it_is_not(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "none"):
        assert main.run(["mshv", "import", str(sample("pc-7.2")), str(folder), "--dry-run"]) == 2
        assert f"'{folder}' is not a folder of `mshv export` (expected a folder with" in capsys.readouterr().err
