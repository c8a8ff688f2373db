"""The decoded leaf 0xD of a VirtualBox log, of the guest and of the host."""

import pytest

from qmigtool.errors import XsaveError
from qmigtool.xsave import layout, parse_cpuid_dump
from qmigtool.xsave.cpuid import missing_rows
from tests.xsave.cputext.texts import SPR, case, virtualbox_tables


def test_a_virtualbox_log_has_a_guest_and_a_host():
    text = case("vbox.log")
    with pytest.raises(XsaveError, match=r"guest: .*0x7; host: .*0x1f\); name one: vbox.log#guest or vbox.log#host"):
        parse_cpuid_dump(text, "vbox.log")
    guest = parse_cpuid_dump(text, "vbox.log", cpu="guest")
    assert (guest.user_mask, guest.standard_size(), missing_rows(guest)) == (0x7, 832, None)
    host = parse_cpuid_dump(text, "vbox.log", cpu="host")
    assert (host.rows[2].offset, host.rows[3].offset, host.rows[3].size) == (576, 960, 64)
    assert "BNDCSR" in missing_rows(host)
    assert host.source == "VirtualBox log, host"


def test_a_virtualbox_log_of_an_older_version_and_of_one_kind():
    text = """
00:00:00.155098 Processor Extended State Enumeration (leaf 0xd):
00:00:00.155098    XSAVE area cur/max size by XCR0, Guest: 0x340/0x340
00:00:00.155099    XSAVE area cur/max size by XCR0,  Host: 0x340/0x340
00:00:00.155100                    Valid XCR0 bits, Guest: 0x00000000`00000007 ( x87 SSE YMM_Hi128 )
00:00:00.155101                    Valid XCR0 bits,  Host: 0x00000000`00000007 ( x87 SSE YMM_Hi128 )
00:00:00.155103                     XSAVE features, Guest
00:00:00.155103                     XSAVE features,  Host
00:00:00.155105                Valid IA32_XSS bits, Guest: 0x00000000`00000000
00:00:00.155106                Valid IA32_XSS bits,  Host: 0x00000000`00000000
00:00:00.155107   State #2, Guest: off=0x0240, cb=0x0100 IA32_XSS-bit -- YMM_Hi128
00:00:00.155108   State #2,  Host:  off=0x0240, cb=0x0100 IA32_XSS-bit -- YMM_Hi128
"""
    cpu = parse_cpuid_dump(text, "VBox.log")
    assert (cpu.user_mask, cpu.leaf[0], cpu.features) == (7, (7, 0x340, 0x340, 0), 0)
    assert parse_cpuid_dump(text.replace("Host XSAVE", "Host"), "VBox.log", cpu="host").user_mask == 7
    features = text.replace("features,  Host", "features,  Host XSAVEOPT XSAVEC")
    assert parse_cpuid_dump(features, "VBox.log", cpu="host").features == 3


def test_the_tables_of_a_virtualbox_log_win():
    text = virtualbox_tables(layout("intel-hsw"), SPR) + case("vbox.log")
    assert parse_cpuid_dump(text, "v", cpu="host").leaf == SPR.leaf
