"""Guest memory as a stream holds it: which record wrote each page, when, how encoded, and what it finally holds.

=========  =====================================================================================
channels   the extra channels: what can be read of each, and whether they belong together
columns    every record of every channel as one table of runs (numpy), in the order they apply
cover      the last writer of each page: which run wins where
content    the bytes of pages, whatever their encoding
unplugged  what virtio-mem has not plugged, and is never sent
model      what a person uses: pages, their history, their contents
usage      how memory was sent, in numbers
build      from a stream and its channels to the model
=========  =====================================================================================

One model for all encodings: normal, zero, XBZRLE, compressed, mapped-ram, multifd, postcopy. Memory grows with the
number of runs, never with the guest's RAM. What lives here reads; it decodes no framing and prints nothing.

Nothing is imported here: the model needs numpy, and to know what virtio-mem has not plugged, nobody waits for that.
"""
