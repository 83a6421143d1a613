"""Two processes on this machine, started as ``mlx.launch`` starts ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """How a rank ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


def write_hosts(folder: Path, num_ranks: int = 2) -> Path:
    """Write a host file with ports of this machine that are free."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num_ranks)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        hosts = [[f"127.0.0.1:{one.getsockname()[1]}"] for one in sockets]
    path = folder / "hosts.json"
    path.write_text(json.dumps(hosts))
    return path


def environment(hosts: Path, rank: int, timeout_s: float = 60) -> dict[str, str]:
    """What a rank is told."""
    own = {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)}
    return os.environ | own | {"VLMKIT_RANKS_TIMEOUT": str(timeout_s), "PYTHONPATH": str(ROOT)}


def start(words: Sequence[str], hosts: Path, rank: int, timeout_s: float = 60) -> subprocess.Popen:
    """Start ``python`` with these words as a rank."""
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment(hosts, rank, timeout_s),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def run_ranks(folder: Path, *words: Sequence[str], timeout_s: float = 60) -> list[Ended]:
    """Run a rank for each list of words, and wait for all."""
    hosts = write_hosts(folder, len(words))
    ranks = [start(own, hosts, rank, timeout_s) for rank, own in enumerate(words)]
    return [end(rank) for rank in ranks]


def end(rank: subprocess.Popen) -> Ended:
    """Wait for a rank."""
    try:
        stdout, stderr = rank.communicate(timeout=120)
    finally:
        rank.kill()
    return Ended(rank.returncode, stdout, stderr)
