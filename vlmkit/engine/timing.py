"""What a prefill cost each of its rows: seconds, shared by the tokens computed for each."""

from __future__ import annotations

from collections.abc import Sequence

from vlmkit.contracts.inputs import Inputs
from vlmkit.engine.rows import PromptTiming
from vlmkit.prompts import Prefilled
from vlmkit.resolve.method import Method


def prompt_timings(
    method: Method, rows: Sequence[Inputs], prefilled: Sequence[Prefilled], seconds: float
) -> list[PromptTiming]:
    """Share the time of a prefill among its rows.

    Args:
        method: of the batch.
        rows: their own prompts.
        prefilled: all streams, by each model.
        seconds: of the whole prefill.
    """
    seconds = max(seconds, 1e-9)
    cached = prefilled[0].cached[:: method.num_own]
    own = prefilled[0].computed[:: method.num_own]
    total = sum(sum(part.computed) for part in prefilled)
    per_token = seconds / total if total else 0.0
    new = sum(len(inputs.token_ids) for inputs in rows) - sum(cached)
    contents = [inputs.content for inputs in rows]
    timings = []
    for row, content in enumerate(contents):
        streams = [
            sum(part.computed[row * count : (row + 1) * count])
            for part, (_, count) in zip(prefilled, method.parts, strict=True)
        ]
        timings.append(
            PromptTiming(
                seconds=sum(streams) * per_token,
                tokens_per_s=new / seconds,
                cached_tokens=cached[row],
                prompt_s=own[row] * per_token * contents.count(content),
                others_s=(sum(streams) - own[row]) * per_token,
            )
        )
    return timings
