"""Guest memory in a stream: which record wrote each page, when, in which encoding, and its final contents.

=========  =====================================================================================
channels   the extra channels: their readable records, and whether they belong together
columns    every record of every channel as one table of runs (numpy), in the order of application
cover      the last writer of each page: which run wins where
content    the bytes of pages, whatever their encoding
unplugged  memory that virtio-mem has not plugged, which is never sent
model      the public model: pages, their history, their contents
usage      how memory was sent, in numbers
build      from a stream and its channels to the model
=========  =====================================================================================

One model for all encodings: normal, zero, XBZRLE, compressed, mapped-ram, multifd, postcopy. Memory grows with the
number of runs, never with the guest's RAM. This package only reads; it does not decode framing and does not print.

Nothing is imported here: the model needs numpy, ``unplugged`` does not.
"""
