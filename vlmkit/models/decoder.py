"""The text decoder: grouped-query attention with M-RoPE and a gated MLP, before RMSNorm each.

Reference: Vaswani et al. (2017), arXiv:1706.03762; Ainslie et al. (2023), arXiv:2305.13245
(grouped queries); Shazeer (2020), arXiv:2002.05202 (SwiGLU).
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from vlmkit.inputs import Piece
from vlmkit.interface import Cache, CacheKind, Forwarded, Pytree, Span
from vlmkit.models.activations import silu
from vlmkit.models.config import TextConfig
from vlmkit.models.rope import Rotation, mrope_rotation, rotate


class Attention(nn.Module):
    """Causal self-attention through a KV cache."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        hidden, dim, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.num_heads = config.num_attention_heads
        self.scale = dim**-0.5
        self.q_proj = nn.Linear(hidden, self.num_heads * dim, bias=bias)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=bias)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=bias)
        self.o_proj = nn.Linear(self.num_heads * dim, hidden, bias=False)

    def __call__(
        self, x: mx.array, angles: Rotation, kind: CacheKind, state: Pytree, plan: Pytree
    ) -> tuple[mx.array, Pytree]:
        """Return the attention output ``[B * L, hidden]`` and the new cache state."""
        batch, _, length, dim = angles.cos.shape
        # Queries and keys turn together: half the operations, which is what a short step costs.
        both = mx.concatenate([self.q_proj(x), self.k_proj(x)], axis=-1)
        both = rotate(both.reshape(batch, length, -1, dim).transpose(0, 2, 1, 3), angles)
        values = self.v_proj(x).reshape(batch, length, -1, dim).transpose(0, 2, 1, 3)
        state = kind.append(state, both[:, self.num_heads :], values, plan)
        out = kind.attend(state, both[:, : self.num_heads], plan, self.scale)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(x.shape[0], -1)), state


class GatedMLP(nn.Module):
    """``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[..., hidden]`` to ``[..., hidden]``."""
        out: mx.array = self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = GatedMLP(config)

    def __call__(
        self, x: mx.array, angles: Rotation, kind: CacheKind, state: Pytree, plan: Pytree
    ) -> tuple[mx.array, Pytree]:
        """Map ``[B * L, hidden]`` to the same; return the new cache state with it."""
        out, state = self.self_attn(self.input_layernorm(x), angles, kind, state, plan)
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), state


class Decoder(nn.Module):
    """Embedding, layers, final norm and head."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def __call__(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        """Run all layers; see ``forward`` of :class:`vlmkit.interface.Model`."""
        config, hidden = self.config, piece.hidden
        angles = mrope_rotation(
            piece.positions,
            head_dim=config.head_dim,
            theta=config.rope_theta,
            sections=config.mrope_section,
            dtype=hidden.dtype,
        )
        plans = plan_kinds(cache, span)
        shape, states, tapped = hidden.shape, [], []
        # Matrix products would flatten and unflatten each operand by themselves.
        hidden = hidden.reshape(-1, config.hidden_size)
        for index, (layer, kind, state) in enumerate(
            zip(self.layers, cache.kinds, cache.layers, strict=True)
        ):
            assert isinstance(kind, CacheKind)  # every layer is an attention layer
            if index in taps:
                tapped.append(hidden.reshape(shape))
            hidden, state = layer(hidden, angles, kind, state, plans[id(kind)])
            if index < len(piece.features):
                hidden = hidden + piece.features[index].reshape(hidden.shape)
            states.append(state)
        following = Cache(cache.kinds, tuple(states), span.ends)
        return Forwarded(self.norm(hidden).reshape(shape), tuple(tapped), following)

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
        if self.config.tie_word_embeddings:
            tied: mx.array = self.embed_tokens.as_linear(hidden)
            return tied
        separate: mx.array = self.lm_head(hidden)
        return separate


def plan_kinds(cache: Cache, span: Span) -> dict[int, Pytree]:
    """Plan a forward pass once per kind of cache, by the identity of the kind."""
    plans: dict[int, Pytree] = {}
    for kind, state in zip(cache.kinds, cache.layers, strict=True):
        if isinstance(kind, CacheKind) and id(kind) not in plans:
            plans[id(kind)] = kind.plan(state, span)
    return plans
