import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import LimitError, QmigError, UnsupportedError, UsageError, XsaveError
from qmigtool.xsave import Layout, layout, parse_cpuid_dump
from qmigtool.xsave.cpuid import no_xsave, parse_cpuid_rows, split_choice
from tests.xsave.cputext.texts import case

SPR = [
    (0x00, "000602e7", "00002b00", "00002b00"),
    (0x01, "0000001f", "00002a80", "0000dd00"),
    (0x02, "00000100", "00000240", "00000000"),
    (0x05, "00000040", "00000440", "00000000"),
    (0x06, "00000200", "00000480", "00000000"),
    (0x07, "00000400", "00000680", "00000000"),
    (0x08, "00000080", "00000000", "00000001"),
    (0x09, "00000008", "00000a80", "00000000"),
    (0x0A, "00000008", "00000000", "00000001"),
    (0x0B, "00000010", "00000000", "00000001"),
    (0x0C, "00000018", "00000000", "00000001"),
    (0x0E, "00000030", "00000000", "00000001"),
    (0x0F, "00000328", "00000000", "00000001"),
    (0x11, "00000040", "00000ac0", "00000002"),
    (0x12, "00002000", "00000b00", "00000006"),
]
GRACEMONT = [
    (0, "00000207", "00000a88", "00000a88"),
    (1, "0000000f", "00000358", "00019900"),
    (2, "00000100", "00000240", "00000000"),
    (9, "00000008", "00000a80", "00000000"),
]


def cpuid_r(rows):
    """The lines of `cpuid -r`."""
    lines = [
        "   0x00000000 0x00: eax=0x00000020 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69",
        "   0x0000000c 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000",
        *(f"   0x0000000d 0x{i:02x}: eax=0x{a} ebx=0x{b} ecx=0x{c} edx=0x00000000" for i, a, b, c in rows),
        "   0x0000000e 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000",
        "   0x8000000d 0x00: eax=0x00000007 ebx=0x00000000 ecx=0x00000000 edx=0x00000000",
    ]
    return "\n".join(lines) + "\n"


def aida(rows, labels=True):
    """The lines of an InstLatx64 file."""
    lines = [
        "CPUID 00000000: 00000020-756E6547-6C65746E-49656E69 [GenuineIntel]",
        "CPUID 0000000C: " + "-".join(["0" * 8] * 4),
    ]
    for i, a, b, c in rows:
        label = f" [SL {i:02X}] [AVX-512 Opmask]" if labels else ""
        lines.append(f"CPUID 0000000D: {a}-{b}-{c}-00000000".upper() + label)
    lines += ["CPUID 0000000E: " + "-".join(["0" * 8] * 4), "CPUID 8000000D: 00000007-00000000-00000000-00000000"]
    return "\n".join(lines) + "\n"


def header(number):
    return (
        f"\n------[ CPUID Registers / Logical CPU #{number} ]------\n\nallcpu: Package 0 / Core 0 / Thread 0: Valid\n\n"
    )


def is_sapphire_rapids(cpu):
    return (cpu.leaf, cpu.rows) == (layout("intel-spr").leaf, layout("intel-spr").rows)


@pytest.mark.parametrize(
    "text",
    [
        cpuid_r(SPR),
        "CPU:\n" + cpuid_r(SPR),
        "CPU 0:\n" + cpuid_r(SPR) + "CPU 1:\n" + cpuid_r(SPR),
        "CPU 0:\r\n" + cpuid_r(SPR).replace("\n", "\r\n"),
        cpuid_r(SPR).replace("   0x", "> > 0x"),
        cpuid_r(SPR).replace(" edx", " \nedx"),
        cpuid_r(SPR).replace(" edx", "\n> edx"),
        cpuid_r(SPR)
        .upper()
        .replace("0X", "0x")
        .replace("EAX", "eax")
        .replace("EBX", "ebx")
        .replace("ECX", "ecx")
        .replace("EDX", "edx"),
        header(0) + aida(SPR) + header(1) + aida(SPR),
        aida(SPR),
        aida(SPR).replace("\n", "\r\n"),
        "> " + aida(SPR).replace("\n", "\n> "),
        aida(SPR).replace("CPUID ", "CPUID\n> ").replace(" [SL", "\n>[SL"),
        "CPU#000 AffMask: 0x00000001\n" + aida(SPR),
    ],
)
def test_the_same_cpu_in_many_spellings(text):
    cpu = parse_cpuid_dump(text, "mine")
    assert is_sapphire_rapids(cpu)
    assert cpu.name == "mine"


