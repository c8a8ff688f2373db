"""The table of cpu's subsections, against what streams, binaries and real loads show."""

import json
import lzma
from importlib import resources

import pytest

from qmigtool.devices.schema.cpusection import BY_CPUID, CPU_SUBSECTIONS, order_of
from qmigtool.devices.schema.shapes import place_of
from qmigtool.stream.opening import open_stream
from tests.support.paths import DATA
from tests.support.samplefiles import SAMPLES, X86, path

RESAVED = DATA / "preflight" / "targets" / "resaved.json"
# Subsections that the three binaries that were read do not have: efer32 is of 32-bit ones.
OTHERS = {"cpu/efer32"}


def sent(stream):
    return [
        [field.name for field in vcpu.device.fields if field.kind == "subsection"]
        for vcpu in stream.vcpus
        if vcpu.device.schema_name is None
    ]


def test_real_streams_have_them_in_this_order(tmp_path):
    files = [path(name) for name in X86]
    for name in ("plain-5.2", "q35-5.2", "xbzrle-11.1"):
        files.append(tmp_path / name)
        files[-1].write_bytes(lzma.decompress((SAMPLES / "packed" / f"{name}.mig.xz").read_bytes()))
    seen = set()
    for file in files:
        with open_stream(file) as stream:
            for names in sent(stream):
                places = [order_of(name) for name in names]
                assert None not in places
                assert places == sorted(places)
                seen |= {*names}
    assert len(seen) > 4  # of what a guest at its boot has


def test_the_binaries_of_qemu_have_the_same_ones():
    document = json.loads(resources.files("qmigtool.devices.schema").joinpath("vmsds.json").read_text())
    known = {name for shape in document["vmsds"]["cpu"] for name in shape if isinstance(name, str)}
    assert {one.name for one in CPU_SUBSECTIONS} == known | OTHERS, "add the name to OTHERS"


def test_no_name_is_there_twice():
    assert len({one.name for one in CPU_SUBSECTIONS}) == len(CPU_SUBSECTIONS)
    assert order_of("cpu/none") is None


def test_what_tcg_loaded_and_did_not_send_again():
    """Real QEMU: a subsection of zeros or not, loaded by TCG and gone when it saved."""
    runs = json.loads(RESAVED.read_text())["runs"].values()
    lost, checked = set(), 0
    for run in runs:
        if "tcg" not in run["arguments"] or not run["loaded"]:
            continue
        checked += 1
        for key, (before, after) in run["changed"].items():
            name = key.partition("/")[2]
            if before is not None and after is None and name in BY_CPUID:
                lost.add(name)
    assert checked
    assert lost
    assert all(not BY_CPUID[name].tcg for name in lost)


@pytest.mark.parametrize(
    ("name", "features"),
    [  # CPUID bits that the C functions look at
        ("cpu/intel_amx_xtile", ("amx-tile",)),
        ("cpu/msr_xfd", ("xfd",)),
        ("cpu/cet", ("cet-ss", "cet-ibt")),
        ("cpu/intel_sgx", ("sgxlc",)),
        ("cpu/msr_tsx_ctrl", ("tsx-ctrl",)),
    ],
)
def test_features_have_the_names_that_cpu_help_prints(name, features):
    assert BY_CPUID[name].features == features
    reply = json.loads((RESAVED.parent / "expansion-max-11.1.json").read_text())["return"]["model"]["props"]
    assert {*features} <= reply.keys()


def test_the_place_of_one_that_is_added():
    there = ["cpu/fpop_ip_dp", "cpu/xss", "cpu/tsc_khz"]
    assert place_of("cpu/exception_info", there) == 0
    assert place_of("cpu/avx512", there) == 1
    assert place_of("cpu/apx", there) == 3
    assert place_of("cpu/of_a_later_qemu", there) == 3
