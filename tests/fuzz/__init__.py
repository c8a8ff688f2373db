"""Fuzzing by one command: for any bytes, only a QmigError may be raised.

    python -m tests.fuzz TARGET --seconds 3600        forward, containers, rewriting, preflight, dissect, or all
    python -m tests.fuzz properties --seconds 3600    every test of hypothesis, with fresh examples
    python -m tests.fuzz TARGET --reproduce FILE      reproduce a finding
    python -m tests.fuzz hostile                      every command on every hostile file: time, memory, exit status

It uses atheris, guided by coverage, if installed (`pip install atheris`, not for every Python version); else it
changes the corpus at random. `tests/data/fuzz` is the corpus; `python -m tests.fuzz corpus` makes it.

targets     the function of each target
corpus      the initial inputs
hostile, hostilefiles    the matrix of commands and hostile files, and the files
mutation    random changes of bytes, if atheris is not installed
records     random records in place of others, by scapy's fuzz
"""
