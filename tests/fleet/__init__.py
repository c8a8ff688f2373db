"""Fresh streams from real QEMU of several versions, what real ``-incoming`` says of them, and what preflight says.

========  =====================================================================================
process   one QEMU of any version, talked to by QMP
cases     the command lines (``cases.txt``), and the rows of the table
make      streams, references and the table, from real QEMUs
judge     preflight against the table
remedies  the whole ``qmigtool preflight``, and real QEMU on what its remedies make
pack      some pairs made small, for the tests; packed gives them
vmsds     the VMStateDescriptions in a binary (data for preflight)
offers    what each version offers: machine types, devices, properties (data for preflight)
========  =====================================================================================
"""
