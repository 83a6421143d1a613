"""Top-p (nucleus): keep the most likely tokens that together hold a share of the mass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.backend.device import reads_back_cheaply
from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.numeric.probabilities import keep_where, mass_above, total_mass
from vlmkit.sampling.numerics import keep_ranks, keep_ties, largest, scatter
from vlmkit.sampling.per_row import Number
from vlmkit.sampling.stateless import keep_state, no_state

_CANDIDATES = (1024, 16384)  # how many to select and sort first; few distributions need more
_SHORT = 8  # a shortlist pays when it is at most an eighth of the vocabulary


class TopP(StageConfig):
    """Keep the smallest set of most likely tokens that holds a share p of the mass."""

    kind: Literal["top_p"] = "top_p"
    p: Float = Field(gt=0.0, le=1.0, description="share of the probability mass; 1 is off")
    ties: Literal["exact", "all"] = Field(
        default="exact", description="exact: the lowest ids; all: what ties with the last one kept"
    )


def top_p(config: TopP) -> SamplerStage:
    """Keep token i while the mass ranked above it is below P.

    The rank is by logit, the lower id first on ties; the masses are those of the normalised
    distribution in float32. The first token is always kept. Applied twice it may drop more: the
    masses are normalised again over what is left. With ``ties: all``, as in mlx-lm and mlx-vlm,
    every logit equal to the last one kept stays too.

    With a large vocabulary on the CPU the 1024 most likely tokens are selected and sorted, then
    16384, and all of them only if those hold less than P (known after a synchronisation). The
    result is the same.

    Example:
        >>> stage = top_p(TopP(p=0.6))
        >>> stage.apply((), mx.log(mx.array([[0.5, 0.2, 0.3]])), None)[0, 1].item()
        -inf

    Reference:
        Holtzman et al., "The curious case of neural text degeneration", ICLR 2020,
        arXiv:1904.09751.
    """
    return top_p_of(config)(config.p)


def top_p_of(config: TopP) -> Callable[[Number], SamplerStage]:
    """Return the stage as a function of its share; off where the config's is."""
    with_ties = config.ties == "all"

    def select(logits: mx.array, share: Number) -> tuple[mx.array, mx.array] | None:
        sizes = [size for size in _CANDIDATES if size * _SHORT <= logits.shape[-1]]
        if config.p == 1.0 or not sizes or not reads_back_cheaply():
            return None  # a GPU sorts a vocabulary faster than it waits for the host
        wanted = _total(logits) * share  # NaN where nothing can be drawn: no list is enough
        for size in sizes:
            ids = largest(logits, size)
            chosen = mx.take_along_axis(logits, ids, axis=-1)
            keep, mass = _nucleus(chosen, wanted, with_ties)
            enough = mass >= wanted
            if with_ties:  # what ties with the last candidate may lie outside the list
                enough = enough & ~mx.all(keep, axis=-1, keepdims=True)
            if mx.all(enough).item():
                return ids, keep_where(chosen, keep)
        return None

    def make(share: Number) -> SamplerStage:
        def shortlist(state: Pytree, logits: mx.array) -> tuple[mx.array, mx.array] | None:
            return select(logits, share)

        def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
            if config.p == 1.0:
                return logits
            if (short := select(logits, share)) is not None:
                return scatter(*short, logits.shape[-1])
            keep, _ = _nucleus(logits, _total(logits) * share, with_ties)
            return keep_where(logits, keep)

        return SamplerStage(
            "top_p", no_state, apply, keep_state, by_value=True, shortlist=shortlist
        )

    return make


def _total(logits: mx.array) -> mx.array:
    """Return the mass of a row ``[B, 1]``, in units of its most likely token's."""
    return total_mass(mx.exp(logits - mx.max(logits, axis=-1, keepdims=True)))


def _nucleus(logits: mx.array, wanted: mx.array, with_ties: bool) -> tuple[mx.array, mx.array]:
    """Return bool ``[B, N]``: those ranked above hold less than wanted; and the mass of all N.

    Masses are ``[B, 1]``, in units of the most likely token's.
    """
    ordered = -mx.sort(-logits, axis=-1)
    weights = mx.exp(ordered - ordered[:, :1])
    above = mass_above(weights)
    num_kept = mx.maximum(mx.sum(above < wanted, axis=-1, keepdims=True), 1)
    keep = (keep_ties if with_ties else keep_ranks)(logits, ordered, num_kept)
    return keep, above[:, -1:] + weights[:, -1:]
