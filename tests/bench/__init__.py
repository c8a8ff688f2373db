"""Benches: how fast, how much memory, and against what.

Run them all, or only the groups named, from the root of the checkout::

    python -m tests.bench
    python -m tests.bench ram batch

The first form takes some minutes, 5 GiB under $TMPDIR (deleted afterwards; less space: the process group is left out,
and says so) and 2 GiB of memory. ``pytest tests/bench/bench_figures.py -s`` does the same as a test marked ``bench``;
the default run collects neither.

Every figure is the median of interleaved runs, next to a named rival that ran between the same runs, so a slow
or busy machine moves both; the ratio is what to compare. Nothing here fails for being slow. A rival has to come to the
same result as what it is compared with, and that is asserted.

=============  ====================================================================================================
synthetic      streams of any size around a real sample's head and device state
rivals         what we are compared with: the plain loop over RAM records, and naive slicing of areas
measure        clocks, processes and the table
launch         starts one process and tells its time and memory
processes      whole commands on 64 MiB and 4 GiB of RAM; start-up
ram            the RAM walk in records per second, and its memory
ramdiff        the memory of two streams compared, against cmp
batch          apply_batch against loops
captures       a capture of 1 GiB unwrapped, against an earlier version and scapy
decode         a stream opened and every field of it decoded
=============  ====================================================================================================
"""
