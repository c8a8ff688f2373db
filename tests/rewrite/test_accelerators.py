"""Rules of conversion, one by one: what each changes, what it refuses, and that it is needed for the twins to agree."""

import io

import pytest

import qmigtool
from qmigtool.parsers.vmstate import Kind
from qmigtool.rewrite import Rewriter
from qmigtool.rewrite.accelerators import RULES, TARGETS, convert, rules_for
from qmigtool.rewrite.document import rewrite_document
from qmigtool.x86.vcpu import tcg_hflags
from tests.support import samplefiles

# What differs between the twins besides: two runs of one guest, and what each accelerator shows of the same thing
# (limit bits of segments, DR4 and DR5, MTRR masks, the firmware's SMM).
NOISE = (
    *(
        "env.eip",
        "env.regs",
        "env.eflags",
        "env.segs",
        "env.dr",
        "env.mtrr_var",
        "env.smbase",
        "env.tsc",
        "env.tr/flags",
    ),
    *("env.system_time_msr", "cpu/poll_control_msr", "cpu/tsc_khz", "cpu/fpop_ip_dp", "cpu/msr_smi_count"),
    "cpu/msr_ia32_misc_enable",
)


def opened(name):
    return qmigtool.open(samplefiles.path(name))


def leaves(fields, prefix=""):
    for field in fields:
        if field.kind is Kind.LEAF or (field.kind is Kind.ARRAY and field.value is not None):
            yield prefix + field.name, field.value
        else:
            yield from leaves(field.children, prefix if field.kind is Kind.ARRAY else f"{prefix}{field.name}/")


def values(device):
    return {path: value for path, value in leaves(device.fields) if not path.startswith(NOISE)}


def converted(stream, accelerator, **more):
    rewriter = Rewriter(stream)
    convert(rewriter.draft, accelerator, **more)
    return rewriter


def st(vcpu):
    area = vcpu.xsave
    return [area.st(i) for i in range(8)]


@pytest.mark.parametrize(("name", "twin"), [("tcg", "kvm"), ("kvm", "tcg")])
def test_a_twin_becomes_the_other(name, twin, tmp_path):
    with opened(f"twin-{name}-10.0") as stream, opened(f"twin-{twin}-10.0") as other:
        assert values(stream.device("cpu")) != values(other.device("cpu"))
        rewriter = converted(stream, twin)
        rewriter.save(tmp_path / "made.mig")
        # hflags are only compared where they are not recomputed: under TCG.
        drop = {"env.hflags"} if twin == "kvm" else set()
        with qmigtool.open(tmp_path / "made.mig", accelerator=twin) as made:
            mine, theirs = values(made.device("cpu")), values(other.device("cpu"))
            assert {k: v for k, v in mine.items() if k not in drop} == {
                k: v for k, v in theirs.items() if k not in drop
            }
            assert st(made.vcpus[0]) == st(other.vcpus[0])
            assert made.vcpus[0].mxcsr == other.vcpus[0].mxcsr == 0x9FC0
            for component in ("SSE", "AVX"):
                assert made.vcpus[0].xsave.component(component) == other.vcpus[0].xsave.component(component)
            assert {device.label for device in made.devices} | {"kvmclock@0"} == {
                device.label for device in other.devices
            } | {"kvmclock@0"}


