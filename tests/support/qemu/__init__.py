"""Real QEMU: one driver, and what is done with it.

=========  ==========================================================================
process    one QEMU of any version with any command line, talked to by QMP
machine    one that is started with a machine of ours, saved and loaded
registers  what its monitor prints of a vCPU
incoming   whether QEMU loads a file with a given command line, and what it prints
reloaded   a stream edited, loaded, looked at and saved again
=========  ==========================================================================
"""
