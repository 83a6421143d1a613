"""A million records to a comparison, in a process of its own: time and peak memory.

    make bench ARGS=benchmarks/bench_compare.py

20 arms × 10,000 samples × 5 seeds with two metrics, about 0.6 kB a line. The peak memory is in the
column ``extra`` of ``--benchmark-json``, and printed with ``-s``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from vlmkit.experiment.records import Record, Scored

NUM_ARMS, NUM_SAMPLES, NUM_SEEDS = 20, 10_000, 5
TEXT = "<think>I look at the picture and count: one, two, three.</think> There are three circles."
SCRIPT = f"""
import resource, sys
from vlmkit.experiment.compare import compare
from vlmkit.experiment.reading import read_scores
from vlmkit.experiment.runinfo import RunInfo
arms = {{f"arm{{number:02}}": {{"k": number}} for number in range({NUM_ARMS})}}
info = RunInfo(name="run", arms=arms, metrics=["exact", "pope"], baseline="arm00")
comparison = compare([(info, read_scores(sys.argv[1]))])
assert comparison.metrics[0].rows[-1].responses == {NUM_SAMPLES * NUM_SEEDS}
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(kilobytes * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("run") / "records.jsonl"
    generator, encode = np.random.default_rng(0), msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for sample in range(NUM_SAMPLES):
            right = generator.uniform(size=(NUM_ARMS, NUM_SEEDS)) < generator.uniform()
            file.writelines(
                encode(_record(arm, sample, seed, float(right[arm, seed]))) + b"\n"
                for arm in range(NUM_ARMS)
                for seed in range(NUM_SEEDS)
            )
    return path


def _record(arm: int, sample: int, seed: int, value: float) -> Record:
    scores = {
        name: Scored(value=value, parsed="yes", parts={"tp": value}) for name in ("exact", "pope")
    }
    return Record(
        arm=f"arm{arm:02}", sample=f"sample-{sample:05}", seed=seed, text=TEXT, scores=scores,
        token_ids=list(range(100, 124)), forced=[False] * 24, finish_reason="stop",
        prompt_tokens=278, generation_tokens=24, prompt_s=0.0123, generation_s=0.4567,
    )  # fmt: skip


@pytest.mark.benchmark(group="compare")
def test_a_million_records(benchmark: Any, records: Path) -> None:
    def run() -> int:
        command = [sys.executable, "-c", SCRIPT, str(records)]
        return int(json.loads(subprocess.check_output(command, text=True)))

    peak_bytes = benchmark.pedantic(run, rounds=3)
    benchmark.extra_info["peak_bytes"] = peak_bytes
    print(f"\npeak memory: {peak_bytes / 1e6:.0f} MB")
    assert peak_bytes < 2e9
