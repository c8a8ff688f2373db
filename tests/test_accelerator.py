import pytest

import qmigtool
from qmigtool import accelerator
from qmigtool.errors import UsageError
from tests import samplefiles
from tests.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, raw, struct_, x86_cpu, zero


def inferred(*devices):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    w.end(1, zero(0, "r") + eos())
    for number, (name, vmsd) in enumerate(devices):
        w.device(2 + number, name, 0, vmsd)
    with qmigtool.open(w.finish()) as stream:
        return stream.accelerator


def plain(name):
    return name, Vmsd(name, 1, [num("x", "uint8", 1)])


def cpu(xstate_bv=0, tr=0, tsc=1, mp_state=0, **parts):
    segment = Vmsd("segment", 1, [num("selector", "uint32", 0), num("flags", "uint32", tr << 8)])
    extra = [struct_("env.tr", segment), num("env.tsc", "uint64", tsc), num("env.mp_state", "uint32", mp_state)]
    return "cpu", x86_cpu(xstate_bv=xstate_bv, extra=extra, **parts)


@pytest.mark.parametrize(
    ("devices", "name", "words"),
    [
        ([plain("kvmclock")], "kvm", "kvmclock"),
        ([plain("mshv-clock")], "mshv", "mshv-clock"),
        ([plain("mshv-apic")], "mshv", "mshv-apic"),
        ([cpu(xmm=[(1, 1)], tr=11)], "tcg", "XSTATE_BV 0"),
        ([cpu(xstate_bv=7, tr=11, mp_state=1)], "kvm", "mp_state"),
        ([cpu(tr=9)], "tcg", "TR"),
        ([cpu(tr=11, tsc=0)], "tcg", "env.tsc is 0"),
        ([cpu(tr=11)], "unknown", "nothing"),
        ([cpu(xstate_bv=7, tr=11)], "unknown", "nothing"),
        ([plain("timer")], "unknown", "nothing"),
        (
            [
                (
                    "cpu_common",
                    Vmsd("cpu_common", 1, [], [Vmsd("cpu_common/exception_index", 1, [num("e", "int32", 1)])]),
                )
            ],
            "tcg",
            "exception_index",
        ),
        (
            [cpu(tr=11, subsections=[Vmsd("cpu/kvm_nested_state", 1, [raw("data", b"x")])])],
            "kvm",
            "nested",
        ),
    ],
)
def test_evidence(devices, name, words):
    found = inferred(*devices)
    assert found.name == name
    assert words in found.evidence[0]
    assert not found.given


def test_the_strongest_evidence_wins_and_only_its_own_is_shown():
    found = inferred(plain("kvmclock"), cpu(xmm=[(1, 1)], tr=9))
    assert found.name == "kvm"
    assert found.evidence == ("section kvmclock, which only KVM sends",)


def test_device_state_that_cannot_be_decoded_tells_nothing():
    with qmigtool.open(samplefiles.path("arm-7.2")) as stream:
        assert stream.accelerator.name == "unknown"


def test_names():
    assert accelerator.NAMES == ("kvm", "tcg", "mshv", "whpx", "hvf")
    assert accelerator.parse(None) is None
    assert accelerator.parse("KVM") == accelerator.Accelerator("kvm", ("given by the caller",), given=True)
    with pytest.raises(UsageError):
        accelerator.parse("")
