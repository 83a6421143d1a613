"""Locally typical sampling: keep tokens whose surprise is close to the expected one."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import entropy, keep_where, log_softmax, mass_above
from vlmkit.sampling.numerics import keep_ranks, keep_ties
from vlmkit.sampling.stateless import by_value


class TypicalP(StageConfig):
    """Keep the most typical tokens that hold a share p of the mass."""

    kind: Literal["typical_p"] = "typical_p"
    p: Float = Field(gt=0.0, le=1.0, description="share of the probability mass; 1 is off")
    ties: Literal["exact", "all"] = Field(
        default="exact", description="exact: the lowest ids; all: what ties with the last one kept"
    )


def typical_p(config: TypicalP) -> SamplerStage:
    """Rank by ``|−ln p_i − H|``, smallest first; keep i while the mass ranked above it is below τ.

    The lower id comes first on ties; with ``ties: all``, as in transformers, every token as typical
    as the last one kept stays too. Removed tokens count neither in H nor in the ranking. The
    most likely token may go.

    Example:
        >>> stage = typical_p(TypicalP(p=0.3))
        >>> logits = mx.log(mx.array([[0.5, 0.3, 0.1, 0.1]]))
        >>> mx.isfinite(stage.apply((), logits, None)).tolist()
        [[False, True, False, False]]

    Reference:
        Meister, Pimentel, Wiher, Cotterell, "Locally typical sampling", TACL 2023,
        arXiv:2202.00666.
    """

    keep = keep_ties if config.ties == "all" else keep_ranks

    def truncate(logits: mx.array) -> mx.array:
        if config.p == 1.0:
            return logits
        logprobs = log_softmax(logits)
        closeness = -mx.abs(logprobs + entropy(logprobs))  # −inf for a removed token
        order = mx.argsort(-closeness, axis=-1)
        probs = mx.exp(mx.take_along_axis(logprobs, order, axis=-1))
        num_kept = mx.maximum(mx.sum(mass_above(probs) < config.p, axis=-1, keepdims=True), 1)
        ordered = mx.take_along_axis(closeness, order, axis=-1)
        return keep_where(logits, keep(closeness, ordered, num_kept))

    return by_value("typical_p", truncate)
