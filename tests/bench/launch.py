"""Start one process, wait for it, and print its times and memory as JSON: ``launch.py MEMORY STDIN COMMAND...``.

A program of its own, because ru_maxrss of a child begins with what its parent had in memory when it started the child:
this parent has next to nothing. With MEMORY = 1 the process is watched while it runs, which costs it some time: its
anonymous pages (what it allocated) and its file pages (what it mapped; the kernel takes them back when it needs room).
"""

import json
import os
import sys
import time


def resident(pid):
    """Return {"RssAnon": bytes, "RssFile": bytes}, or zeros when the process has just gone."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - pathlib would triple this program's memory
            lines = [line.split() for line in file if line.startswith(("RssAnon", "RssFile"))]
    except OSError:
        lines = []
    return {"RssAnon": 0, "RssFile": 0} | {name.rstrip(":"): int(value) * 1024 for name, value, _ in lines}


def main(memory, stdin, *command):
    """Run the command."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    peak = {"RssAnon": 0, "RssFile": 0}
    done = 0
    while memory == "1" and not done:
        peak = {name: max(value, peak[name]) for name, value in resident(pid).items()}
        done, status, usage = os.wait4(pid, os.WNOHANG)
        time.sleep(0.001)
    if not done:
        _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    print(
        json.dumps(
            {
                "wall": wall,
                "cpu": usage.ru_utime + usage.ru_stime,
                "max_rss": usage.ru_maxrss * 1024,
                "anonymous": peak["RssAnon"],
                "file": peak["RssFile"],
                "exit_code": os.waitstatus_to_exitcode(status),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
