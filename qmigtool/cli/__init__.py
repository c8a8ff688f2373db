"""The command line: parse options, call the library, render.

No logic lives here, and nothing outside this folder prints. ``main`` has the group and the exit codes, ``lazy`` how its
commands are found, ``output`` what every command shares (tables, JSON, CSV, errors), ``parameters`` layouts and masks
as options, ``layoutdraw`` the drawing of a layout, ``editoptions`` the options that are edits, ``editreport`` what they
changed; the other modules have the commands.
"""
