"""What commands show of one stream, as JSON documents and plain cells; ``cli/`` prints them.

=========  ==========================================================
show       devices and fields
sections   the items of a stream
presence   which XSAVE components each vCPU has
ram        how guest memory was sent
flows      the connections of a capture, and its migrations in time
flowsplot  a picture of that
=========  ==========================================================

Documents lack only the ``schema`` of what is printed. What a room finds (differences, findings, edits) is a document
of that room; what a stream is, of :mod:`qmigtool.stream`.
"""