@pytest.mark.parametrize(
    ("name", "target", "rule", "path"),
    [
        ("tcg", "kvm", "undeclared-state", "cpu/env.xstate_bv"),
        ("tcg", "kvm", "x87-to-stack", "cpu/env.fpregs[0]/tmp/tmp_mant"),
        ("tcg", "kvm", "pic-edge", "i8259/last_irr"),
        ("tcg", "kvm", "tsc-from-ticks", "cpu/env.tsc"),
        ("tcg", "kvm", "tr-busy", "cpu/env.tr/flags"),
        ("kvm", "tcg", "hidden-flags", "cpu/env.hflags"),
        ("kvm", "tcg", "tr-available", "cpu/env.tr/flags"),
        ("kvm", "tcg", "pit-times", "i8254/channels[0]/count_load_time"),
        ("kvm", "tcg", "pit-times", "i8254/channels[0].next_transition_time"),
        ("kvm", "tcg", "ticks-from-tsc", "timer/cpu_ticks_offset"),
        ("kvm", "tcg", "x87-to-physical", "cpu/env.fpregs[0]/tmp/tmp_mant"),
        ("kvm", "tcg", "undeclare", "cpu/env.xstate_bv"),
    ],
)
def test_a_rule_changes_its_field_and_without_it_nothing_does(name, target, rule, path):
    with opened(f"twin-{name}-10.0") as stream:
        before = stream.field(path).raw

        def after(without):
            section, rest = converted(stream, target, without=without).draft.find(path)
            return section.device.field(rest).raw

        # undeclared-mxcsr declares one bit more where undeclared-state has declared none.
        assert after(()) != before
        assert after({rule, "undeclared-mxcsr"}) == before


def test_numbers_of_the_rules():
    """The values themselves, computed by hand from what the twins hold."""
    with opened("twin-kvm-10.0") as stream:
        draft = converted(stream, "tcg").draft
        clock = 9005721025
        assert stream.field("timer/cpu_clock_offset").value == clock
        pit = draft.section("i8254").device
        assert pit.number("channels[0]/count_load_time") == clock
        assert pit.number("channels[0]/next_transition_time") == clock + 11932 * 1_000_000_000 // 1_193_182
        assert draft.section("timer").device.number("cpu_ticks_offset") == stream.field("cpu/env.tsc").value
        assert draft.section("cpu").device.number("env.hflags") == 0x40C2B3 | 1 << 28
        assert draft.section("cpu").device.number("env.tr/flags") == 0x8900
    with opened("twin-tcg-10.0") as stream:
        draft = converted(stream, "kvm").draft
        cpu = draft.section("cpu").device
        assert cpu.number("env.xstate_bv") == 7
        assert cpu.number("env.tsc") == stream.field("timer/cpu_ticks_offset").value
        assert cpu.number("env.tr/flags") == 0x8B17
        # TOP is 5: ST(0) is physical register 5.
        assert cpu.number("env.fpregs[0]/tmp/tmp_mant") == stream.field("cpu/env.fpregs[5]/tmp/tmp_mant").value


# -- which rules there are -------------------------------------------------------------------------------------------


def test_every_pair_has_its_rules():
    names = {
        (source, target): {rule.name for rule in rules_for(source, target)}
        for source in ("tcg", "kvm", "mshv", "whpx", "hvf")
        for target in TARGETS
        if source != target
    }
    assert {
        "undeclared-state",
        "x87-to-stack",
        "pic-edge",
        "mp-state",
        "tsc-from-ticks",
        "tr-busy",
        "non-canonical",
    } <= names["tcg", "kvm"]
    assert {
        "foreign-section",
        "hidden-flags",
        "tr-available",
        "pit-times",
        "ticks-from-tsc",
        "x87-to-physical",
        "halted",
        "tcg-components",
    } <= names["kvm", "tcg"]
    assert {"foreign-section", "pit-times", "partition-components", "nested-state", "not-written"} <= names[
        "kvm", "mshv"
    ]
    assert "x87-to-stack" not in names["kvm", "mshv"]
    assert {"undeclared-state", "x87-to-stack", "partition-components"} <= names["tcg", "mshv"]
    assert "pic-edge" not in names["tcg", "mshv"]  # its PIC is QEMU's own, too
    assert {"foreign-section", "pic-edge"} <= names["mshv", "kvm"]
    for pair, found in names.items():
        assert not {"x87-to-stack", "x87-to-physical"} <= found, pair


def test_names_are_unique_and_reasons_are_given():
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.why
        assert rule.status in ("proved", "source", "inferred")
        assert rule.loss is None or (rule.loss.name and rule.loss.message)


