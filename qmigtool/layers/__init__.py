"""The records of a migration stream as scapy layers, made from their declarations in :mod:`qmigtool.parsers`.

``conf.exts.load("qmigtool")`` and ``from scapy.contrib.qemu_migration import *`` give a scapy user everything here.
What belongs here: what scapy needs (fields, packets, bindings, reading a file into packets). What a record is made of
is declared in ``parsers`` and nowhere else.

=============  ==================================================================================
``fields``     the scapy field of each kind of a declaration
``packets``    packets from declarations
``known``      all layers, by name, and which follows which
``cuts``       where each record of a stream is, by the readers of ``parsers``
``reading``    ``rdqmig``: a file into packets; ``wrqmig``: packets into a file
``spans``      the bytes of each field of a packet, with its value
``channels``   what scapy's sessions need for captures
``contrib``    what scapy loads: all names
=============  ==================================================================================
"""
