"""Causal self-attention of the text decoder, through a KV cache.

Reference: Vaswani et al. (2017), arXiv:1706.03762; Ainslie et al. (2023), arXiv:2305.13245
(grouped queries).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.forms import Forms
from vlmkit.contracts.interface import CacheKind, KVSpec, LayerKind, Pytree
from vlmkit.models.delta_net import Padding
from vlmkit.models.rope import Rotation, rotate
from vlmkit.models.text_config import TextConfig
from vlmkit.ranks.group import Ranks


class Step(NamedTuple):
    """What all layers share in one forward pass."""

    shape: tuple[int, int]  # B, L
    angles: Rotation
    local_angles: Rotation  # of layers with a sliding window
    later: mx.array | None  # bool [B, 1, L, L]: tokens behind a query that it sees all the same
    plans: Mapping[int, Pytree]  # by the identity of the kind of cache
    padding: Padding | None


class Attention(nn.Module):
    """Causal self-attention through a KV cache; of several ranks each has some of the heads."""

    def __init__(
        self, config: TextConfig, forms: Forms, ranks: Ranks, window: int | None = None
    ) -> None:
        super().__init__()
        self.window, self.attention = window, forms.attention
        self.total = ranks.sum
        hidden, dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.num_heads, self.head_dim = config.num_attention_heads, dim
        self.num_kv_heads = config.num_key_value_heads
        self.scale = config.attention_scale or dim**-0.5
        self.qk_norm, self.output_gate = config.qk_norm, config.output_gate
        queries = self.num_heads * dim * (2 if config.output_gate else 1)
        self.q_proj = nn.Linear(hidden, queries, bias=bias)
        self.k_proj = nn.Linear(hidden, self.num_kv_heads * dim, bias=bias)
        self.v_proj = nn.Linear(hidden, self.num_kv_heads * dim, bias=bias)
        self.o_proj = nn.Linear(self.num_heads * dim, hidden, bias=config.output_bias)
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(dim, eps=config.rms_norm_eps)
            self.k_norm = nn.RMSNorm(dim, eps=config.rms_norm_eps)

    @property
    def spec(self) -> KVSpec:
        """What the layer stores per token."""
        return KVSpec(
            self.num_kv_heads, self.head_dim, self.head_dim, self.window, num_heads=self.num_heads
        )

    def __call__(
        self, x: mx.array, step: Step, kind: LayerKind, state: Pytree
    ) -> tuple[mx.array, Pytree]:
        """Return the attention output ``[B * L, hidden]`` and the new cache state."""
        assert isinstance(kind, CacheKind)
        (batch, length), dim, plan = step.shape, self.head_dim, step.plans[id(kind)]
        queries, keys = self.q_proj(x), self.k_proj(x)
        if self.output_gate:
            queries, gate = mx.split(queries.reshape(-1, self.num_heads, 2 * dim), 2, axis=-1)
            queries = queries.reshape(x.shape[0], -1)
        if self.qk_norm:
            queries, keys = _per_head(self.q_norm, queries), _per_head(self.k_norm, keys)
        # Queries and keys turn together: half the operations, which is what a short step costs.
        both = mx.concatenate([queries, keys], axis=-1)
        angles = step.angles if self.window is None else step.local_angles
        both = rotate(both.reshape(batch, length, -1, dim).transpose(0, 2, 1, 3), angles)
        values = self.v_proj(x).reshape(batch, length, -1, dim).transpose(0, 2, 1, 3)
        queries, keys = both[:, : self.num_heads], both[:, self.num_heads :]
        state = kind.append(state, keys, values, plan)
        if step.later is None:
            out = kind.attend(state, queries, plan, self.scale)
        else:
            found, values_found, mask = kind.fetch(state, plan, queries.dtype)
            if mask is None:
                mask = mx.ones((1, 1, length, found.shape[2]), mx.bool_)
            # What lies behind a query comes from this pass itself, whatever the cache's layout.
            mask = mx.broadcast_to(mask, (batch, 1, length, mask.shape[-1]))
            out = self.attention(
                queries,
                mx.concatenate([found, keys], axis=2),
                mx.concatenate([values_found, values], axis=2),
                mx.concatenate([mask, step.later], axis=-1),
                self.scale,
            )
        if kind.finishing is not None and kind.finishing.observe is not None:
            state = kind.finishing.observe(state, queries, plan, self.scale)
        out = out.transpose(0, 2, 1, 3).reshape(x.shape[0], -1)
        if self.output_gate:
            out = out * mx.sigmoid(gate).reshape(out.shape)
        return self.total(self.o_proj(out)), state


def _per_head(norm: nn.RMSNorm, x: mx.array) -> mx.array:
    normed: mx.array = norm(x.reshape(x.shape[0], -1, norm.weight.shape[0]))
    return normed.reshape(x.shape)


def later_in_block(blocks: mx.array | None) -> mx.array | None:
    """Return which tokens behind a query are in its block: bool ``[B, 1, L, L]``.

    Args:
        blocks: int32 ``[B, L]``; below 0: in none. None: there are none.

    Example:
        >>> later_in_block(mx.array([[-1, 0, 0, -1]])).sum().item()
        1
    """
    if blocks is None or blocks.shape[1] == 1:
        return None
    places = mx.arange(blocks.shape[1])
    same = (blocks[:, :, None] == blocks[:, None, :]) & (blocks >= 0)[:, :, None]
    return (same & (places[None, :] > places[:, None]))[:, None]