def test_the_source_is_told():
    assert parse_cpuid_dump("CPU 3:\n" + cpuid_r(SPR), "x").source == "CPUID dump, CPU 3"
    assert parse_cpuid_dump(cpuid_r(SPR), "x", source="host7.txt").source == "host7.txt"


@pytest.mark.parametrize(
    "form", [lambda n, rows: f"CPU {n}:\n" + cpuid_r(rows), lambda n, rows: header(n) + aida(rows)]
)
def test_a_hybrid_machine_needs_a_cpu(form):
    text = form(0, SPR) + form(1, SPR) + form(16, GRACEMONT) + form(17, GRACEMONT)
    with pytest.raises(XsaveError, match=r"CPU 0 and 1 more .*0x602e7; CPU 16 and 1 more .*0x207"):
        parse_cpuid_dump(text, "hybrid")
    assert parse_cpuid_dump(text, "hybrid", cpu=1).user_mask == 0x602E7
    assert parse_cpuid_dump(text, "hybrid", cpu=17).user_mask == 0x207
    with pytest.raises(UsageError, match=r"CPU 2 .*0, 1, 16, 17"):
        parse_cpuid_dump(text, "hybrid", cpu=2)


def test_cpus_may_differ_in_the_sizes_of_what_they_have_on():
    other = [(i, a, "00001234" if i < 2 else b, c) for i, a, b, c in SPR]
    cpu = parse_cpuid_dump("CPU 0:\n" + cpuid_r(SPR) + "CPU 1:\n" + cpuid_r(other), "x")
    assert cpu.leaf[1][1] == 0x2A80


def test_a_dump_that_ends_in_the_middle():
    cpu = parse_cpuid_dump(cpuid_r(SPR[:6]), "cut")
    assert cpu.user_mask == 0xE7
    assert set(cpu.absent) == {8, 9, 10, 11, 12, 14, 15, 17, 18}
    text = cpuid_r(SPR)
    assert parse_cpuid_dump(text[: text.index("0x09:") + 30], "cut").user_mask == 0xE7
    # AIDA64 writes zeros when it stops.
    zeros = SPR[:6] + [(i, "0" * 8, "0" * 8, "0" * 8) for i, *_ in SPR[6:]]
    assert set(parse_cpuid_dump(aida(zeros), "cut").absent) == set(cpu.absent)


def test_a_dump_that_ends_inside_its_last_cpu():
    text = "CPU 0:\n" + cpuid_r(SPR) + "CPU 1:\n" + cpuid_r(SPR[:4])
    assert is_sapphire_rapids(parse_cpuid_dump(text, "cut"))


SKYLAKE = [
    (0, "0000001f", "00000440", "00000440"),
    (1, "0000000f", "000003c0", "00000000"),
    (2, "00000100", "00000240", "00000000"),
    (3, "00000040", "000003c0", "00000000"),
    (4, "00000040", "00000400", "00000000"),
]


def test_old_dumps_have_no_subleaf_numbers():
    cpu = parse_cpuid_dump(aida(SKYLAKE, labels=False), "old")
    assert cpu.user_mask == 0x1F
    assert cpu.standard_offset(4) == 1024
    two_rows = parse_cpuid_dump(aida(SKYLAKE[:2], labels=False), "older")
    assert set(two_rows.absent) == {2, 3, 4}


def test_left_out_subleaves_without_numbers_are_not_guessed():
    for rows in (SPR, GRACEMONT):
        with pytest.raises(XsaveError, match="SL"):
            parse_cpuid_dump(aida(rows, labels=False), "holes")


def test_zen2_from_a_dump():
    rows = [
        (0, "00000207", "00000340", "00000380"),
        (2, "00000100", "00000240", "00000000"),
        (9, "00000040", "00000340", "0" * 8),
    ]
    cpu = parse_cpuid_dump(cpuid_r(rows), "rome")
    assert cpu.user_mask == 7
    assert "64 bytes" in cpu.absent[9]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing of the kind",
        cpuid_r([]),
        cpuid_r(SPR[2:]),
        cpuid_r([*SPR, (2, "00000200", "00000240", "00000000")]),
        aida(SPR) + aida(SPR, labels=False),
        cpuid_r([(0, "00000007", "0" * 8, "0" * 8), (2, "00000100", "00000100", "00000000")]),
    ],
)
def test_what_is_no_dump(text):
    with pytest.raises(XsaveError):
        parse_cpuid_dump(text, "bad")


