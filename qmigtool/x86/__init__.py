"""x86 vCPUs: what the fields of section ``cpu`` mean, and what accelerators make of them.

===========  ============================================================================
vcpu         the one bridge between the fields and an XSAVE area, both ways
registers    what the bits of a register are called
accelerator  which accelerator saved a stream, with the evidence
kvm          what KVM refuses of a vCPU
mshv         the registers that QEMU writes to an MSHV vCPU
===========  ============================================================================

Nothing here opens a stream: a device (:mod:`qmigtool.devices`) is given.
"""
