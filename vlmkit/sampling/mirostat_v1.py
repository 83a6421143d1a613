"""Mirostat (the first): top-k, with k from Zipf's law and the surprise of the drawn tokens."""

from __future__ import annotations

import math
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.numeric.probabilities import keep_where
from vlmkit.sampling.mirostat import MirostatState, steer
from vlmkit.sampling.numerics import keep_ranks

_NATS = math.log(2.0)


class MirostatV1(StageConfig):
    """Keep the k likeliest tokens; k follows the surprise seen so far."""

    kind: Literal["mirostat_v1"] = "mirostat_v1"
    tau: Float = Field(default=5.0, gt=0.0, description="target surprise per token, in bits")
    eta: Float = Field(default=0.1, ge=0.0, description="how fast the bound follows")
    num_ranks: Int = Field(
        default=100, ge=2, description="how many of the likeliest tokens the exponent is fitted to"
    )


def mirostat_v1(config: MirostatV1) -> SamplerStage:
    """Keep the k likeliest; then ``μ ← μ − η (surprise − τ)``.

    ``k = ((ε 2^μ) / (1 − V^−ε))^(1/s)``, rounded, at least 1; ties go to the lowest ids. s is the
    exponent of Zipf's law ``p_r ∝ r^−s`` and ε = s − 1. It is fitted by least squares to the
    likeliest tokens (``num_ranks``; impossible ones stay out): ``s = Σ t_r b_r / Σ t_r²`` with
    ``t_r = ln((r + 1) / r)`` and ``b_r = ln(p_r / p_{r+1})``. μ and the surprise are those of
    ``mirostat_v2``. Where the likeliest tokens are all equal there is no s, and nothing is cut.

    Example:
        >>> stage = mirostat_v1(MirostatV1(tau=0.75))
        >>> logits = -mx.log(mx.arange(1, 9, dtype=mx.float32))[None]
        >>> int(mx.isfinite(stage.apply(stage.init([[]], 8), logits, None)).sum())
        1
        >>> stage = mirostat_v1(MirostatV1(tau=1.5))
        >>> int(mx.isfinite(stage.apply(stage.init([[]], 8), logits, None)).sum())
        4

    Reference:
        Basu et al., "Mirostat: a neural text decoding algorithm that directly controls
        perplexity", ICLR 2021, arXiv:2007.14966, algorithm 1.
    """

    steps, squares = _rank_steps(config.num_ranks)

    def truncate(state: MirostatState, logits: mx.array) -> mx.array:
        size = logits.shape[-1]
        log_size = math.log(size)
        ordered = -mx.sort(-logits, axis=-1)
        exponent = _zipf_exponent(ordered, steps, squares)
        lack = 1.0 - exponent  # −ε
        spread = mx.expm1(lack * log_size) / lack  # (1 − V^−ε) / ε
        spread = mx.where(lack == 0.0, log_size, spread)  # its limit
        log_k = (mx.expand_dims(state.mu, -1) * _NATS - mx.log(spread)) / exponent
        # where there is no exponent log_k is NaN: all stay
        log_k = mx.where(log_k < log_size, mx.maximum(log_k, 0.0), log_size)
        k = mx.round(mx.exp(log_k)).astype(mx.int32)
        return keep_where(logits, keep_ranks(logits, ordered, mx.minimum(k, size)))

    return steer("mirostat_v1", truncate, tau=config.tau, eta=config.eta)


def _rank_steps(num_ranks: int) -> tuple[mx.array, mx.array]:
    """Return ``t_r`` and ``t_r²`` of the ranks 1 … num_ranks − 1, float32."""
    ranks = mx.arange(1, num_ranks, dtype=mx.float32)
    steps = mx.log((ranks + 1.0) / ranks)
    return steps, steps * steps


def _zipf_exponent(ordered: mx.array, steps: mx.array, squares: mx.array) -> mx.array:
    """Fit s ``[B, 1]`` to sorted logits ``[B, N]``; NaN where no two finite ones differ."""
    num_steps = min(steps.size, ordered.shape[-1] - 1)
    if num_steps < steps.size:
        steps, squares = steps[:num_steps], squares[:num_steps]
    following = ordered[:, 1 : num_steps + 1]
    known = following > -mx.inf
    drops = mx.where(known, ordered[:, :num_steps] - following, 0.0)
    weight = mx.sum(known * squares, axis=-1, keepdims=True)
    fitted = mx.sum(steps * drops, axis=-1, keepdims=True) / weight
    return mx.where(fitted > 0.0, fitted, mx.nan)
