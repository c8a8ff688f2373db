"""Wire formats: bytes in, facts out.

This package only turns bytes into numbers and spans: one module per wire format, named after the QEMU
source file that defines it (``savevm`` after ``migration/savevm.c``, ``ram`` after ``migration/ram.c``, ``vmstate``
after ``migration/vmstate.c``). The meaning of the numbers (an accelerator, a vCPU, a register) is in ``qmigtool``.

=================  ==================================================================================
``container``      containers of a stream, recognised by their first bytes
``saveimage``      the header of a libvirt save image
``domainxml``      the XML in that header
``qcow2``          the header and the snapshots of a qcow2 image
``qcow2state``     the state in such a snapshot
``packed``         compressed files, decompressed piece by piece
``lzop``           files compressed by lzop
``lz4frame``       lz4 frames
``extras``         the error about a package that is missing
``capturefile``    packets in pcap and pcapng files
``frames``         from such a packet to its TCP segment: links, tunnels, IP and its fragments
``reassembly``     a direction of a TCP connection, put together from its segments
``pcap``           the connections in a capture, and what each direction carries
``pci``            PCI config space: its capabilities
``record``         declaring a wire record once, and what is derived from the declaration
``records``        the declarations themselves
``source``         the sources of bytes: a file (mapped), a pipe, a buffer
``window``         the part of a stream that is in memory, with absolute offsets
``savevm``         framing: header, configuration, sections, footers, commands, EOF; sans-IO and forward
``section``        the spans of a stream: kind, offset, length
``commands``       commands: MIG_CMD_*
``resync``         reading on behind a hole, where a boundary can be proved
``configuration``  the configuration section
``globalstate``    the section globalstate: the run state
``bodies``         section bodies whose end is described, or searched for
``livebodies``     bodies of live sections other than RAM
``ram``            bodies of the ``ram`` section
``ramstate``       the state of a RAM channel between its records
``ramruns``        finding runs of equal RAM records, and the columns that store them
``xbzrle``         pages as the difference from their earlier contents
``multifd``        the extra channels of a multifd migration
``returnpath``     the messages of the destination
``vmdesc``         the JSON description of the device state at the end of a stream
``vmdescspans``    the position of each device in that text, and the length of its body
``vmdesctext``     writing that text
``vmstatedump``    the JSON of -dump-vmstate: what a QEMU binary can save and load
``tail``           reaching the device state backwards from the end, without reading RAM
``vmstate``        device state, decoded into fields by a description, and encoded again
=================  ==================================================================================
"""
