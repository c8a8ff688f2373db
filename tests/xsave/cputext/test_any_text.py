"""Text of any form, changed and cut, gives a layout or a QmigError."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import QmigError
from qmigtool.xsave import Layout, parse_cpuid_dump
from tests.xsave.cputext.texts import (
    SPR,
    ZEN4,
    case,
    cpudata,
    decoded,
    firecracker,
    kcpuid,
    kvm_entries,
    virtualbox_tables,
    xen,
)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"cpuid": []}', "<cpudata>", "x86/fpu:", "Valid XCR0 bits", "(0xd/0):"]
)
def test_the_beginning_of_a_form_is_no_cpu(text):
    with pytest.raises(QmigError):
        parse_cpuid_dump(text, "x")


FORMS = [
    kcpuid(SPR),
    xen(SPR),
    virtualbox_tables(ZEN4, SPR),
    decoded(ZEN4),
    decoded(SPR, halves=True),
    json.dumps(kvm_entries(ZEN4)),
    json.dumps(firecracker(ZEN4)),
    cpudata(SPR),
    *map(case, ("dec.cpuid", "dmesg.txt", "vbox.log", "xencpuid.txt", "hyb.cpuid", "nehalem.cpuid")),
]


@settings(deadline=None)
@given(
    st.sampled_from(FORMS),
    st.lists(st.tuples(st.integers(0, 4000), st.text("0123456789abcdefx/:=()[]{}\",'<> \n-", max_size=6)), max_size=8),
    st.integers(0, 9000),
    st.sampled_from([None, "0", "guest", "raw"]),
)
def test_any_text_of_a_form_gives_a_layout_or_a_qmig_error(text, changes, length, choice):
    for at, piece in changes:
        text = text[:at] + piece + text[at + len(piece) :]
    with contextlib.suppress(QmigError):
        assert isinstance(parse_cpuid_dump(text[:length], "any", cpu=choice), Layout)
