"""Ranks that differ, fail, go or never come: one line each time, and no rank waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.loading.checkpoints import make_config, random_weights, write_checkpoint
from tests.ranks.pair import ROOT, end, run_ranks, start, write_hosts

GENERATE = ["-m", "vlmkit", "generate", "--model", "shapes", "--max-tokens", "2"]
ASK = [*GENERATE, "--prompt", "Hi"]
IMAGE = "vlmkit/assets/shapes/samples/describe.png"
LONG = [*GENERATE[:-1], "20", "--prompt", "Describe the image.", "--image", IMAGE]


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        (ASK, [*ASK[:-1], "Ho"], "rank 1 differs from rank 0 in its prompt or images; "),
        (ASK, [*ASK, "--temperature", "1"], "rank 1 differs from rank 0 in its config (sampling)"),
        (ASK, [*ASK, "--dtype", "bfloat16"], "rank 1 differs from rank 0 in its dtype; "),
        (ASK, [*ASK, "--temperature", "-1"], "rank 1: --temperature: "),
        ([*ASK, "--image", "none.png"], ASK, "--image: images.0: image none.png: no such file"),
        ([*ASK, "--seed", "x"], [*ASK, "--seed", "x"], "argument --seed: "),
        (["-m", "vlmkit", "doctor"], ["-m", "vlmkit", "doctor"], "doctor: ranks share the work"),
    ],
    ids=("prompt", "sampling", "dtype", "second_fails", "first_fails", "both_fail", "command"),
)
def test_one_line(first: Sequence[str], second: Sequence[str], line: str, tmp_path: Path) -> None:
    ended = run_ranks(tmp_path, first, second)
    assert [one.code for one in ended] == [2, 2]
    written = "".join(one.stderr for one in ended)
    assert written.startswith(f"vlmkit: error: {line}")
    assert written.count("\n") == 1
    assert [one.stdout for one in ended] == ["", ""]


def test_another_checkpoint(tmp_path: Path) -> None:
    config = make_config(tied=True)
    folders = [
        write_checkpoint(tmp_path / str(seed), config, random_weights(config, seed))
        for seed in range(2)
    ]
    code = "from pathlib import Path; from vlmkit.loading import *;"
    words = [["-c", code + f"load_model(Path({str(folder)!r}))"] for folder in folders]
    for ended in run_ranks(tmp_path, *words):
        assert ended.stderr.splitlines()[-1].endswith(
            ".RanksError: rank 1 differs from rank 0 in its checkpoint; "
            "start all ranks with the same"
        )


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    first, *others = run_ranks(tmp_path, ASK, ASK, ASK)
    assert first.stderr == (
        "vlmkit: error: --model: model: 3 ranks: config.json: num_attention_heads 4 does not "
        "divide among them; launch 1 or 2\n"
    )
    assert [one.stderr for one in others] == ["", ""]


def test_launched_by_mlx() -> None:
    launcher = [str(Path(sys.executable).with_name("mlx.launch")), "-n", "2", "--"]
    done = subprocess.run(
        [*launcher, sys.executable, *LONG],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    alone = subprocess.run(
        [sys.executable, *LONG], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == alone.stdout  # mlx.launch returns 0 whatever happens


def test_only_the_first_prints(tmp_path: Path) -> None:
    first, second = run_ranks(tmp_path, LONG, LONG)
    assert (first.code, first.stderr) == (second.code, second.stderr) == (0, "")
    assert first.stdout.strip()
    assert second.stdout == ""


DIES = f"""
import os, signal
from vlmkit.cli.main import main
from vlmkit.engine import run

def die(steps):
    next(steps)
    os.kill(os.getpid(), signal.SIGKILL)

run.watched = die
main({LONG[2:]})
"""


def test_a_rank_that_dies(tmp_path: Path) -> None:
    first, second = run_ranks(tmp_path, LONG, ["-c", DIES])
    assert second.code == -signal.SIGKILL
    assert first.code != 0
    assert first.stderr.splitlines() == [
        "vlmkit: error: a rank has gone: see what it printed, and start all again"
    ]


@pytest.mark.parametrize("stopped", [False, True], ids=("never_comes", "stops"))
def test_a_rank_that_does_not_answer(stopped: bool, tmp_path: Path) -> None:
    hosts = write_hosts(tmp_path)
    waits = "import time; from vlmkit.ranks.group import join_ranks; join_ranks(); time.sleep(99)"
    other = start(["-c", waits], hosts, 1) if stopped else None
    try:
        first = end(start(ASK, hosts, 0, timeout_s=5))
    finally:
        if other is not None:
            other.kill()
            other.communicate()
    assert first.code == -signal.SIGKILL
    assert first.stderr == (
        "vlmkit: error: rank 0: the other ranks did not answer for 5 s; see whether they all run, "
        "or wait longer with VLMKIT_RANKS_TIMEOUT\n"
    )
