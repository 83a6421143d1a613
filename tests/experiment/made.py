"""Small runs with known values, made without a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlmkit.experiment.records import Record, Scored
from vlmkit.experiment.runinfo import RunInfo, SampleInfo

ARMS = {
    "greedy": {"sampling": [], "max_tokens": 24},
    "hot": {"sampling": [{"kind": "temperature", "temperature": 1.5}], "max_tokens": 24},
    "long_|x": {"sampling": [], "max_tokens": 48},
}


def record(arm: str, sample: str, value: float | None, *, seed: int = 0, **more: object) -> Record:
    """One record under the metric ``exact``."""
    parsed = None if value is None else f"answer {value}"
    fields = {
        "text": f"{arm} says {value}",
        "scores": {"exact": Scored(value=value, parsed=parsed)},
    }
    return Record(arm=arm, sample=sample, seed=seed, **{**fields, **more})


def info(name: str = "run", **more: object) -> RunInfo:
    """A run of `ARMS`."""
    fields = {"name": name, "arms": ARMS, "metrics": ["exact"], "baseline": "greedy"}
    return RunInfo(**{**fields, **more})


def drawn(num_samples: int = 40, num_seeds: int = 1) -> Iterator[Record]:
    """Records of all arms; later arms are right more often."""
    generator = np.random.default_rng(3)
    for sample in range(num_samples):
        ease = generator.uniform()
        for better, arm in enumerate(ARMS):
            for seed in range(num_seeds):
                value = float(generator.uniform() < ease + 0.15 * better)
                yield record(
                    arm, f"s{sample}", value, seed=seed,
                    generation_tokens=12 + better, prompt_s=0.25, generation_s=0.5,
                )  # fmt: skip


def samples(num_samples: int = 40) -> dict[str, SampleInfo]:
    """What was asked in `drawn`."""
    return {
        f"s{number}": SampleInfo(question=f"How many, in {number}?", answers=["answer 1.0"])
        for number in range(num_samples)
    }
