"""Fuzzing by one command: bytes in, and nothing but a QmigError out.

    python -m tests.fuzz TARGET --seconds 3600        forward, containers, rewriting, preflight, or all
    python -m tests.fuzz properties --seconds 3600    every test of hypothesis, with fresh examples
    python -m tests.fuzz TARGET --reproduce FILE      a finding again
    python -m tests.fuzz hostile                      every command on every hostile file: time, memory, exit status

It uses atheris, which finds its way by coverage, where that is installed (`pip install atheris`, not for every Python);
else it changes the corpus at random. `tests/data/fuzz` is the corpus; `python -m tests.fuzz corpus` makes it.

targets     what each target does with its bytes
corpus      what they start from
hostile, hostilefiles    the matrix of commands and hostile files, and the files
mutation    changes at random, where atheris is not installed
"""
