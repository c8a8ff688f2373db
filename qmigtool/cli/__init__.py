"""The command line: parse options, call the library, render.

No logic lives here, and nothing outside this folder prints. ``main`` has the program and the exit codes; every other
module is a command, and every package a group of commands, named after it (``import_`` is ``import``); ``shared`` has
what they share.
"""
