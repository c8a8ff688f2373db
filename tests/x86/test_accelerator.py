import pytest

import qmigtool
from qmigtool.errors import UsageError
from qmigtool.x86 import accelerator
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, raw, struct_, x86_cpu, zero


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
        ([cpu(tr=9)], "tcg", "TR"),
        ([cpu(tr=11, tsc=0)], "tcg", "env.tsc is 0"),
        ([cpu(tr=11)], "unknown", "too little"),
        ([cpu(xstate_bv=7, tr=11)], "unknown", "the hypervisor is not known"),
        ([cpu(xstate_bv=7, tr=11, mp_state=1)], "unknown", "the hypervisor is not known"),
        (
            [cpu(tr=11, tsc=0, subsections=[Vmsd("cpu/cet", 1, [num("x", "uint64", 0)])])],
            "unknown",
            "the hypervisor is not known",
        ),
        ([cpu(tr=11, tsc=0, xcr0=0xE7)], "unknown", "the hypervisor is not known"),
        ([plain("kvmclock"), cpu(xmm=[(1, 1)], tr=9)], "unknown", "contradicts"),
        ([plain("kvmclock"), plain("mshv-clock")], "unknown", "contradicts"),
        ([plain("kvm-tpr-opt")], "unknown", "no evidence"),
        ([plain("timer")], "unknown", "no evidence"),
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


def test_what_speaks_against_it_is_said():
    found = inferred(plain("kvmclock"), cpu(xmm=[(1, 1)], tr=11))
    assert (found.name, found.tcg) == ("kvm", False)
    assert found.evidence == (
        "section kvmclock, which only KVM sends",
        "against it: vCPU 0 has live state 0x2 and XSTATE_BV 0: TCG never sets it",
    )
    found = inferred(cpu(xmm=[(1, 1)], xstate_bv=7, tr=9, tsc=0))  # of TCG, and XSTATE_BV was repaired
    assert (found.name, found.tcg) == ("tcg", True)
    assert found.evidence[-1] == "against it: XSTATE_BV of vCPU 0 is 0x7, and TCG never sets it"


@pytest.mark.parametrize(
    ("devices", "tcg"),
    [
        ([cpu(xstate_bv=7, tr=11)], False),
        ([plain("kvmclock"), plain("mshv-clock")], False),
        ([cpu(xstate_bv=7, tr=11, tsc=0)], None),  # two weak marks, and one of them can be an edit's
        ([cpu(tr=11)], None),
        ([plain("kvmclock"), cpu(tr=9)], None),
        ([cpu(tr=9)], True),
    ],
)
def test_not_tcg_is_known_without_a_name_and_unknown_is_not_false(devices, tcg):
    assert inferred(*devices).tcg is tcg


def test_device_state_that_cannot_be_decoded_tells_nothing():
    with qmigtool.open(samplefiles.path("arm-7.2")) as stream:
        assert stream.accelerator.name == "unknown"


def test_names():
    assert accelerator.NAMES == ("kvm", "tcg", "mshv", "whpx", "hvf")
    assert accelerator.parse(None) is None
    assert accelerator.parse("KVM") == accelerator.Accelerator("kvm", ("given by the caller",), given=True)
    with pytest.raises(UsageError):
        accelerator.parse("")


def test_the_words_do_not_repeat_that_it_is_unknown():
    assert inferred(cpu(xstate_bv=7, tr=11)).words == "saved by: unknown; --accelerator NAME decides"
    assert inferred(cpu(tr=11)).words == "saved by: unknown (too little evidence); --accelerator NAME decides"