def test_the_text_is_bounded():
    with pytest.raises(LimitError):
        parse_cpuid_dump(" " * ((16 << 20) + 1), "huge")


def test_no_such_cpu_in_an_unnumbered_dump():
    with pytest.raises(UsageError, match="no numbered one"):
        parse_cpuid_dump(cpuid_r(SPR), "x", cpu=0)


def test_the_rows_of_every_leaf():
    text = header(3) + aida(SPR[:2], labels=False) + header(4) + aida(SPR[:1])
    first, second = parse_cpuid_rows(text)
    assert (first.cpu, second.cpu) == (3, 4)
    assert [(line.leaf, line.subleaf, line.labelled) for line in first.lines] == [
        (0, 0, False),
        (0xC, 0, False),
        (0xD, 0, False),
        (0xD, 1, False),
        (0xE, 0, False),
        (0x8000000D, 0, False),
    ]
    assert first.lines[0].registers == (0x20, 0x756E6547, 0x6C65746E, 0x49656E69)
    (block,) = parse_cpuid_rows(cpuid_r(SPR), {0xD, 0xE})
    assert [line[:3] for line in block.lines][-2:] == [(0xD, 0x12, True), (0xE, 0, True)]
    assert parse_cpuid_rows("CPU 0:\nCPU 1:\n") == []


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(0, 4000), st.integers(0, 4000))
def test_any_text_gives_a_layout_or_a_qmig_error(noise, start, cut):
    text = ("CPU 0:\n" + cpuid_r(SPR) + header(1) + aida(SPR))[start:]
    for attempt in (noise, text[:cut] + noise, noise + text[cut:], text[:cut] + noise + text[cut:]):
        with contextlib.suppress(QmigError):
            assert isinstance(parse_cpuid_dump(attempt, "any"), Layout)


def test_several_kinds_of_core():
    text = case("hyb.cpuid")
    with pytest.raises(
        XsaveError, match=r"CPU 0 has .*0x2e7; CPU 16 has .*0x207\); name one: hyb.cpuid#0 or hyb.cpuid#16"
    ):
        parse_cpuid_dump(text, "hyb.cpuid")
    assert parse_cpuid_dump(text, "hyb.cpuid", cpu="16").user_mask == 0x207
    assert split_choice("a/hyb.cpuid#16") == ("a/hyb.cpuid", "16")
    assert split_choice("hyb.cpuid") == ("hyb.cpuid", None)
    assert split_choice("#16") == ("#16", None)


def test_no_xsave_at_all():
    assert no_xsave(case("nehalem.cpuid")) == "CPUID.1:ECX[26] is 0"
    with pytest.raises(UnsupportedError, match=r"no XSAVE: CPUID.1:ECX\[26\] is 0"):
        parse_cpuid_dump(case("nehalem.cpuid"), "nehalem.cpuid")
    leaf_0 = "0x00000000: EAX=0x0000000a, EBX=0x756e6547, ECX=0x6c65746e, EDX=0x49656e69\n"
    assert no_xsave(leaf_0) == "its highest CPUID leaf is 0xa"
    assert no_xsave(leaf_0.replace("a,", "d,", 1)) is None
    assert no_xsave("nothing") is None
    assert no_xsave(case("hyb.cpuid")) is None


def test_what_is_missing_is_said_with_its_line():
    text = case("gml.cpuid")
    with pytest.raises(XsaveError, match=r"line 3 is the first of CPUID leaf 0xD for CPU 0, but .* subleaf 0"):
        parse_cpuid_dump(text.replace("0x0000000d 0x00", "0x0000000e 0x00"), "g")
    only = "CPU 0:\n   0x00000007 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n"
    with pytest.raises(XsaveError, match=r"found no row of CPUID leaf 0xD, only rows of 0x7, the last in line 2"):
        parse_cpuid_dump(only, "g")


def test_right_before_and_kept():
    atom = parse_cpuid_dump(case("gml.cpuid"), "gml")
    assert (atom.user_mask, atom.compacted_size(0x1B), atom.standard_size()) == (0x1B, 704, 1088)
    diamond = parse_cpuid_dump(case("dmr.cpuid"), "dmr")
    assert diamond.user_mask == 0xE02E7
    assert (diamond.compacted_size(0xE02E7), diamond.standard_size()) == (10880, 11008)
    assert (diamond.standard_offset(19), diamond.compacted_offsets(0xE02E7)[19]) == (960, 10752)
