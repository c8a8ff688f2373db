"""A stream, opened: what it came in, where it starts, its sections, and what a person imports.

============  =================================================================================
opening       from a path, bytes or a pipe to a stream
model         a stream: its facts
inputs        what it is read from: a file or a pipe, and extra channels
reading       the strategies of reading, and which of them an input takes
filereading   the sections of a stream in a file: from the end, or from the front
pipereading   the sections of a stream in a pipe: from the front, once
sectionindex  sections in little memory
consistency   what a stream says of itself at its end, held against what was read
missing       guest memory that an input lacks
unwrap        what a stream comes in, removed
probe         where a stream starts, and how large its pages are
textinput     whether a file is a text or a stream
============  =================================================================================
"""
