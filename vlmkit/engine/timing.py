"""What a prefill cost each of its rows: seconds, shared by the tokens computed for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vlmkit.engine.rows import PromptTiming, RowState
from vlmkit.prompts import Prefilled


class Work(NamedTuple):
    """What a row's part of a prefill was, in tokens."""

    own: float  # computed for its own prompt
    others: float  # for the prompts that it is contrasted with
    cached: int


def work_of(prefilled: Prefilled, num_streams: int) -> list[Work]:
    computed, cached = prefilled.computed, prefilled.cached
    return [
        Work(computed[first], sum(computed[first + 1 : first + num_streams]), cached[first])
        for first in range(0, len(cached), num_streams)
    ]


def prompt_timings(
    rows: Sequence[RowState], work: Sequence[Work], seconds: float
) -> list[PromptTiming]:
    """Share the time of a prefill among its rows by the tokens that were computed for each."""
    total = sum(row.own + row.others for row in work)
    known = sum(one.cached for one in work)
    new = sum(len(row.spec.inputs.token_ids) for row in rows) - known
    contents = [row.spec.inputs.content_ids.tobytes() for row in rows]
    seconds = max(seconds, 1e-9)
    per_token = seconds / total if total else 0.0
    return [
        PromptTiming(
            seconds=(one.own + one.others) * per_token,
            tokens_per_s=new / seconds,
            cached_tokens=one.cached,
            prompt_s=one.own * per_token * contents.count(content),
            others_s=one.others * per_token,
        )
        for one, content in zip(work, contents, strict=True)
    ]