def test_unknown_accelerators():
    with opened("twin-kvm-10.0") as stream, pytest.raises(qmigtool.UsageError, match=r"xen"):
        converted(stream, "xen")
    with opened("twin-kvm-10.0") as stream:
        rewriter = converted(stream, "kvm")
        assert (rewriter.changes, rewriter.notes) == ([], ["the stream is in kvm's form already"])


# -- components ------------------------------------------------------------------------------------------------------


def test_avx512_is_refused_under_tcg_by_name_or_dropped_and_told():
    with opened("kvm-avx512-7.2") as stream:
        with pytest.raises(qmigtool.LiveStateError, match=r"opmask ZMM_Hi256 Hi16_ZMM.*tcg-components") as caught:
            converted(stream, "tcg")
        assert caught.value.components == ("opmask", "ZMM_Hi256", "Hi16_ZMM")
        rewriter = converted(stream, "tcg", lossy=True)
        (vcpu,) = rewriter.draft.vcpus
        assert (vcpu.xcr0, vcpu.live, vcpu.xstate_bv) == (7, 7, 0)
        assert rewriter.draft.section("cpu").device.subsection("cpu/avx512") is None
        assert len([loss for loss in rewriter.losses if "was live" in loss]) == 3


def test_mshv_takes_avx512_and_no_pkru():
    with opened("kvm-avx512-7.2") as stream:
        rewriter = converted(stream, "mshv")
        assert [vcpu.live for vcpu in rewriter.draft.vcpus] == [0xE7]
        assert {change.edit for change in rewriter.changes} == {"foreign-section", "pit-times"}
        rewriter = Rewriter(stream)
        rewriter.set_xcr0(0, 0x2E7)
        rewriter.add_subsection("cpu@0", "cpu/pkru", {"env.pkru": 4})
        with pytest.raises(qmigtool.LiveStateError, match=r"live PKRU.*partition-components"):
            convert(rewriter.draft, "mshv")
        convert(rewriter.draft, "mshv", lossy=True)
        assert [vcpu.xcr0 for vcpu in rewriter.draft.vcpus] == [0xE7]
        assert any("PKRU was live: 0400000000000000" in loss for loss in rewriter.losses)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"xcr0": 7}, "XCR0 0x7"),
        ({"layout": "amd-zen2"}, "layout amd-zen2"),
        ({"layout": "amd-zen2", "xcr0": 7}, "layout amd-zen2 with XCR0 0x7"),
    ],
)
def test_a_mask_that_excludes_a_component_is_named_not_the_accelerator(given, name):
    with opened("kvm-avx512-7.2") as stream:
        with pytest.raises(
            qmigtool.LiveStateError, match=rf"^{name} does not have the components: vCPU 0: live opmask"
        ):
            Rewriter(stream).to_accelerator("mshv", **given)
        rewriter = Rewriter(stream, lossy=True)
        rewriter.to_accelerator("mshv", **given)
        # Each component is listed once.
        assert [loss.split(" was live")[0] for loss in rewriter.losses] == [
            f"vCPU 0: {component}" for component in ("opmask", "ZMM_Hi256", "Hi16_ZMM")
        ]
        reasons = {change.reason for change in rewriter.changes if change.edit == "partition-components"}
        assert any(reason.startswith(f"{name} does not have the component: ") for reason in reasons)
        assert "QEMU does not send cpu/avx512 if all of its fields are 0" in reasons
        assert not any("PKRU" in reason for reason in reasons)


def test_idle_components_go_without_loss():
    with opened("pc-7.2") as stream:
        rewriter = converted(stream, "mshv")
        assert [vcpu.xcr0 for vcpu in rewriter.draft.vcpus] == [0x1F, 0x1F, 0x1F, 7]
        rewriter = converted(stream, "kvm", mask=0xE7)
        assert [vcpu.xcr0 for vcpu in rewriter.draft.vcpus] == [7, 7, 7, 7]
        assert [vcpu.xstate_bv for vcpu in rewriter.draft.vcpus] == [3, 7, 7, 7]
        assert not rewriter.losses
    with opened("pc-7.2") as stream:
        rewriter = converted(stream, "kvm")
        assert any("XCR0 has BNDREGS BNDCSR PKRU" in note for note in rewriter.notes)


