"""Top-p (nucleus): keep the most likely tokens that together hold a share of the mass."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field

from vlmkit.configbase import Float, StageConfig
from vlmkit.sampling._numerics import keep_where, largest, mass_above, poison, scatter
from vlmkit.sampling._stateless import keep_state, no_state
from vlmkit.types import Pytree, SamplerStage

_NUM_CANDIDATES = 1024  # sorted first; they nearly always hold the mass
_SHORT = 8  # below 8 × 1024 tokens sorting all of them is as cheap


class TopP(StageConfig):
    """Keep the smallest set of most likely tokens that holds a share p of the mass."""

    kind: Literal["top_p"] = "top_p"
    p: Float = Field(gt=0.0, le=1.0, description="share of the probability mass; 1 is off")


def top_p(config: TopP) -> SamplerStage:
    """Keep token i while the mass ranked above it is below P.

    The rank is by logit, the lower id first on ties; the masses are those of the normalised
    distribution in float32. The first token is always kept. Applied twice it may drop more: the
    masses are normalised again over what is left.

    With a large vocabulary on the CPU the 1024 most likely tokens are selected and sorted; only
    if their mass is below P (known after a synchronisation) are all tokens sorted. The result is
    the same.

    Example:
        >>> stage = top_p(TopP(p=0.6))
        >>> stage.apply((), mx.log(mx.array([[0.5, 0.2, 0.3]])), None)[0, 1].item()
        -inf

    Reference:
        Holtzman et al., "The curious case of neural text degeneration", ICLR 2020,
        arXiv:1904.09751.
    """

    def shortlist(state: Pytree, logits: mx.array) -> tuple[mx.array, mx.array] | None:
        on_gpu = mx.default_device().type == mx.DeviceType.gpu
        if config.p == 1.0 or logits.shape[-1] < _SHORT * _NUM_CANDIDATES or on_gpu:
            return None  # a GPU sorts a vocabulary faster than it waits for the host
        ids = largest(logits, _NUM_CANDIDATES)
        chosen = mx.take_along_axis(logits, ids, axis=-1)
        keep, mass = _nucleus(chosen, _log_mass(logits), config.p)
        if not mx.all(mass >= config.p).item():
            return None
        return ids, keep_where(chosen, keep) + poison(logits)

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        if config.p == 1.0:
            return logits
        if (short := shortlist(state, logits)) is not None:
            return scatter(*short, logits.shape[-1])
        keep, _ = _nucleus(logits, _log_mass(logits), config.p)
        return keep_where(logits, keep)

    return SamplerStage("top_p", no_state, apply, keep_state, by_value=True, shortlist=shortlist)


def _log_mass(logits: mx.array) -> mx.array:
    return mx.logsumexp(logits, axis=-1, keepdims=True)


def _nucleus(logits: mx.array, log_mass: mx.array, p: float) -> tuple[mx.array, mx.array]:
    """Return bool ``[B, N]``: rank above holds less than p; and ``[B]``: the mass of all N."""
    order = mx.argsort(-logits, axis=-1)  # equal logits stay in order of their ids
    probs = mx.exp(mx.take_along_axis(logits, order, axis=-1) - log_mass)
    above = mass_above(probs)
    keep = mx.put_along_axis(mx.zeros(order.shape, mx.bool_), order, above < p, axis=-1)
    return keep, above[:, -1] + probs[:, -1]
