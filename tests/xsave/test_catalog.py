"""Built-in layouts: the CPUs of public dumps, and QEMU's CPU models, against what real QEMU says of them."""

import json

import pytest

from qmigtool.cli.main import run
from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.preflight import read_targets
from qmigtool.xsave import Layout, is_layout_name, layout, layout_names, model_names
from qmigtool.xsave.vendor import vendor
from tests.support.qemu.machine import Machine, Qemu


@pytest.mark.parametrize(
    ("name", "xcr0", "xss", "standard", "compacted"),
    [
        # InstLatx64 087af2c7d72c; sizes by CPUID.(0DH,0).ECX and by the walk of SDM volume 1, 13.4.3
        ("intel-skx", 0x2FF, 0x100, 2696, 2568),
        ("intel-icx", 0x2E7, 0x100, 2696, 2440),
        ("intel-adl-noavx512", 0x207, 0x19900, 2696, 840),
        ("intel-rpl", 0x207, 0x19900, 2696, 840),
    ],
)
def test_cpus_of_public_dumps(name, xcr0, xss, standard, compacted):
    cpu = layout(name)
    assert (cpu.user_mask, cpu.supervisor_mask, cpu.absent) == (xcr0, xss, {})
    assert (cpu.standard_size(), cpu.leaf[0][2], cpu.compacted_size(xcr0)) == (standard, standard, compacted)
    assert cpu.source.startswith("InstLatx64/InstLatx64@087af2c7d72c:GenuineIntel/")


@pytest.mark.parametrize(
    ("name", "xcr0", "xss", "pkru", "standard"),
    [
        ("SapphireRapids", 0x602E7, 0, 2688, 11008),
        ("sapphirerapids-v1", 0x602E7, 0, 2688, 11008),
        ("SapphireRapids-v8", 0x602E7, 0x1800, 2688, 11008),
        ("EPYC-Genoa", 0x2E7, 0, 2432, 2440),
        ("epyc-turin", 0x2E7, 0, 2432, 2440),
        ("EPYC-Milan-v2", 0x207, 0, 2432, 2440),
        ("Cascadelake-Server", 0x2E7, 0, 2688, 2696),
        ("DiamondRapids", 0xE02E7, 0x1800, 2688, 11008),
        ("YongFeng", 0x207, 0, 2688, 2696),
    ],
)
def test_cpu_models_of_qemu(name, xcr0, xss, pkru, standard):
    cpu = layout(name)
    assert (cpu.user_mask, cpu.supervisor_mask, cpu.absent) == (xcr0, xss, {})
    assert (cpu.standard_offset(9), cpu.standard_size()) == (pkru, standard)
    assert cpu.name.lower() == name.lower()
    assert layout(f"  {name.upper()} ") == cpu


def test_models_without_pkru_or_avx():
    assert (layout("Haswell").user_mask, layout("Denverton").user_mask, layout("EPYC-Rome").user_mask) == (7, 0x1B, 7)
    assert (layout("Opteron_G5").features, layout("EPYC-v1").features, layout("EPYC-v4").features) == (0, 7, 0xF)


def test_models_without_xsave():
    for name in ("Nehalem", "core2duo", "486-v1"):
        with pytest.raises(UnsupportedError, match="no XSAVE"):
            layout(name)
        target = read_targets([name])
        assert (target.xcr0, target.layout) == (3, None)


def test_every_name_gives_a_layout():
    for name in layout_names():
        assert layout(name).name == name
    for name in model_names():
        assert is_layout_name(name)
        try:
            assert layout(name).absent == {}
        except UnsupportedError as error:
            assert error.feature == "a layout of a CPU without XSAVE"  # noqa: PT017
    assert not is_layout_name("SapphireRapids-v99")
    with pytest.raises(UsageError, match="SapphireRapids-v"):
        layout("SapphireRapids-v99")


def test_the_command_line_and_preflight_take_models(capsys):
    assert run(["xsave", "layouts", "epyc-genoa", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["layouts"]
    assert (found["name"], found["xcr0_mask"], found["standard_size"]) == ("EPYC-Genoa", "0x2e7", 2440)
    assert read_targets(["EPYC-Genoa"]).xcr0 == 0x2E7
    assert run(["xsave", "layouts", "Nehalem"]) == 63


@pytest.mark.qemu
def test_real_qemu_expands_models_in_the_same_way():
    """The installed QEMU, whatever its version: the models that it shares with the table, by their first versions."""
    names = ("SapphireRapids-v1", "EPYC-v1", "EPYC-Milan-v1", "EPYC-Rome-v1", "Skylake-Server-v1", "Haswell-v1")
    bits = {"avx": 4, "mpx": 0x18, "avx512f": 0xE0, "pku": 0x200, "amx-tile": 0x60000}
    with Qemu(Machine(accel="tcg", memory="16M")) as qemu:
        known = {one["name"] for one in qemu.execute("query-cpu-definitions")}
        asked = [name for name in names if name in known]
        assert len(asked) > 3
        for name in asked:
            props = qemu.execute("query-cpu-model-expansion", type="full", model={"name": name})["model"]["props"]
            assert layout(name).user_mask == 3 | sum(mask for flag, mask in bits.items() if props[flag]), name
            flags = ("xsaveopt", "xsavec", "xgetbv1", "xsaves")
            assert layout(name).features & 0xF == sum(props[flag] << bit for bit, flag in enumerate(flags)), name


def test_every_built_in_layout_says_whose_cpu_it_is():
    """InstLatx64 keeps its dumps in folders by CPUID leaf 0's word; QEMU's own two layouts are of no CPU."""
    for name in layout_names():
        cpu = layout(name)
        if cpu.source.startswith("InstLatx64/"):
            assert cpu.source.rpartition(":")[2].split("/")[0] == cpu.vendor
        else:
            assert cpu.vendor in ("AuthenticAMD", "GenuineIntel") or (name, cpu.vendor) in {
                ("qemu", "none"),
                ("tcg", "none"),
            }
    assert layout("EPYC-Genoa").vendor == "AuthenticAMD"
    assert layout("SapphireRapids").vendor == layout("YongFeng").vendor == "GenuineIntel"  # the family's


def test_words_in_a_name_do_not_say_whose_cpu_it_is():
    rows = layout("amd-zen1").leaf
    assert vendor(Layout.from_leaf_0xd("amd-hsw", rows, title="intel-EPYC", source="GenuineIntel")) == ""
    assert vendor(Layout.from_leaf_0xd("intel-x", rows, vendor="AuthenticAMD")) == "AMD"