def test_a_mask_that_live_state_does_not_fit():
    with (
        opened("pc-7.2") as stream,
        pytest.raises(qmigtool.LiveStateError, match=r"vCPU 1: live AVX.*not-enabled-components"),
    ):
        converted(stream, "kvm", mask=3)


# -- what a vCPU waits for -------------------------------------------------------------------------------------------


def test_halted_and_waiting_vcpus_under_kvm():
    with opened("pc-7.2") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu_common@1/halted", 1)
        rewriter.set("cpu_common@2/halted", 1)
        rewriter.add_subsection("apic@2", "apic_sipi", {"wait_for_sipi": 1})
        rewriter.set("cpu_common@0/interrupt_request", 0x10)
        convert(rewriter.draft, "kvm", mask=7)
        states = [section.device.number("env.mp_state") for section in rewriter.draft.named("cpu")]
        assert states == [0, 3, 2, 0]
        assert rewriter.draft.section("cpu_common@0").device.number("interrupt_request") == 0


@pytest.mark.parametrize("state", [1, 2])
@pytest.mark.parametrize("target", ["tcg", "mshv"])
def test_waiting_vcpus_under_others(target, state):
    left = 0 if target == "tcg" else state
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu/env.mp_state", state)
        convert(rewriter.draft, target)
        draft = rewriter.draft
        assert draft.section("cpu").device.number("env.mp_state") == left
        assert draft.section("cpu_common").device.number("halted") == 1
        assert draft.section("apic").device.number("apic_sipi/wait_for_sipi") == 1
        rewriter = Rewriter(stream)
        rewriter.set("cpu/env.mp_state", 3)
        convert(rewriter.draft, target)
        assert rewriter.draft.section("apic").device.subsection("apic_sipi") is None
        assert rewriter.draft.section("cpu_common").device.number("halted") == 1


