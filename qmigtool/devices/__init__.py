"""Device state: a section with the description that decodes it, and the schemas that describe sections.

============  =====================================================================================
The devices of a stream are in :mod:`qmigtool.stream`; the meaning of a vCPU's fields is in
:mod:`qmigtool.x86`.
"""
