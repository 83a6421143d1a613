"""Mirostat v2: steer the surprise of the drawn tokens towards a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where, log_softmax

_BITS = 1.0 / math.log(2.0)


class MirostatV2(StageConfig):
    """Cut surprising tokens at a bound that follows the surprise seen so far."""

    kind: Literal["mirostat_v2"] = "mirostat_v2"
    tau: Float = Field(default=5.0, gt=0.0, description="target surprise per token, in bits")
    eta: Float = Field(default=0.1, ge=0.0, description="how fast the bound follows")


class MirostatState(NamedTuple):
    """The bound, and what it needs to move on."""

    mu: mx.array  # float32 [B]; bits
    surprise: mx.array  # float32 [B, V]; bits of each token at this step, NaN before the first


def mirostat_v2(config: MirostatV2) -> SamplerStage:
    """Keep ``−log2 p_i ≤ μ`` and the most likely token; then ``μ ← μ − η (surprise − τ)``.

    μ starts at 2τ. The surprise is that of the token really taken, under the distribution that
    enters the stage, as in the paper; a token that was impossible there leaves μ as it is.

    Example:
        >>> stage = mirostat_v2(MirostatV2(tau=1.0, eta=1.0))
        >>> state = stage.init([[]], 3)
        >>> logits = mx.log(mx.array([[0.5, 0.375, 0.125]]))
        >>> mx.isfinite(stage.apply(state, logits, None)).tolist()
        [[True, True, False]]
        >>> state = stage.update(stage.observe(state, logits), mx.array([0]))
        >>> round(state.mu.item(), 3)
        2.0

    Reference:
        Basu et al., "Mirostat: a neural text decoding algorithm that directly controls
        perplexity", ICLR 2021, arXiv:2007.14966.
    """

    def bound(state: MirostatState, logits: mx.array) -> mx.array:
        top = logits == mx.max(logits, axis=-1, keepdims=True)
        return keep_where(
            logits, top | (log_softmax(logits) * -_BITS <= mx.expand_dims(state.mu, -1))
        )

    return steer("mirostat_v2", bound, tau=config.tau, eta=config.eta)


def steer(
    name: str, truncate: Callable[[MirostatState, mx.array], mx.array], *, tau: float, eta: float
) -> SamplerStage:
    """Make a stage of a cut at μ, which follows the surprise of the tokens taken.

    Args:
        name: the stage's kind.
        truncate: the state and float32 logits ``[B, V]`` to what is left of them.
        tau: target surprise, in bits.
        eta: how fast μ follows.
    """

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> MirostatState:
        mu = mx.full((len(prompts),), 2.0 * tau)
        return MirostatState(mu, mx.full((len(prompts), vocab_size), mx.nan))

    def observe(state: MirostatState, logits: mx.array) -> MirostatState:
        return MirostatState(state.mu, log_softmax(logits) * -_BITS)

    def update(state: MirostatState, token_ids: mx.array) -> MirostatState:
        ids = mx.expand_dims(mx.maximum(token_ids, 0), -1)
        surprise = mx.take_along_axis(state.surprise, ids, axis=-1).squeeze(-1)
        known = (surprise < mx.inf) & (token_ids >= 0)  # neither is NaN
        step = mx.where(known, eta * (surprise - tau), 0.0)
        return MirostatState(state.mu - step, state.surprise)

    return SamplerStage(
        name, init, lambda state, logits, uniform: truncate(state, logits), update, observe=observe
    )
