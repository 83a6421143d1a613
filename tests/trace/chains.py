"""Steps to trace: logits sent through the stages of a chain one by one."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.stages import StepTrace
from vlmkit.sampling import SamplerConfig, build_chain
from vlmkit.tracing import Trace, TraceEnd, TraceHeader, TraceStep
from vlmkit.tracing.measure import measure_step

WORDS = (" the", "a", "\n", " ", "$x$", "円", "\ufffd", "", "\x1b[31m", "e\u0301", "🙂", "<b>&")


def decode(ids: Sequence[int]) -> str:
    """Token texts that are hard to show, then plain ones."""
    return "".join(WORDS[i] if i < len(WORDS) else f" w{i}" for i in ids)


def run_chain(
    configs: Sequence[SamplerConfig],
    logits: NDArray[np.float32],
    *,
    prompt: Sequence[int] = (3, 5, 3),
    uniform: float = 0.4,
) -> StepTrace:
    """The logits ``[V]`` after each stage, as the decode loop gives them."""
    chain = build_chain(configs)
    states = chain.init([np.array(prompt, np.int32)], len(logits))
    values = mx.array(logits)[None]
    names, passed = ["model"], [values[0]]
    for stage, state in zip(chain.stages, states, strict=True):
        column = mx.array([uniform]) if stage.is_random else None
        values = stage.apply(state, values, column)
        names.append(stage.name)
        passed.append(values[0])
    drawn = chain.draw(values, mx.array([[uniform] * (1 + chain.num_random)]))
    return StepTrace(tuple(names), tuple(passed), int(drawn.item()))


def measure(trace: StepTrace, *, top_n: int = 5, position: int = 0, token_id: int | None = None,
            forced: bool = False) -> TraceStep:  # fmt: skip
    """The record of a step; by default the token taken is the one drawn."""
    taken = trace.sampled_id if token_id is None else token_id
    return measure_step(
        trace, position=position, token_id=taken, forced=forced, decode=decode, top_n=top_n
    )


def header(*, top_n: int = 5) -> TraceHeader:
    """What was run."""
    return TraceHeader(
        model="shapes", prompt="How many?\n<think>", seed=3, top_n=top_n, version="0.1.0",
        images=["a.png"], config={"sampling": [{"kind": "top_k", "k": 3}]},
    )  # fmt: skip


def small_trace(
    configs: Sequence[SamplerConfig], *, size: int = 24, num_steps: int = 3, top_n: int = 5
) -> Trace:
    """A few steps under a chain; the last one is forced to a token that the chain removed."""
    rng = np.random.default_rng(7)
    steps = []
    for position in range(num_steps):
        step = run_chain(configs, rng.normal(size=size).astype(np.float32) * 2)
        last = position == num_steps - 1
        worst = int(np.argmin(np.array(step.logits[0])))
        taken = worst if last else None
        steps.append(measure(step, top_n=top_n, position=position, token_id=taken, forced=last))
    end = TraceEnd(text="a b", finish_reason="stop", finish_kind="eos", matched_stop=4)
    return Trace(header=header(top_n=top_n), steps=steps, end=end)
