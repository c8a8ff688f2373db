"""CPUs as text: one reader for each format, recognised by content.

===============  ================================================================================================
model            the result of every reader: rows of CPUID, in a block for each CPU (or each view of one)
rawlines         lines of registers: ``cpuid -r``, InstLatx64, ``kcpuid -r``, xen-cpuid, a VirtualBox log's tables
documents        JSON of Firecracker, Cloud Hypervisor and others with kvm_cpuid_entry2; libvirt's ``<cpudata>``
decoded          the output of ``cpuid`` without -r
virtualbox       the decoded leaf 0xD of a VirtualBox log
kernellog        Linux' boot messages about the FPU (dmesg), whose offsets may be compacted ones
families         standard offsets by CPU family, for texts that do not have them
nameonly         /proc/cpuinfo, lscpu, kcpuid without -r: no registers; names the command that prints them
===============  ================================================================================================

A reader takes text and returns blocks, or none if the text is not of its format. It does not guess: what a text leaves
out is missing, and what cannot be decided is an error that says what would decide it. :mod:`qmigtool.xsave.cpuid` makes
layouts of the rows.
"""
