"""The text decoder: layers of attention or of a gated delta net, each with a gated MLP.

Attention has grouped queries and M-RoPE; what else it has, and which layers are linear, is data:
see :class:`vlmkit.models.text_config.TextConfig`. An RMSNorm is before each part.

Reference: Vaswani et al. (2017), arXiv:1706.03762; Ainslie et al. (2023), arXiv:2305.13245
(grouped queries); Shazeer (2020), arXiv:2002.05202 (SwiGLU).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.forms import Forms
from vlmkit.contracts.inputs import Piece
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    Forwarded,
    KVSpec,
    LayerKind,
    LayerSpec,
    Pytree,
    Span,
)
from vlmkit.models.delta_net import GatedDeltaNet, Padding, find_padding
from vlmkit.models.rope import Rotation, mrope_rotation, rotate
from vlmkit.models.shares import own_config, rows_of_vocabulary
from vlmkit.models.text_config import LINEAR, TextConfig
from vlmkit.ranks.group import ALONE, Ranks


class Step(NamedTuple):
    """What all layers share in one forward pass."""

    shape: tuple[int, int]  # B, L
    angles: Rotation
    plans: Mapping[int, Pytree]  # by the identity of the kind of cache
    padding: Padding | None


class Attention(nn.Module):
    """Causal self-attention through a KV cache; of several ranks each has some of the heads."""

    def __init__(self, config: TextConfig, ranks: Ranks) -> None:
        super().__init__()
        self.total = ranks.sum
        hidden, dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.num_heads, self.head_dim = config.num_attention_heads, dim
        self.num_kv_heads = config.num_key_value_heads
        self.scale = dim**-0.5
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
        return KVSpec(self.num_kv_heads, self.head_dim, self.head_dim, num_heads=self.num_heads)

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
        both = rotate(both.reshape(batch, length, -1, dim).transpose(0, 2, 1, 3), step.angles)
        values = self.v_proj(x).reshape(batch, length, -1, dim).transpose(0, 2, 1, 3)
        queries, keys = both[:, : self.num_heads], both[:, self.num_heads :]
        state = kind.append(state, keys, values, plan)
        out = kind.attend(state, queries, plan, self.scale)
        if kind.finishing is not None and kind.finishing.observe is not None:
            state = kind.finishing.observe(state, queries, plan, self.scale)
        out = out.transpose(0, 2, 1, 3).reshape(x.shape[0], -1)
        if self.output_gate:
            out = out * mx.sigmoid(gate).reshape(out.shape)
        return self.total(self.o_proj(out)), state


def _per_head(norm: nn.RMSNorm, x: mx.array) -> mx.array:
    normed: mx.array = norm(x.reshape(x.shape[0], -1, norm.weight.shape[0]))
    return normed.reshape(x.shape)


class GatedMLP(nn.Module):
    """``down(silu(gate(x)) * up(x))``; of several ranks each has some of the inner columns."""

    def __init__(self, config: TextConfig, forms: Forms, ranks: Ranks) -> None:
        super().__init__()
        self.swiglu, self.total = forms.swiglu, ranks.sum
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[..., hidden]`` to ``[..., hidden]``."""
        own = self.down_proj(self.swiglu(self.gate_proj(x), self.up_proj(x)))
        out: mx.array = self.total(own)
        return out


class Layer(nn.Module):
    """One decoder layer: attention or a gated delta net, then the MLP."""

    def __init__(self, config: TextConfig, layer_type: str, forms: Forms, ranks: Ranks) -> None:
        super().__init__()
        self.is_linear = layer_type == LINEAR
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if self.is_linear:
            self.linear_attn = GatedDeltaNet(config, forms)
        else:
            self.self_attn = Attention(config, ranks)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = GatedMLP(config, forms, ranks)

    @property
    def spec(self) -> LayerSpec:
        """What the layer stores."""
        return self.linear_attn.spec if self.is_linear else self.self_attn.spec

    def __call__(
        self, x: mx.array, step: Step, kind: LayerKind, state: Pytree
    ) -> tuple[mx.array, Pytree]:
        """Map ``[B * L, hidden]`` to the same; return the new state with it."""
        normed = self.input_layernorm(x)
        if self.is_linear:
            out, state = self.linear_attn(normed, step.shape, state, step.padding)
        else:
            out, state = self.self_attn(normed, step, kind, state)
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), state