def test_hidden_flags_follow_cr4():
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        cr4 = stream.field("cpu/env.cr[4]").value
        rewriter.set("cpu/env.cr[4]", cr4 | 1 << 11 | 1 << 21)
        rewriter.set("cpu/env.hflags", stream.field("cpu/env.hflags").value | 3 << 12)
        convert(rewriter.draft, "tcg")
        flags = rewriter.draft.section("cpu").device.number("env.hflags")
        assert flags & (1 << 27 | 1 << 23 | 1 << 28) == 1 << 27 | 1 << 23 | 1 << 28
        assert not flags & 3 << 12
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu/env.cr[4]", 0x20)
        convert(rewriter.draft, "tcg")
        assert not rewriter.draft.section("cpu").device.number("env.hflags") >> 28 & 1


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "rule", "word"),
    [
        ("cpu/env.lstar", 0x8000_0000_0000_0000, "non-canonical", "canonical"),
        ("cpu/env.segs[4]/base", 0x0001_0000_0000_0000, "non-canonical", "canonical"),
        ("cpu/env.mxcsr", 0x100000, "illegal-registers", "reserved"),
        ("cpu/env.cr[0]", 0x80000000, "illegal-registers", "PG without PE"),
        ("cpu/env.cr[0]", 0x20000011, "illegal-registers", "NW without CD"),
        ("cpu/env.xcr0", 5, "illegal-registers", "SSE"),
        ("cpu/env.hflags", 1 << 19, "smm", "system management mode"),
        ("cpu_common/interrupt_request", 0x402, "pending-init", "an INIT or a SIPI is pending"),
    ],
)
def test_what_a_hypervisor_does_not_take(path, value, rule, word):
    with opened("twin-tcg-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set(path, value)
        with pytest.raises(qmigtool.LiveStateError, match=rf"{word}.*{rule}"):
            convert(rewriter.draft, "kvm")


def test_a_loss_has_its_place_and_values():
    with opened("twin-tcg-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu/env.lstar", 1 << 63)
        convert(rewriter.draft, "kvm", lossy=True)
        (lost,) = rewriter.draft.losses
        assert (lost.rule, lost.where) == ("non-canonical", "cpu@0/env.lstar")
        assert lost.offset == stream.field("cpu@0/env.lstar").offset
        assert lost.as_dict()["values"] == {"value": "0x8000000000000000", "expected": "0x0"}


def test_57_bit_addresses_are_canonical_with_la57():
    with opened("twin-tcg-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu/env.cr[4]", stream.field("cpu/env.cr[4]").value | 1 << 12)
        rewriter.set("cpu/env.lstar", 0xFF00_0000_0000_1234)
        convert(rewriter.draft, "kvm")


def test_nested_guests_are_kvm_only():
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.add_subsection("cpu", "cpu/nested_state", data=bytes(8))
        with pytest.raises(qmigtool.LiveStateError, match=r"nested virtualisation.*nested-state"):
            convert(rewriter.draft, "mshv")
        convert(rewriter.draft, "mshv", lossy=True)
        assert rewriter.draft.section("cpu").device.subsection("cpu/nested_state") is None


def test_what_mshv_and_whpx_do_not_restore_is_told():
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu/env.dr", [0x1000, 0, 0, 0, 0xFFFF0FF0, 0x401, 0xFFFF0FF0, 0x401])
        convert(rewriter.draft, "mshv")
        assert any("debug registers" in note for note in rewriter.notes)
        assert any("kvmclock is set up" in note for note in rewriter.notes)
    with opened("twin-kvm-10.0") as stream:
        rewriter = converted(stream, "whpx")
        assert any("PAT is 0x7050100070406" in note for note in rewriter.notes)


def test_sections_of_mshv_go_under_kvm():
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        convert(rewriter.draft, "mshv")
        rewriter.add_section("mshv-clock", 1, data=bytes(8))
        rewriter.add_section("mshv-apic", 1, data=bytes(20))
        convert(rewriter.draft, "kvm")
        assert not {"mshv-clock@0", "mshv-apic@0"} & {section.label for section in rewriter.draft.sections}


# -- what reviews found ----------------------------------------------------------------------------------------------


def six_vcpus(name):
    """A stream with six vCPUs whose APIC IDs have a gap, as -smp 6,sockets=2,cores=3 gives: 0 1 2 4 5 6."""
    with opened(name) as stream:
        rewriter = Rewriter(stream)
        for instance, apic_id in zip(range(1, 6), (1, 2, 4, 5, 6), strict=True):
            for idstr, number in (("cpu", instance), ("cpu_common", instance), ("apic", apic_id)):
                if any(s.label == f"{idstr}@{number}" for s in rewriter.draft.sections):
                    continue
                copied = rewriter.draft.section(f"{idstr}@0")
                rewriter.draft.insert(idstr, number, copied.section.version_id, copied.description, copied.body, copied)
        out = io.BytesIO()
        rewriter.write(out)
    return out.getvalue()


def test_an_apic_belongs_to_the_vcpu_of_its_rank():
    with qmigtool.open(six_vcpus("twin-tcg-10.0")) as stream:
        rewriter = Rewriter(stream)
        rewriter.add_subsection("apic@4", "apic_sipi", {"wait_for_sipi": 1})  # the fourth: of cpu@3
        rewriter.set("cpu_common@3/halted", 1)
        rewriter.set("cpu_common@5/halted", 1)
        convert(rewriter.draft, "kvm")
        states = [section.device.number("env.mp_state") for section in rewriter.draft.named("cpu")]
        assert states == [0, 0, 0, 2, 0, 3]
    with qmigtool.open(six_vcpus("twin-kvm-10.0")) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@5/env.mp_state", 2)
        convert(rewriter.draft, "tcg")
        waiting = [s.label for s in rewriter.draft.named("apic") if s.device.subsection("apic_sipi")]
        assert waiting == ["apic@6"]
        assert rewriter.draft.section("cpu_common@5").device.number("halted") == 1


def test_apics_that_cannot_be_paired_are_refused():
    with qmigtool.open(six_vcpus("twin-tcg-10.0")) as stream:
        rewriter = Rewriter(stream)
        rewriter.drop_section("apic@4")
        with pytest.raises(qmigtool.LiveStateError, match=r"6 vCPUs and 5 sections 'apic'"):
            convert(rewriter.draft, "kvm")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cpu/env.mxcsr", 0x100000),
        ("cpu/env.cr[0]", 0x80000000),
        ("cpu/env.hflags", 1 << 19),
        ("cpu/env.hflags", 1 << 21),
        ("cpu/env.mp_state", 77),
    ],
)
def test_what_nothing_can_be_put_in_place_of_is_refused_even_if_losses_are_allowed(path, value):
    with opened("twin-tcg-10.0") as stream:
        rewriter = Rewriter(stream, lossy=True)
        rewriter.set(path, value)
        with pytest.raises(qmigtool.LiveStateError):
            rewriter.to_accelerator("kvm")


