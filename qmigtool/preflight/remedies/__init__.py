"""The command that mends a stream for a target.

========  =====================================================================================
mend      predict, mend, predict again, until it loads or nothing is known
fixes     what mends each refusal: of the ``header``, ``sections``, ``memory``, ``pci`` state
fix       one of them
========  =====================================================================================
"""
