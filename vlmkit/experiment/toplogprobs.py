"""The most likely tokens beside each token of a response, for its record."""

from __future__ import annotations

from typing import cast

import mlx.core as mx

from vlmkit.engine import Step
from vlmkit.experiment.records import Record
from vlmkit.numeric.probabilities import log_softmax

_LOWEST = -1e30  # JSON has no infinity


class TopLogprobs:
    """Takes in the steps of rows as they come.

    A search gives its tokens only when it has ended, without their logits; nothing is kept of it.

    Args:
        top_n: how many tokens to keep of each distribution; 0: nothing is kept.
    """

    def __init__(self, top_n: int) -> None:
        self._top_n = top_n
        self._rows: dict[int, list[tuple[mx.array, mx.array]]] = {}

    def add(self, step: Step) -> None:
        """Keep the likeliest tokens of the model's own distribution, and the token taken."""
        if not self._top_n or step.logits is None or step.token_id is None:
            return
        logprobs = log_softmax(step.logits[None])[0]
        count = min(self._top_n, logprobs.shape[0])
        ids = mx.argpartition(-logprobs, count - 1)[:count]
        ids = mx.concatenate([mx.array([step.token_id], ids.dtype), ids])
        found = ids, logprobs[ids]
        mx.async_eval(found)  # type: ignore[no-untyped-call]  # else it holds the batch's logits
        self._rows.setdefault(step.row, []).append(found)

    def write(self, row: int, record: Record) -> None:
        """Put what was kept of a row into its record, and forget it."""
        kept = self._rows.pop(row, [])
        if len(kept) != len(record.token_ids):
            return
        for ids, logprobs in kept:
            pairs = zip(
                cast("list[int]", ids.tolist()), cast("list[float]", logprobs.tolist()), strict=True
            )
            taken, *top = ((token_id, max(value, _LOWEST)) for token_id, value in pairs)
            record.logprobs.append(taken[1])
            record.top_logprobs.append(sorted(top, key=lambda pair: (-pair[1], pair[0])))
