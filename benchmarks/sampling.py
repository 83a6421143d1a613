"""One sampler chain in vlmkit and in mlx-lm, in one process, taking turns.

    python -m benchmarks.sampling --rounds 15

Penalties, top_k 50, top_p 0.9, min_p 0.05, temperature and the draw on random logits over a
vocabulary of 151,936. Every round runs each side once, in alternating order; the table shows
medians and the median of the per-round ratios. mlx-lm applies its stages in its own fixed order.
The second table is the time the calling thread spends building the graph, per stage.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from rich.console import Console
from rich.table import Table

from vlmkit.sampling import (
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    build_chain,
)

VOCAB_SIZE = 151_936
NUM_PROMPT_TOKENS = 300
CONFIGS = [
    RepetitionPenalty(penalty=1.1),
    PresencePenalty(penalty=0.2),
    FrequencyPenalty(penalty=0.1),
    TopK(k=50),
    TopP(p=0.9),
    MinP(p=0.05),
    Temperature(temperature=0.7),
]

Step = Callable[[], mx.array]


def ours(logits: mx.array, prompts: np.ndarray) -> Step:
    """The chain above."""
    chain = build_chain(CONFIGS)
    state = chain.init(list(prompts), VOCAB_SIZE)
    uniforms = mx.full((len(prompts), 1), 0.4)
    mx.eval(state, uniforms)
    return lambda: chain.sample(state, logits, uniforms)[1]


def mlx_lm(logits: mx.array, prompts: np.ndarray) -> Step:
    """The same settings; its penalties read one history, here that of the first row."""
    sampler = make_sampler(temp=0.7, top_p=0.9, min_p=0.05, top_k=50)
    processors = make_logits_processors(
        repetition_penalty=1.1, presence_penalty=0.2, frequency_penalty=0.1
    )
    tokens = mx.array(prompts[0])

    def step() -> mx.array:
        values = logits
        for processor in processors:
            values = processor(tokens, values)
        return sampler(values - mx.logsumexp(values, axis=-1, keepdims=True))

    return step


def alternate(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per run, one run of each per round, the order reversed every other round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-1, rounds):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            mx.eval(steps[name]())
            if number >= 0:  # the first round warms up
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def python_us(step: Callable[[], Any], repeats: int = 200) -> float:
    """Microseconds of the calling thread per call, nothing evaluated; the best of five."""
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        for _ in range(repeats):
            step()
        best = min(best, (time.thread_time() - began) / repeats * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    table = Table("rows", "vlmkit ms", "mlx-lm ms", "ratio", title="sampler chain, one step")
    for rows in (1, 16):
        logits = mx.array((rng.normal(size=(rows, VOCAB_SIZE)) * 3).astype(np.float32))
        prompts = rng.integers(0, VOCAB_SIZE, (rows, NUM_PROMPT_TOKENS)).astype(np.int32)
        steps = {"vlmkit": ours(logits, prompts), "mlx-lm": mlx_lm(logits, prompts)}
        times = alternate(steps, rounds)
        ratios = [a / b for a, b in zip(times["vlmkit"], times["mlx-lm"], strict=True)]
        medians = [statistics.median(times[name]) for name in steps]
        table.add_row(
            str(rows), *(f"{ms:.2f}" for ms in medians), f"{statistics.median(ratios):.3f}"
        )
    console = Console()
    console.print(table)

    stages = Table("stage", "Python µs", title="building the graph, one row")
    logits = mx.zeros((1, VOCAB_SIZE))
    short = mx.zeros((1, 50))
    chain = build_chain(CONFIGS)
    state = chain.init([np.arange(NUM_PROMPT_TOKENS, dtype=np.int32)], VOCAB_SIZE)
    seen = logits
    for stage, part in zip(chain.stages, state, strict=True):
        if seen is logits and stage.shortlist is not None:
            step = partial(stage.shortlist, part, logits)
            seen = short
        else:
            step = partial(stage.apply, part, seen, None)
        microseconds = python_us(step)
        stages.add_row(stage.name, f"{microseconds:.0f}")
    stages.add_row("draw", f"{python_us(lambda: chain.draw(short, mx.zeros((1, 1)))):.0f}")
    console.print(stages)


if __name__ == "__main__":
    main()