def test_losses_that_are_allowed_leave_what_loads():
    with opened("twin-tcg-10.0") as stream:
        rewriter = Rewriter(stream, lossy=True)
        rewriter.set("cpu_common/interrupt_request", 0x402)
        rewriter.set("cpu/env.lstar", 0x8000_0000_1234_5678)
        rewriter.to_accelerator("kvm")
        assert rewriter.draft.section("cpu_common").device.number("interrupt_request") == 0
        assert rewriter.draft.section("cpu").device.number("env.lstar") == 0x1234_5678
        assert len(rewriter.losses) == 2


def test_dependents_count_before_it_is_asked_what_is_live():
    with opened("kvm-avx512-7.2") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu/cpu/avx512/env.xmm_regs[1]", bytes(1024))  # Hi16_ZMM is idle, the two others are not
        with pytest.raises(qmigtool.LiveStateError, match=r"live opmask ZMM_Hi256"):
            convert(rewriter.draft, "mshv", mask=0x67)
        with pytest.raises(qmigtool.UsageError, match=r"0x67 is not a valid XCR0"):
            rewriter.to_accelerator("mshv", xcr0=0x67)


def test_an_nmi_or_smi_that_is_pending_stays():
    with opened("twin-tcg-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu_common/interrupt_request", 0x200 | 0x40 | 0x12)
        convert(rewriter.draft, "kvm")
        assert rewriter.draft.section("cpu_common").device.number("interrupt_request") == 0x240


def test_a_nested_guest_of_tcg_is_refused_too():
    with opened("twin-tcg-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu/env.hflags", stream.field("cpu/env.hflags").value | 1 << 21)
        with pytest.raises(qmigtool.LiveStateError, match=r"nested guest.*nested-state"):
            convert(rewriter.draft, "kvm")


@pytest.mark.parametrize(("path", "value"), [("env.interrupt_injected", 0x20), ("env.nmi_pending", 1)])
def test_queued_events_are_not_dropped_in_silence(path, value):
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set(f"cpu/{path}", value)
        with pytest.raises(qmigtool.LiveStateError, match=r"is queued.*queued-event"):
            convert(rewriter.draft, "tcg")
        convert(rewriter.draft, "tcg", lossy=True)
        assert rewriter.draft.section("cpu").device.number(path) == (-1 if value == 0x20 else 0)


@pytest.mark.parametrize(("target", "fits"), [("mshv", True), ("whpx", False), ("tcg", False)])
def test_shadow_stacks_only_go_where_they_are_restored(target, fits):
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.add_subsection("cpu", "cpu/cet", {"env.u_cet": 1})
        if fits:
            convert(rewriter.draft, target)
            assert rewriter.draft.section("cpu").device.subsection("cpu/cet") is not None
            return
        with pytest.raises(qmigtool.LiveStateError, match=r"live CET_U"):
            convert(rewriter.draft, target)


