"""Device state: a section with the description that decodes it, and the schemas that describe sections.

============  =====================================================================================
device        a section of device state, its fields, and paths to them
machinetypes  the names of machine types
blocknames    the meaning of a RAM block's name
schema        descriptions learned from streams that have a vmdesc, for streams without one
============  =====================================================================================

The devices of a stream are in :mod:`qmigtool.stream`; the meaning of a vCPU's fields is in
:mod:`qmigtool.x86`.
"""
