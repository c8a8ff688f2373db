"""Runs qmigtool in a process of its own, with few file descriptors and unbuffered output, and measures it."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

SECONDS, MEMORY, FILES = 10, 256 << 20, 1024
"""What a hostile file may cost at most: processor time, bytes of memory, file descriptors."""

LAUNCHER = """
import json, os, resource, sys
files = min(int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "qmigtool", *sys.argv[2:]], os.environ, file_actions=null)
_, status, usage = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""Starts qmigtool from a process of its own: ru_maxrss of a child begins with what its parent had in memory when it
started the child, and a worker of pytest has a lot."""


class Run(NamedTuple):
    """The exit status, seconds of processor time, bytes of memory at most, and standard error."""

    status: int
    seconds: float
    memory: int
    said: str


def measured(*arguments: str) -> Run:
    """Run qmigtool and measure it; standard output is thrown away."""
    process = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(FILES), *arguments],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    status, seconds, memory = json.loads(process.stdout)
    return Run(status, seconds, memory * (1 if sys.platform == "darwin" else 1024), process.stderr.decode())
