"""CPUs as people paste them: one reader for each form of text, recognised by what is in it.

===============  ================================================================================================
model            what every reader gives: rows of CPUID, in a block for each CPU (or each view of one)
rawlines         lines of registers: ``cpuid -r``, InstLatx64, ``kcpuid -r``, xen-cpuid, a VirtualBox log's tables
documents        JSON of Firecracker, Cloud Hypervisor and others that keep kvm_cpuid_entry2; libvirt's ``<cpudata>``
decoded          what ``cpuid`` prints without -r
virtualbox       the decoded leaf 0xD of a VirtualBox log
kernellog        what Linux says of the FPU at boot (dmesg), whose offsets may be compacted ones
families         standard offsets by family of CPUs, for texts that do not have them
nameonly         /proc/cpuinfo, lscpu, kcpuid without -r: no registers, and which command has them
===============  ================================================================================================

A reader takes text and returns blocks; none means that the text is not of its form. It guesses nothing: what a text
leaves out is missing, and what it cannot decide is an error that says what would. Layouts are made of the rows in
:mod:`qmigtool.xsave.cpuid`.
"""
