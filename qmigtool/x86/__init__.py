"""x86 vCPUs: the meaning of the fields of section ``cpu``, and how accelerators use them.

===========  ============================================================================
vcpu         the one bridge between the fields and an XSAVE area, both ways
xsavefields  the bytes of one field, in either form
registers    the names of registers and their bits
accelerator  which accelerator saved a stream, with the evidence
kvm          the vCPU state that KVM refuses, and its mp_state
lapic        which local APIC belongs to which vCPU
traits       how the accelerators differ
mshv         the registers that QEMU writes to an MSHV vCPU
===========  ============================================================================

This package does not open streams: the caller passes a device (:mod:`qmigtool.devices`).
"""
