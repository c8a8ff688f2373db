"""Wire formats: bytes in, facts out.

What lives here turns bytes into numbers and spans, and nothing more: one module per wire format, named after the QEMU
source file that defines it (``savevm`` after ``migration/savevm.c``, ``ram`` after ``migration/ram.c``, ``vmstate``
after ``migration/vmstate.c``). What the numbers mean (an accelerator, a vCPU, a register) is decided in ``qmigtool``.

=================  ==================================================================================
``container``      what wraps a stream, by its first bytes
``saveimage``      the head of a libvirt save image
``qcow2``          the state in an internal snapshot of a qcow2 image
``packed``         files that gzip, bzip2, xz or zstd have packed
``capturefile``    packets in pcap and pcapng files
``pcap``           the connections that such packets are of, put together again
``pci``            PCI config space: its capabilities
``record``         how a wire record is declared once, and what is made from that one declaration
``records``        the declarations themselves
``source``         where bytes come from: a file (mapped), a pipe, a buffer
``window``         the part of a stream that is in memory, with absolute offsets
``savevm``         framing: header, configuration, sections, footers, commands, EOF; sans-IO and forward
``configuration``  the configuration section
``globalstate``    the section globalstate: the run state
``bodies``         section bodies whose end is told, or searched for
``livebodies``     bodies of live sections other than RAM
``ram``            bodies of the ``ram`` section
``ramruns``        runs of equal RAM records: how they are found, and the columns that hold them
``xbzrle``         pages as the difference to their earlier content
``multifd``        the extra channels of a multifd migration
``returnpath``     what the destination sends back
``vmdesc``         the JSON description of the device state at the end of a stream
``vmdescspans``    where each device stands in that text, and how long its body is
``vmdesctext``     that text, written again
``vmstatedump``    the JSON of -dump-vmstate: what a QEMU can save and load
``tail``           the way to the device state backwards from the end, without touching RAM
``vmstate``        device state, decoded into fields by a description, and encoded again
=================  ==================================================================================
"""
