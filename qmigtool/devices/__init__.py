"""Device state: a section with the description that decodes it, and the schemas that describe sections.

============  =====================================================================================
device        a section of device state, its fields, and paths to them
machinetypes  the names of machine types
blocknames    the meaning of a RAM block's name
schema        descriptions learned from streams that have a vmdesc, for streams without one
============  =====================================================================================

Descriptions of device state
----------------------------
QEMU has one kind of description, the VMStateDescription. No input of qmigtool contains all of it, and each contains
another part, so there is one class for each of these. They are in the order in which one is made of another:

=========================================  ====================================================================
``parsers.vmdesc:Description``             one body as it was sent: types and exact sizes. The only one that decodes
                                           bytes (:mod:`qmigtool.parsers.vmstate`), and that a vmdesc is written from
``parsers.vmdesc:DeviceDescription``       an entry of the vmdesc; it makes its Description when it is needed
``parsers.vmstatedump:DumpDescription``    an entry of -dump-vmstate: all fields with versions and conditions, without
                                           types; its sizes are those of C structs
``devices.schema.model:Node``              learned from several streams: alternatives of nested structs and all
                                           subsections. It grows while it learns, and is compared by identity.
                                           ``schema.fit`` and ``schema.shapes`` make a Description of it
``rewrite.body:BodyDraft``                 the bytes of a body with their Description, while an edit changes both
``schemadiff.model:ShapeBody``             the part that a Description, a Node and a DumpDescription have in common,
                                           for comparing them: what an input does not contain is None
``preflight.target.model:TargetVmsd``      versions and subsections by name, joined from all inputs; without fields
=========================================  ====================================================================

What else uses a description uses one of these: ``preflight.loader.shapes`` finds Descriptions of subsections in the
schema and in the tables of QEMU.

The devices of a stream are in :mod:`qmigtool.stream`; the meaning of a vCPU's fields is in
:mod:`qmigtool.x86`.
"""
