"""DoLa: the last layer against the early layer that differs most from it."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
from pydantic import Field, field_validator

from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import LOWEST, keep_plausible, logprobs
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.numeric.probabilities import total_mass

_TINY = 1e-37  # below it a float32 probability counts as 0, and adds nothing to a divergence


class DolaConfig(StageConfig):
    """Prefer what the last layer finds more likely than an early layer does."""

    kind: Literal["dola"] = "dola"
    layers: Literal["low", "high"] | tuple[Int, ...] = Field(
        default="high",
        description="early layers to choose from: low or high, every second one of that half (of"
        " the outer 20 layers in models of more than 40), or a list; layer i is what enters the"
        " i-th block, 0 the embeddings",
    )
    relative_top: Float = Field(
        default=0.1, ge=0.0, le=1.0, description="keep tokens with p ≥ relative_top · max p"
    )
    divergence: Literal["jensen_shannon", "from_mean"] = Field(
        default="jensen_shannon",
        description="how layers are compared: as in the paper, or by the mean distribution's"
        " divergence from both, which the authors' code and transformers compute",
    )

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(layers, str):
            return layers
        if not layers or min(layers) < 0 or len(set(layers)) < len(layers):
            raise ValueError(f"needs low, high, or distinct layers from 0 up, not {layers}")
        return layers


def dola(config: DolaConfig, *, num_layers: int, tied_embeddings: bool) -> Contrast:
    """Return ``ln p − ln q`` where ``p ≥ r · max p``, else −inf.

    p is the last layer's distribution and q that of the early layer which diverges most from it,
    chosen anew for each row at each step.

    Args:
        num_layers: blocks of the language model.
        tied_embeddings: the output head is the embedding table, so layer 0 would only repeat the
            last token.

    Raises:
        VlmkitError: a layer that the model doesn't have.

    Example:
        >>> dola(DolaConfig(layers="low"), num_layers=28, tied_embeddings=True).early_layers
        (2, 4, 6, 8, 10, 12)

    Reference:
        Chuang et al., "DoLa: decoding by contrasting layers improves factuality in large language
        models", ICLR 2024, arXiv:2309.03883; candidate layers as in
        ``_dola_decoding`` of transformers 4.49. What enters a layer is put through the head
        without the final norm, as both do.
    """
    layers = candidate_layers(config, num_layers=num_layers, tied_embeddings=tied_embeddings)
    compare = jensen_shannon if config.divergence == "jensen_shannon" else divergence_from_mean

    def combine(logits: mx.array, others: mx.array, num_tokens: mx.array) -> mx.array:
        final, early = logprobs(logits), logprobs(others)
        if len(layers) > 1:
            chosen = mx.argmax(compare(final, early), axis=-1)
            early = mx.take_along_axis(early, chosen[:, None, None], axis=1)
        return keep_plausible(final - early[:, 0], logits, config.relative_top)

    return Contrast("dola", combine, layers)


def candidate_layers(
    config: DolaConfig, *, num_layers: int, tied_embeddings: bool
) -> tuple[int, ...]:
    """Return the early layers to choose from.

    The rule of transformers: ``range(s, N // 2, 2)`` or ``range(N // 2, N, 2)``, within the outer
    20 layers where N > 40; s is 0, or the first layer worth reading with tied embeddings.

    Raises:
        VlmkitError: a layer that the model doesn't have.
    """
    if not isinstance(config.layers, str):
        beyond = [layer for layer in config.layers if layer >= num_layers]
        if beyond:
            raise VlmkitError(
                f"dola: layers has {beyond[0]}, but the model's layers are 0 to {num_layers - 1}",
                path=("layers",),
            )
        return config.layers
    reach = num_layers // 2 if num_layers <= 40 else 20
    if config.layers == "high":
        first = num_layers // 2 if num_layers <= 40 else num_layers - 20
        return tuple(range(first, num_layers, 2))
    start = 0
    if tied_embeddings and num_layers > 1:
        start = 2 if num_layers > 2 else 1
    return tuple(range(start, reach, 2)) or (start,)


def jensen_shannon(final: mx.array, early: mx.array) -> mx.array:
    """Return ``½ KL(p‖m) + ½ KL(q‖m)`` in nats, ``[B, N]``, with ``m = ½(p + q)``.

    Args:
        final: ln p, float32 ``[B, V]``.
        early: ln q, float32 ``[B, N, V]``.

    Example:
        >>> p, q = mx.log(mx.array([[0.5, 0.5]])), mx.log(mx.array([[[0.5, 0.5], [1.0, 1e-9]]]))
        >>> jensen_shannon(p, q).round(3).tolist()
        [[0.0, 0.2160000056028366]]
    """
    p, q = mx.exp(final)[:, None], mx.exp(early)
    log_mean = _log_mean(p, q)
    terms = p * (final[:, None] - log_mean) + q * (early - log_mean)
    return 0.5 * _sum(terms)


def divergence_from_mean(final: mx.array, early: mx.array) -> mx.array:
    """Return ``½ KL(m‖p) + ½ KL(m‖q)`` in nats, ``[B, N]``, with ``m = ½(p + q)``.

    What ``F.kl_div(ln p, m)`` is in PyTorch: its first argument is the one approximated.

    Example:
        >>> p, q = mx.log(mx.array([[0.5, 0.5]])), mx.log(mx.array([[[0.5, 0.5], [0.9, 0.1]]]))
        >>> divergence_from_mean(p, q).round(3).tolist()
        [[0.0, 0.11800000816583633]]
    """
    mean = 0.5 * (mx.exp(final)[:, None] + mx.exp(early))
    log_mean = _log_mean(mx.exp(final)[:, None], mx.exp(early))
    return _sum(mean * (log_mean - 0.5 * (final[:, None] + early)))


def _log_mean(p: mx.array, q: mx.array) -> mx.array:
    mean = 0.5 * (p + q)
    return mx.where(mean > _TINY, mx.log(mx.maximum(mean, _TINY)), LOWEST)


def _sum(terms: mx.array) -> mx.array:
    rows, layers, size = terms.shape
    return total_mass(terms.reshape(rows * layers, size)).reshape(rows, layers)
