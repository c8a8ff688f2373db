"""A model of QEMU's loader: whether a target loads a stream, and its error message otherwise.

It follows the order of ``qemu_loadvm_state`` (QEMU: ``migration/savevm.c``) and stops at the first error.

=============  ==================================================================================
predict        the whole walk: :func:`predict`, which returns a :class:`~.verdict.Verdict`
versions       one walk for each group of possible versions of the target
configuration  file header, configuration section, capabilities
sections       lookup of a section, its version, its footer
ramlist        the RAMBlocks; ``records`` their pages, ``ramblocks`` the target's blocks
bodies         the body of a device section, and what is certain of its end
bodyreader     device state by the target's description; with ``shapes``, ``lengths``, ``esp``, ``fieldfacts``
pciconfig      the bytes of PCI config space that must be equal; ``virtio``, ``virtiomem`` virtio devices
hooks          checks after a section is complete; with ``armregisters``, ``guestmemory``
commands       MIG_CMD_*
postload       what KVM refuses after everything is loaded
words          QEMU's messages, by version
state, cursor  the state of one walk, and the bytes as QEMUFile returns them
=============  ==================================================================================
"""
