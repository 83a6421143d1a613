"""The text decoder: layers of attention or of a gated delta net, each with an MLP or experts.

What a layer is, and what its parts have, is data: see
:class:`vlmkit.models.text_config.TextConfig`. An RMSNorm is before each part.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.forms import Forms
from vlmkit.contracts.inputs import Piece
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    Forwarded,
    LayerKind,
    LayerSpec,
    Pytree,
    Span,
)
from vlmkit.models.attention import Attention, Step, later_in_block
from vlmkit.models.delta_net import GatedDeltaNet, find_padding
from vlmkit.models.mlp import Experts, GatedMLP
from vlmkit.models.rope import Rotation, mrope_rotation
from vlmkit.models.shares import own_config, rows_of_vocabulary
from vlmkit.models.text_config import LINEAR, SLIDING, TextConfig
from vlmkit.ranks.group import ALONE, Ranks


class Layer(nn.Module):
    """One decoder layer: attention or a gated delta net, then an MLP or experts."""

    def __init__(self, config: TextConfig, index: int, forms: Forms, ranks: Ranks) -> None:
        super().__init__()
        self.is_linear = config.layer_types[index] == LINEAR
        window = config.window if config.layer_types[index] == SLIDING else None
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if self.is_linear:
            self.linear_attn = GatedDeltaNet(config, forms)
        else:
            self.self_attn = Attention(config, forms, ranks, window)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.output_norms = config.output_norms
        if config.output_norms:
            self.pre_feedforward_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
            self.post_feedforward_layernorm = nn.RMSNorm(
                config.hidden_size, eps=config.rms_norm_eps
            )
        self.mlp: GatedMLP | Experts
        if index in config.sparse_layers:
            self.mlp = Experts(config, forms, ranks)
        else:
            self.mlp = GatedMLP(
                config.hidden_size, config.intermediate_size, forms, ranks, config.hidden_act
            )

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
        if not self.output_norms:
            x = x + out
            return x + self.mlp(self.post_attention_layernorm(x)), state
        x = x + self.post_attention_layernorm(out)
        out = self.mlp(self.pre_feedforward_layernorm(x))
        return x + self.post_feedforward_layernorm(out), state


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
        self.layers = [Layer(own, i, forms, ranks) for i in range(config.num_hidden_layers)]
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
        angles = self._angles(piece, config.rope_theta, config.rope_factor)
        local = config.local_rope_theta
        local_angles = angles if local is None else self._angles(piece, local, 1.0)
        shape, states, tapped = hidden.shape, [], []
        batch, length, _ = shape
        padding = find_padding(span) if config.delta_net is not None else None
        step = Step(
            shape=(batch, length),
            angles=angles,
            local_angles=local_angles,
            later=later_in_block(piece.blocks),
            plans=plan_kinds(cache, span),
            padding=padding,
        )
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

    def _angles(self, piece: Piece, theta: float, factor: float) -> Rotation:
        config = self.config
        return mrope_rotation(
            piece.positions,
            dim=config.rotary_dim,
            theta=theta,
            factor=factor,
            sections=config.mrope_section,
            interleaved=config.mrope_interleaved,
            dtype=piece.hidden.dtype,
        )

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
            return self._scaled(whole)
        rows = rows_of_vocabulary(self.config.vocab_size, ranks)
        places = token_ids - rows.start
        is_own = (places >= 0) & (places < len(rows))
        found = self.embed_tokens(mx.where(is_own, places, 0))
        return self._scaled(ranks.sum(mx.where(is_own[..., None], found, mx.zeros_like(found))))

    def _scaled(self, embedded: mx.array) -> mx.array:
        scale = self.config.embed_scale
        return embedded if scale == 1 else embedded * mx.array(scale, embedded.dtype)


def plan_kinds(cache: Cache, span: Span) -> dict[int, Pytree]:
    """Plan a forward pass once per kind of cache, by the identity of the kind."""
    plans: dict[int, Pytree] = {}
    for kind, state in zip(cache.kinds, cache.layers, strict=True):
        if isinstance(kind, CacheKind) and id(kind) not in plans:
            plans[id(kind)] = kind.plan(state, span)
    return plans
