"""An opened stream: its container, where it starts, its sections, and the public :class:`Stream`.

============  =================================================================================
traffic       the connections of a capture, and its migrations in time
learning      a schema from the streams of several files
opening       from a path, bytes or a pipe to a stream
model         a stream: :class:`Stream`
facts         what a stream contains
info          what a stream is, as one JSON document
inputs        its inputs: a file or a pipe, and extra channels
reading       the reading strategies, and which one an input needs
filereading   the sections of a stream in a file: from the end, or from the front
forward       a reading from the front, up to an error
pipereading   the sections of a stream in a pipe: from the front, once
pipes         a pipe: streamed, or written to a temporary file
sectionindex  sections in little memory
consistency   the vmdesc at the end of a stream, compared with what was read
missing       guest memory that the input does not contain
unwrap        a stream, taken out of its containers and decompressed
wrappings     containers that have more than a stream: snapshots, connections, headers
containers    containers that are read from the front, also those of other distributions
migrations    the migrations in a capture: which connections are the channels of one
unwrapped     what unwrapping makes: a stream, its container, a temporary file
probe         where a stream starts, and how large its pages are
textinput     whether a file is text or a stream
============  =================================================================================
"""
