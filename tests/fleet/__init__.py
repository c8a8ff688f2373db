"""Fresh streams from real QEMU of several versions, what real ``-incoming`` says of them, and what preflight says.

========  =====================================================================================
process   one QEMU of any version, talked to by QMP
offers    what each version offers: machine types, devices, properties (data for preflight)
========  =====================================================================================
"""
