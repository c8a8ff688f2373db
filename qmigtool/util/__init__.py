"""Helpers for every package: files, text, numbers and limits. Imports only the errors of qmigtool.

========  ============================================================================
files     opening inputs and outputs safely
text      escaping names and values from a file for terminals and programs
html      tables in HTML, for notebooks
jsontext  JSON, written while it is generated
globs     names with ``*`` and ``?``
values    numbers and sizes in user input
toml      TOML files of users, read within limits
budget    limits on the work of one command
plugins   additions by other distributions
frame     the DataFrame of tables; the only module here that needs pandas
========  ============================================================================
"""
