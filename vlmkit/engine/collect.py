"""Steps of the decode loop as public results, one per token or one per row."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from vlmkit.engine.rows import Step
from vlmkit.results import GenerationResult

_BYTES_PER_GB = 1e9


def to_result(step: Step, effective: dict[str, Any] | None = None) -> GenerationResult:
    """One step as a result; its text is the newly released segment."""
    since_first = time.perf_counter() - step.first_token_s
    result = GenerationResult(
        text=step.text,
        token=step.token_id,
        prompt_tokens=step.prompt.length,
        generation_tokens=step.num_tokens,
        total_tokens=step.prompt.length + step.num_tokens,
        prompt_tps=step.timing.tokens_per_s,
        generation_tps=(step.num_tokens - 1) / since_first if step.num_tokens > 1 else 0.0,
        peak_memory=mx.get_peak_memory() / _BYTES_PER_GB,
        token_ids=[step.token_id] if step.token_id is not None else [],
        forced=[step.forced] if step.token_id is not None else [],
        cached_tokens=step.timing.cached_tokens,
        trace=step.trace,
        effective=effective,
    )
    if step.finish is not None:
        result.finish_reason = step.finish.reason
        result.finish_kind = step.finish.kind
        result.matched_stop = step.finish.matched
        if step.finish.error is not None:
            result.error = str(step.finish.error) or type(step.finish.error).__name__
    if step.hypotheses:
        result.score = step.hypotheses[0][0]
        result.alternatives = [
            replace(collect(map(to_result, steps)), score=score)
            for score, steps in step.hypotheses[1:]
        ]
    if (logits := step.logits) is not None:
        result.logprobs = lambda: normalised_logprobs(logits)  # type: ignore[assignment]
    return result


def normalised_logprobs(logits: mx.array) -> list[float]:
    """Log-softmax of float32 ``[V]`` logits as a list; summed in float64, rounded to float32."""
    # mx.logsumexp drifts by 5e-4 over a vocabulary of 150k.
    values = np.array(logits, np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    logprobs: list[float] = values.astype(np.float32).tolist()
    return logprobs


def collect(results: Iterable[GenerationResult]) -> GenerationResult:
    """All results of one row, in order, as the result of the whole row."""
    text: list[str] = []
    token_ids: list[int] = []
    forced: list[bool] = []
    last = GenerationResult()
    for last in results:
        text.append(last.text)
        token_ids += last.token_ids
        forced += last.forced
    last.text, last.token_ids, last.forced = "".join(text), token_ids, forced
    return last


def collect_rows(
    steps: Iterable[tuple[Step, dict[str, Any] | None]],
) -> Iterator[tuple[Step, GenerationResult]]:
    """Yield each row's last step and whole result as the row finishes."""
    open_rows: dict[int, list[Step]] = {}
    for step, effective in steps:
        earlier = open_rows.setdefault(step.row, [])
        if earlier:  # only the last step's logits are part of a whole result
            earlier[-1] = earlier[-1]._replace(logits=None)
        earlier.append(step)
        if step.finish is not None:
            result = collect(map(to_result, open_rows.pop(step.row)))
            result.effective = effective
            yield step, result
