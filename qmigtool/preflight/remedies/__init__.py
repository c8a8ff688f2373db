"""The command that fixes a stream for a target.

========  =====================================================================================
search    predict, fix, predict again, until the stream loads or no fix is known
fixes     the fix of each refusal: of the ``header``, ``sections``, ``memory``, ``pci`` state
fix       one fix
========  =====================================================================================
"""
