"""A process beside a rank that ends it when the other ranks do not answer in time.

A thread would not do: MLX holds the interpreter's lock while it connects to ranks that never come.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

_ARM, _DISARM = b"1", b"0"
_WATCH = """
import os, select, signal, sys
seconds, line, pid = float(sys.argv[1]), sys.argv[2], int(sys.argv[3])
armed = False
while True:
    ready, _, _ = select.select([0], [], [], seconds if armed else None)
    if not ready:
        print(line, file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGKILL)
        break
    got = os.read(0, 65536)
    if not got:
        break
    armed = got[-1:] == b"1"
"""


class Guard(NamedTuple):
    """When a rank waits for the others, and when it no longer does."""

    arm: Callable[[], None]
    disarm: Callable[[], None]


def start_guard(seconds: float, line: str, pid: int) -> Guard:
    """Start the process that watches; it ends with the one that it watches.

    Args:
        seconds: how long the others may take.
        line: what it says before it ends the process.
        pid: of the process that it watches and, when time is up, kills.
    """
    words = [sys.executable, "-I", "-S", "-c", _WATCH, str(seconds), line, str(pid)]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # an interrupt is for the rank
    )
    pipe = process.stdin
    assert pipe is not None

    def say(word: bytes) -> None:
        if process.poll() is None:  # one that was killed cannot watch, and is no reason to stop
            pipe.write(word)

    return Guard(lambda: say(_ARM), lambda: say(_DISARM))
