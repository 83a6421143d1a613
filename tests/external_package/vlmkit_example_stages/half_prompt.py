"""Contrast with the end of the prompt."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import only, without_gaps


def half_prompt(*, weight: float) -> Contrast:
    """Return ``(1 + w) z − w z'``, z' from the second half of the text behind the images."""
    if weight < 0:
        raise ValueError(f"weight must be at least 0, got {weight}")

    def combine(logits: mx.array, others: mx.array, num_tokens: mx.array) -> mx.array:
        # z + w (z − z') rounds to z where both are equal, however large they are.
        gap = logits - without_gaps(only(others))
        return logits + weight * mx.where(logits == -mx.inf, 0.0, gap)

    def other_prompt(inputs: Inputs) -> Inputs:
        text = inputs.token_ids[max((medium.span[1] for medium in inputs.media), default=0) :]
        return Inputs.of(text[len(text) // 2 :])

    return Contrast("half_prompt", combine, other_prompt=other_prompt)
