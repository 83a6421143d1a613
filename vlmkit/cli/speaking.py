"""Which of several ranks writes: rank 0, and of the others one whose error no other knows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from vlmkit.errors import VlmkitError
from vlmkit.ranks.launched import GONE, launched_rank

_RELAY = """
import os, select, signal, sys
line, pid = sys.argv[1], int(sys.argv[2])
rest, lost = b"", False
while True:
    ready, _, _ = select.select([0], [], [], 2 if lost else None)
    if not ready:
        if os.getppid() == pid:
            os.write(2, line.encode())
            os.kill(pid, signal.SIGKILL)
        break
    got = os.read(0, 65536)
    if not got:
        break
    *lines, rest = (rest + got).split(b"\\n")
    for one in lines:
        if one.startswith(b"[ring] "):
            lost = lost or b"Failing pending tasks" in one
        else:
            os.write(2, one + b"\\n")
os.write(2, rest)
"""


@contextlib.contextmanager
def one_rank_speaks() -> Iterator[None]:
    """Let what other ranks than the first write go nowhere; end with a rank that has gone."""
    rank = launched_rank()
    if rank is not None:
        _watch_sockets(rank)
    if not rank:
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _watch_sockets(rank: int) -> None:
    """Send stderr through a process that takes out what MLX says of sockets, below Python.

    Where MLX gives up on a rank that has gone, what waits for it may wait for ever: the process
    then ends this one, and rank 0 says why.
    """
    line = "" if rank else f"vlmkit: error: {GONE}\n"
    read, write = os.pipe()
    words = [sys.executable, "-I", "-S", "-c", _RELAY, line, str(os.getpid())]
    subprocess.Popen(words, stdin=read, stdout=subprocess.DEVNULL, start_new_session=True)
    os.dup2(write, 2)
    os.close(read)
    os.close(write)


def check_command_of_ranks(command: str | None) -> None:
    """Refuse a command that several processes would do several times.

    Raises:
        VlmkitError: this is one of several ranks, and the command does not generate.
    """
    if launched_rank() is not None and command != "generate":
        raise VlmkitError(
            f"{command or 'no command'}: ranks share the work of 'generate' only; "
            "run other commands without mlx.launch"
        )


def say_error(error: VlmkitError) -> None:
    """Print the error on one line, unless another rank does."""
    line: str | None = str(error)
    if launched_rank() is not None:
        from vlmkit.ranks.meeting import last_words

        line = last_words(error)
    if line is not None:
        print(f"vlmkit: error: {line}", file=sys.stderr)
