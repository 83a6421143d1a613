"""One step of a sampler chain: here, in mlx-lm and in mlx-vlm, taking turns in one process.

    make bench ARGS=benchmarks/bench_sampling.py

Repetition penalty, top_k 50, top_p 0.9, min_p 0.05, temperature 0.7 and the draw on random logits
over a vocabulary of 151,936. The peers apply their stages in their own fixed order, and read one
history for all rows. What is timed ends when the tokens (here also the next state) are computed.
Further: rows that all have other values against rows that share a chain, and the time that the
calling thread spends on building each stage's graph, nothing computed.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.sampling.contract import CONTRACT
from vlmkit.numeric.counter_rng import uniforms
from vlmkit.sampling import (
    MinP,
    RepetitionPenalty,
    SamplerConfig,
    Temperature,
    TopK,
    TopP,
    build_chain,
    build_row_chain,
    build_stage,
    join_states,
    row_chain_key,
)
from vlmkit.sampling.sections import RowSampler, draw_tokens, init_sections, update_sections

VOCAB_SIZE = 151_936
NUM_PROMPT_TOKENS = 300
ROUNDS = 31
WITHOUT_A_STAGE = ("external", "grammar")  # a third party's; one that works on the host

Step = Callable[[], Any]


def configs(temperature: float = 0.7) -> list[SamplerConfig]:
    """The chain that all sides run."""
    return [
        RepetitionPenalty(penalty=1.1),
        TopK(k=50),
        TopP(p=0.9),
        MinP(p=0.05),
        Temperature(temperature=temperature),
    ]


def data(rows: int) -> tuple[mx.array, list[Any]]:
    """Logits float32 ``[B, V]`` and one prompt per row."""
    rng = np.random.default_rng(0)
    logits = mx.array((rng.normal(size=(rows, VOCAB_SIZE)) * 3).astype(np.float32))
    prompts = rng.integers(0, VOCAB_SIZE, (rows, NUM_PROMPT_TOKENS)).astype(np.int32)
    mx.eval(logits)
    return logits, list(prompts)


def ours(logits: mx.array, prompts: Sequence[Any], temperatures: Sequence[float]) -> Step:
    """The random numbers, the draw and the update of the states, as the decode loop does them."""
    samplers = [
        RowSampler(build_chain(configs(value)), key=value, seed=0, sample=row)
        for row, value in enumerate(temperatures)
    ]
    groups, _ = init_sections(samplers, prompts, VOCAB_SIZE)
    mx.eval([group.state for group in groups])

    def step() -> None:
        draws = draw_tokens(groups, logits, samplers, [7] * len(samplers))
        after, _ = update_sections(draws.sections, draws.sampled)
        mx.eval(draws.sampled, [group.state for group in after])

    return step


def shared(logits: mx.array, prompts: Sequence[Any], temperatures: Sequence[float]) -> Step:
    """The same for rows that share a chain, with each row's temperature in its state."""
    chains = [build_row_chain(configs(value)) for value in temperatures]
    assert len({row_chain_key(configs(value)) for value in temperatures}) == 1
    state = join_states(
        [chain.init([ids], VOCAB_SIZE) for chain, ids in zip(chains, prompts, strict=True)]
    )
    mx.eval(state)

    def step() -> None:
        numbers = mx.array([uniforms(0, row, 7, 1) for row in range(len(chains))])
        after, tokens = chains[0].sample(state, logits, numbers)
        mx.eval(tokens, chains[0].update(after, tokens))

    return step


def peer(name: str, logits: mx.array, prompts: Sequence[Any]) -> Step:
    """A toolkit's own processors and sampler with the same settings."""
    module = importlib.import_module(f"{name}.sample_utils")
    sampler = module.make_sampler(temp=0.7, top_p=0.9, min_p=0.05, top_k=50)
    processors = module.make_logits_processors(repetition_penalty=1.1)
    tokens = mx.array(prompts[0])

    def step() -> None:
        values = logits
        for processor in processors:
            values = processor(tokens, values)
        mx.eval(sampler(values - mx.logsumexp(values, axis=-1, keepdims=True)))

    return step


def compare(benchmark: Any, capsys: Any, title: str, first: Step, others: dict[str, Step]) -> None:
    """Time ``first`` by the fixture; before each of its rounds every other runs once, timed too."""
    times: dict[str, list[float]] = {name: [] for name in others}

    def run_others() -> None:
        names = list(others)
        for name in names[:: 1 if len(times[names[0]]) % 2 else -1]:
            began = time.perf_counter()
            others[name]()
            times[name].append(time.perf_counter() - began)

    benchmark.pedantic(first, setup=run_others, rounds=ROUNDS, warmup_rounds=2)
    own = benchmark.stats.stats.median
    lines = [f"{title}: {own * 1e3:.2f} ms, the median of {ROUNDS}"]
    for name, seconds in times.items():
        median = statistics.median(seconds[-ROUNDS:])  # the first ones warmed up
        benchmark.extra_info[f"ratio to {name}"] = own / median
        lines.append(f"  {name}: {median * 1e3:.2f} ms, ratio {own / median:.3f}")
    with capsys.disabled():
        print("\n" + "\n".join(lines))


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("name", ["mlx_lm", "mlx_vlm"])
@pytest.mark.benchmark(group="sampler chain")
def test_chain(benchmark: Any, capsys: Any, name: str, rows: int) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed; `make parity` installs it")
    logits, prompts = data(rows)
    step = ours(logits, prompts, [0.7] * rows)
    compare(benchmark, capsys, f"{rows} rows, vlmkit", step, {name: peer(name, logits, prompts)})


@pytest.mark.benchmark(group="rows with other values")
def test_rows_with_sixteen_chains(benchmark: Any, capsys: Any) -> None:
    logits, prompts = data(16)
    temperatures = [0.5 + row / 36 for row in range(16)]
    others = {
        "16 equal rows, one chain": ours(logits, prompts, [0.7] * 16),
        "16 temperatures, one chain": shared(logits, prompts, temperatures),
    }
    different = ours(logits, prompts, temperatures)
    compare(benchmark, capsys, "16 temperatures, 16 chains", different, others)


STAGES = [
    pytest.param(row.configs[-1], id=kind)
    for kind, row in CONTRACT.items()
    if kind not in WITHOUT_A_STAGE
]


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("config", STAGES)
@pytest.mark.benchmark(group="Python per stage", timer=time.thread_time)
def test_building_the_graph(benchmark: Any, config: SamplerConfig, rows: int) -> None:
    """All that a step asks of the stage: observe, apply, update.

    top_p cuts its shortlist after waiting for the device on the CPU, so there it gets the 50
    tokens that top_k leaves.
    """
    size = 50 if config.kind == "top_p" else VOCAB_SIZE
    logits, numbers = mx.zeros((rows, size)), mx.full((rows,), 0.4)
    tokens = mx.array([3] * rows)
    stage = build_stage(config)
    state = stage.init([np.arange(NUM_PROMPT_TOKENS, dtype=np.int32) % 50] * rows, size)
    mx.eval(logits, numbers, tokens, state)

    def build() -> None:
        seen = state if stage.observe is None else stage.observe(state, logits)
        stage.apply(seen, logits, numbers)
        stage.update(seen, tokens)

    benchmark.pedantic(build, rounds=40, iterations=20, warmup_rounds=2)