def test_hidden_flags_of_an_earlier_tcg_go():
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        stale = 1 << 28 | 1 << 27 | 1 << 25 | 1 << 23
        rewriter.set("cpu/env.hflags", stream.field("cpu/env.hflags").value | stale)
        rewriter.set("cpu/env.cr[4]", 0x20)
        convert(rewriter.draft, "tcg")
        assert not rewriter.draft.section("cpu").device.number("env.hflags") & stale


def test_hidden_flags_follow_xcr0_in_a_stream_of_tcg():
    with opened("twin-tcg-10.0") as stream:
        assert stream.field("cpu/env.hflags").value >> 28 & 1
        rewriter = Rewriter(stream)
        rewriter.drop_component("avx")
        assert not rewriter.draft.section("cpu").device.number("env.hflags") >> 28 & 1
        rewriter.set_xcr0(0, 7)
        assert rewriter.draft.section("cpu").device.number("env.hflags") >> 28 & 1


@pytest.mark.parametrize("name", ["twin-tcg-10.0", "pc-7.2", "pc-11.1", "q35-7.2", "microvm-10.0"])
def test_hidden_flags_are_those_that_tcg_itself_had(name):
    with opened(name) as stream:
        for device in stream.devices:
            if device.name == "cpu":
                assert tcg_hflags(device) == device.number("env.hflags") & ~(3 << 12)


def test_a_pit_that_fires_once_fires():
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("i8254/channels[0]/mode", 0)
        convert(rewriter.draft, "tcg")
        pit = rewriter.draft.section("i8254").device
        assert pit.number("channels[0]/next_transition_time") > pit.number("channels[0]/count_load_time") > 0
        assert any("one-shot mode" in note for note in rewriter.notes)


def test_the_same_accelerator_on_another_cpu():
    with opened("twin-kvm-10.0") as stream:
        rewriter = Rewriter(stream)
        rewriter.set_xcr0(0, 0xE7)
        convert(rewriter.draft, "kvm", mask=7)
        assert [vcpu.xcr0 for vcpu in rewriter.draft.vcpus] == [7]
        assert {change.edit for change in rewriter.changes} == {"set-xcr0", "not-enabled-components"}


def test_a_conversion_is_whole_or_nothing():
    with opened("kvm-avx512-7.2") as stream:
        rewriter = Rewriter(stream)
        before = rewriter.draft.section("cpu").body
        for _ in range(2):
            with pytest.raises(qmigtool.LiveStateError, match=r"tcg-components"):
                rewriter.to_accelerator("tcg")
            assert (rewriter.changes, rewriter.notes, rewriter.losses) == ([], [], [])
            assert rewriter.draft.section("cpu").body == before
            assert rewriter.splices() == []


def test_other_machines_are_not_converted():
    with opened("arm-7.2") as stream, pytest.raises(qmigtool.UnsupportedError, match=r"no x86 vCPU"):
        converted(stream, "kvm")


def test_every_rule_that_was_proved_with_real_qemu_is_there():
    to_kvm = {"undeclared-state", "undeclared-mxcsr", "x87-to-stack", "not-enabled-components", "pic-edge", "mp-state"}
    to_kvm |= {"tsc-from-ticks", "tr-busy", "non-canonical", "illegal-registers", "smm"}
    to_tcg = {"foreign-section", "hidden-flags", "tr-available", "pit-times", "ticks-from-tsc", "x87-to-physical"}
    to_tcg |= {"halted", "tcg-components", "paravirtual", "undeclare"}
    assert to_kvm | to_tcg <= {rule.name for rule in RULES}


def test_the_document_has_losses_and_notes_as_records() -> None:
    with qmigtool.open(samplefiles.path("kvm-avx512-7.2")) as stream:
        edits = Rewriter(stream, lossy=True)
        edits.to_accelerator("tcg")
        document = rewrite_document(edits, [], None)
    assert document["losses"]
    for one in (*document["losses"], *document["notes"]):
        assert set(one) >= {"rule", "severity", "message", "device", "field", "offset", "values"}
    assert {one["severity"] for one in document["losses"]} == {"error"}
    assert {one["rule"] for one in document["losses"]} == {"tcg-components"}