class Decoder(nn.Module):
    """Embedding, layers, final norm and head.

    Args:
        config: of the whole decoder.
        forms: how parts of it are computed.
        ranks: among which its heads, inner columns and vocabulary are divided. Delta nets and
            norms are whole on each.

    Raises:
        VlmkitError: it does not divide among so many.
    """

    def __init__(self, config: TextConfig, forms: Forms, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.config, self.ranks = config, ranks
        own, rows = own_config(config, ranks), rows_of_vocabulary(config.vocab_size, ranks)
        self.embed_tokens = nn.Embedding(len(rows), config.hidden_size)
        self.layers = [Layer(own, layer_type, forms, ranks) for layer_type in config.layer_types]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, len(rows), bias=False)

    @property
    def layer_specs(self) -> tuple[LayerSpec, ...]:
        """What each layer stores."""
        return tuple(layer.spec for layer in self.layers)

    def __call__(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        """Run all layers; see ``forward`` of :class:`vlmkit.contracts.interface.Model`."""
        config, hidden = self.config, piece.hidden
        angles = mrope_rotation(
            piece.positions,
            dim=config.rotary_dim,
            theta=config.rope_theta,
            sections=config.mrope_section,
            interleaved=config.mrope_interleaved,
            dtype=hidden.dtype,
        )
        shape, states, tapped = hidden.shape, [], []
        batch, length, _ = shape
        padding = find_padding(span) if config.delta_net is not None else None
        step = Step((batch, length), angles, plan_kinds(cache, span), padding)
        # Matrix products would flatten and unflatten each operand by themselves.
        hidden = hidden.reshape(-1, config.hidden_size)
        for index, (layer, kind, state) in enumerate(
            zip(self.layers, cache.kinds, cache.layers, strict=True)
        ):
            if index in taps:
                tapped.append(hidden.reshape(shape))
            hidden, state = layer(hidden, step, kind, state)
            if index < len(piece.features):
                hidden = hidden + piece.features[index].reshape(hidden.shape)
            states.append(state)
        following = Cache(cache.kinds, tuple(states), span.ends)
        return Forwarded(self.norm(hidden).reshape(shape), tuple(tapped), following)

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
        tied = self.config.tie_word_embeddings
        own: mx.array = self.embed_tokens.as_linear(hidden) if tied else self.lm_head(hidden)
        if self.ranks.size == 1:
            return own
        return self.ranks.gather(own)[..., : self.config.vocab_size]

    def embed(self, token_ids: mx.array) -> mx.array:
        """Embed int32 ``[B, L]`` token ids to ``[B, L, hidden]``."""
        ranks = self.ranks
        if ranks.size == 1:
            whole: mx.array = self.embed_tokens(token_ids)
            return whole
        rows = rows_of_vocabulary(self.config.vocab_size, ranks)
        places = token_ids - rows.start
        is_own = (places >= 0) & (places < len(rows))
        found = self.embed_tokens(mx.where(is_own, places, 0))
        return ranks.sum(mx.where(is_own[..., None], found, mx.zeros_like(found)))


def plan_kinds(cache: Cache, span: Span) -> dict[int, Pytree]:
    """Plan a forward pass once per kind of cache, by the identity of the kind."""
    plans: dict[int, Pytree] = {}
    for kind, state in zip(cache.kinds, cache.layers, strict=True):
        if isinstance(kind, CacheKind) and id(kind) not in plans:
            plans[id(kind)] = kind.plan(state, span)
    return plans
