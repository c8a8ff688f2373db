"""What several commands share.

===========  ==================================================================
messages     errors on stderr, JSON documents
output       opening, tables, CSV, files; the usual options
parameters   layouts, masks and numbers as options
areas        XSAVE areas in files
vcpus        vCPUs, as commands name them
edited       writing what was edited
editoptions  the options that are edits
editreport   what edits changed
colours      the colours of severities
layoutdraw   the drawing of a layout
lazy         how commands are found
standard     the standard streams
===========  ==================================================================
"""
