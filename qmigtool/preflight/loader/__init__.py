"""QEMU's loader, acted out on what is known of a target: does it take the stream, and in which words does it refuse?

In the order of ``qemu_loadvm_state`` (QEMU: ``migration/savevm.c``), stopping at the first error.

=============  ==================================================================================
predict        the walk as a whole: :func:`predict`, which makes a :class:`~.verdict.Verdict`
versions       one walk for each kind of version that the target may be
configuration  file header, configuration section, capabilities
sections       which section is meant, its version, its footer
ramlist        the RAMBlocks; ``records`` their pages, ``ramblocks`` what the target has
bodies         device state by the target's own description; ``shapes``, ``lengths``, ``esp``, ``fieldfacts`` help
pciconfig      the bytes of PCI config space that must not differ; ``virtio``, ``virtiomem`` what virtio sends
hooks          what is checked when a section is complete; ``armregisters``, ``guestmemory`` help
commands       MIG_CMD_*
postload       what KVM refuses when all is loaded
words          QEMU's words, by version
state, cursor  what one walk knows, and the bytes as QEMUFile gives them
=============  ==================================================================================
"""
