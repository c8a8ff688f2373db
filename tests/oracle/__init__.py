"""Oracles: the real QEMU and the real CPU, asked through small harnesses.

Here live `guest` (a bare-metal program that loads known register values), `qemu` (start, stop, migrate and ask a
qemu-system-x86_64), `xsave_cpu` (XSAVE, XSAVEC and XRSTOR on the CPU that runs the tests) and the tests of these three.
Nothing here may import qmigtool: an oracle that shares code with what it judges proves nothing.
"""
