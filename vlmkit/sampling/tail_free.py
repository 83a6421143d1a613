"""Tail-free sampling: cut where the sorted probabilities stop bending."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where, log_softmax, mass_above, total_mass
from vlmkit.sampling.numerics import keep_ranks
from vlmkit.sampling.stateless import by_value


class TailFree(StageConfig):
    """Cut the tail where a share z of the curvature lies above."""

    kind: Literal["tail_free"] = "tail_free"
    z: Float = Field(gt=0.0, le=1.0, description="share of the curvature to keep; 1 is off")


def tail_free(config: TailFree) -> SamplerStage:
    """Keep rank r ≥ 1 while the normalised ``|Δ²p|`` summed over ranks 0 … r−1 is at most z.

    ``Δ²`` are the second differences of the sorted probabilities; the two last ranks share the
    last sum. Rank 0 is always kept, and so is everything when there is no curvature. Ties in rank
    go to the lower id.

    Example:
        >>> stage = tail_free(TailFree(z=0.5))
        >>> mx.isfinite(stage.apply((), mx.log(mx.array([[0.7, 0.2, 0.05, 0.05]])), None)).tolist()
        [[True, False, False, False]]

    Reference:
        Phénix and Egan, "Tail free sampling", 2019, trentbrick.github.io/Tail-Free-Sampling.
    """

    def truncate(logits: mx.array) -> mx.array:
        if config.z == 1.0 or logits.shape[-1] < 3:
            return logits
        ordered = -mx.sort(-logits, axis=-1)
        probs = mx.exp(log_softmax(ordered))
        slopes = probs[:, 1:] - probs[:, :-1]
        bends = mx.abs(slopes[:, 1:] - slopes[:, :-1])
        above = mass_above(bends) + bends <= config.z * total_mass(bends)
        last = above[:, -1:]
        num_kept = 1 + mx.sum(above, axis=-1, keepdims=True) + last
        return keep_where(logits, keep_ranks(logits, ordered, num_kept))

    return by_value("tail_free", truncate)
