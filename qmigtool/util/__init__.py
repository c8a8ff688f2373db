"""What every room may use: files, text, numbers and bounds. It imports the errors, and nothing else of qmigtool.

========  ============================================================================
files     inputs and outputs, opened with care
text      names and values out of a file, made harmless for terminals and programs
jsontext  JSON, written as it is made
globs     names with ``*`` and ``?``
values    numbers and sizes as people write them
toml      TOML files that people write, read within bounds
budget    how much one command may cost
plugins   what other distributions add
frame     the DataFrame that tables give; it alone here needs pandas
========  ============================================================================
"""
