"""Contrastive decoding: the model against a weaker one."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import keep_plausible, logprobs, only
from vlmkit.declare.configbase import Float, StageConfig


class ContrastiveDecodingConfig(StageConfig):
    """Prefer what the model finds more likely than an amateur does."""

    kind: Literal["contrastive_decoding"] = "contrastive_decoding"
    amateur: str = Field(
        min_length=1,
        description="the weaker model: a checkpoint folder, a hub id, or shapes; it needs the same"
        " tokenizer",
    )
    alpha: Float = Field(
        default=0.1, gt=0.0, le=1.0, description="keep tokens with p ≥ alpha · max p; 1 is greedy"
    )
    beta: Float | None = Field(
        default=None,
        ge=0.0,
        description="(1 + beta) · ln p − beta · ln p_amateur, of O'Brien and Lewis (0.5 there);"
        " null: ln p − ln p_amateur, of Li et al.",
    )
    amateur_temperature: Float = Field(
        default=1.0, gt=0.0, description="divides the amateur's logits; below 1 sharpens them"
    )


def contrastive_decoding(config: ContrastiveDecodingConfig) -> Contrast:
    """Return ``ln p − ln q`` where ``p ≥ α max p``, q the amateur's; else −inf.

    With ``beta``: ``(1 + β) ln p − β ln q``, whose β = 0 is the plausibility cut alone.

    Example:
        >>> against = contrastive_decoding(ContrastiveDecodingConfig(amateur="shapes"))
        >>> p, q = mx.log(mx.array([[0.5, 0.4, 0.01]])), mx.log(mx.array([[[0.5, 0.1, 0.4]]]))
        >>> mx.argmax(against.combine(p, q, mx.array([0])), axis=-1).item()
        1

    Reference:
        Li et al., "Contrastive decoding: open-ended text generation as optimization", ACL 2023,
        arXiv:2210.15097 (the authors' scripts sharpen the amateur to a temperature of 0.5).
        O'Brien and Lewis, "Contrastive decoding improves reasoning in large
        language models", 2023, arXiv:2309.09117 (β = 0.5).
    """

    def combine(logits: mx.array, others: mx.array, num_tokens: mx.array) -> mx.array:
        expert = logprobs(logits)
        amateur = logprobs(only(others) / config.amateur_temperature)
        if config.beta is None:
            scores = expert - amateur
        else:
            scores = expert + config.beta * (expert - amateur)
        return keep_plausible(scores, logits, config.alpha)

    return Contrast("contrastive_decoding", combine)
