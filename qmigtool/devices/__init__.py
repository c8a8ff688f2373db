"""Device state: a section together with the description that decodes it, and the schemas that describe it.

============  ============================================================================================
device        a section of device state, its fields, and paths to them
machinetypes  the names of machine types
blocknames    what the name of a RAM block says
schema        descriptions learned from streams that have a vmdesc, for streams that have none
============  ============================================================================================

Which devices a stream has, the stream says (:mod:`qmigtool.stream`); what a vCPU's fields mean is in
:mod:`qmigtool.x86`.
"""
