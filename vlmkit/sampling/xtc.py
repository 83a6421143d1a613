"""XTC (exclude top choices): sometimes drop all likely tokens but the least likely of them."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where, log_softmax
from vlmkit.sampling.stateless import keep_state, no_state_of_ids
from vlmkit.tokens.ids import TokenIds, ids_of


class Xtc(StageConfig):
    """With some probability drop every likely token except the least likely of them."""

    kind: Literal["xtc"] = "xtc"
    probability: Float = Field(ge=0.0, le=1.0, description="how often, per row; 0 is off")
    threshold: Float = Field(gt=0.0, lt=1.0, description="tokens at least this likely are likely")
    protected_ids: TokenIds = Field(
        default=(), description="tokens (ids, text or eos) never dropped, such as '\\n'"
    )
    ties: Literal["exact", "all"] = Field(
        default="all", description="all: what ties with the least likely stays; exact: the last id"
    )


def xtc(config: Xtc) -> SamplerStage:
    """Where ``u < q``: drop every ``p_i ≥ t`` except the least likely of those (all ties of it).

    Each row has its own number u and its own set. With ``ties: exact``, as in llama.cpp, just one
    of the likely tokens stays: of equal ones that with the highest id.

    Example:
        >>> stage = xtc(Xtc(probability=0.5, threshold=0.1))
        >>> logits = mx.log(mx.array([[0.6, 0.35, 0.05]] * 2))
        >>> mx.isfinite(stage.apply((), logits, mx.array([0.4, 0.6]))).tolist()
        [[False, True, True], [True, True, True]]

    Reference:
        Weidmann, "Exclude top choices (XTC)", 2024, github.com/oobabooga/text-generation-webui
        pull request 6335.
    """
    protected_ids = ids_of("xtc", config.protected_ids)

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        if uniform is None:
            raise ValueError("xtc needs one uniform number per row")
        logprobs = log_softmax(logits)
        likely = mx.exp(logprobs) >= config.threshold
        least = mx.min(mx.where(likely, logits, mx.inf), axis=-1, keepdims=True)
        above = logits > least
        if config.ties == "exact":
            last = mx.where(likely & ~above, mx.arange(logits.shape[-1]), -1)
            above = mx.arange(logits.shape[-1]) != mx.max(last, axis=-1, keepdims=True)
        drop = likely & above & (uniform[:, None] < config.probability)
        if protected_ids:
            ids = mx.arange(logits.shape[-1])[:, None] == mx.array(protected_ids)
            drop = drop & ~mx.any(ids, axis=-1)
        return keep_where(logits, ~drop)

    return SamplerStage(
        "xtc",
        no_state_of_ids("xtc", protected_ids),
        apply,
        keep_state,
        is_random=True,
        by_value=not protected_ids,
    )
