"""Fresh streams of several versions of real QEMU, the results of real ``-incoming``, and the predictions of preflight.

========  =====================================================================================
process   one QEMU of any version, controlled by QMP
cases     the command lines (``cases.txt``), and the rows of the table
make      streams, references and the table, from real QEMUs
judge     preflight compared with the table
remedies  the whole ``qmigtool preflight``, and real QEMU on the results of its remedies
pack      a reduced set of pairs for the tests; ``packed`` reads it
vmsds     the VMStateDescriptions in a binary (data for preflight)
offers    the machine types, devices and properties of each version (data for preflight)
========  =====================================================================================
"""
