"""The vision encoder: patches to visual tokens of the decoder's width.

A patch embedding, learned positions in some families, transformer blocks with 2-D rotary positions
whose attention stays within a frame (or within windows of it), and a merger that joins
``merge_size**2`` neighbours to a token.

Reference: Wang et al. (2024), arXiv:2409.12191; Bai et al. (2025), arXiv:2502.13923.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.forms import Forms
from vlmkit.contracts.inputs import ImageGrid
from vlmkit.models.config import VisionConfig
from vlmkit.models.rope import Rotation, inverse_frequencies, rotate, rotation
from vlmkit.models.vision_layout import Segments, resample_grid, vision_layout


def _norm(config: VisionConfig, width: int) -> nn.LayerNorm | nn.RMSNorm:
    kind = nn.LayerNorm if config.norm == "layer_norm" else nn.RMSNorm
    return kind(width, eps=config.norm_eps)


class VisionAttention(nn.Module):
    """Self-attention within segments of the sequence."""

    def __init__(self, config: VisionConfig, forms: Forms) -> None:
        super().__init__()
        self.attention = forms.attention
        self.num_heads = config.num_heads
        self.scale = (config.embed_dim // config.num_heads) ** -0.5
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=True)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim, bias=True)

    def __call__(self, x: mx.array, angles: Rotation | None, segments: Segments) -> mx.array:
        """Map ``[N, embed]`` to ``[N, embed]``."""
        count, width = x.shape
        qkv = self.qkv(x).reshape(count, 3, self.num_heads, -1)
        qk = qkv[:, :2] if angles is None else rotate(qkv[:, :2], angles)
        outs, start = [], 0
        for number, length in segments:
            stop, split = start + number * length, (number, length, self.num_heads, -1)
            q, k, v = (
                part[start:stop].reshape(split).transpose(0, 2, 1, 3)
                for part in (qk[:, 0], qk[:, 1], qkv[:, 2])
            )
            out = self.attention(q, k, v, None, self.scale)
            outs.append(out.transpose(0, 2, 1, 3).reshape(number * length, width))
            start = stop
        joined = outs[0] if len(outs) == 1 else mx.concatenate(outs, axis=0)
        projected: mx.array = self.proj(joined)
        return projected


class VisionMLP(nn.Module):
    """``fc2(act(fc1(x)))``, or gated: ``down(act(gate(x)) * up(x))``; all with a bias."""

    def __init__(self, config: VisionConfig, forms: Forms) -> None:
        super().__init__()
        width, inner = config.embed_dim, config.intermediate_size
        self.act = forms.activations[config.hidden_act]
        self.gated = config.gated_mlp
        if config.gated_mlp:
            self.gate_proj = nn.Linear(width, inner, bias=True)
            self.up_proj = nn.Linear(width, inner, bias=True)
            self.down_proj = nn.Linear(inner, width, bias=True)
        else:
            self.fc1 = nn.Linear(width, inner, bias=True)
            self.fc2 = nn.Linear(inner, width, bias=True)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[N, embed]`` to ``[N, embed]``."""
        out: mx.array
        if self.gated:
            out = self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))
        else:
            out = self.fc2(self.act(self.fc1(x)))
        return out


class VisionBlock(nn.Module):
    """One block."""

    def __init__(self, config: VisionConfig, forms: Forms) -> None:
        super().__init__()
        self.norm1 = _norm(config, config.embed_dim)
        self.attn = VisionAttention(config, forms)
        self.norm2 = _norm(config, config.embed_dim)
        self.mlp = VisionMLP(config, forms)

    def __call__(self, x: mx.array, angles: Rotation | None, segments: Segments) -> mx.array:
        """Map ``[N, embed]`` to ``[N, embed]``."""
        x = x + self.attn(self.norm1(x), angles, segments)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    """Joins ``merge_size**2`` patches to one token of the decoder's width.

    Args:
        config: of the encoder.
        forms: how parts of it are computed.
        normed: what the norm before it is over, each "patch" or each "token".
    """

    def __init__(self, config: VisionConfig, forms: Forms, normed: str = "patch") -> None:
        super().__init__()
        self.act = forms.gelu
        self.width = config.embed_dim * config.spatial_merge_size**2
        self.norm_width = config.embed_dim if normed == "patch" else self.width
        self.ln_q = _norm(config, self.norm_width)
        self.fc1 = nn.Linear(self.width, self.width, bias=True)
        self.fc2 = nn.Linear(self.width, config.out_hidden_size, bias=True)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[N, embed]`` to ``[N / merge_size**2, hidden]``."""
        normed = self.ln_q(x.reshape(-1, self.norm_width)).reshape(-1, self.width)
        out: mx.array = self.fc2(self.act(self.fc1(normed)))
        return out


class PoolMerger(nn.Module):
    """The mean of ``merge_size**2`` patches, normed and projected to the decoder's width."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.unit = config.spatial_merge_size**2
        self.norm = nn.RMSNorm(config.embed_dim, eps=config.norm_eps)
        self.proj = nn.Linear(config.embed_dim, config.out_hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[N, embed]`` to ``[N / merge_size**2, hidden]``."""
        pooled = x.reshape(-1, self.unit, x.shape[-1]).mean(axis=1)
        out: mx.array = self.proj(self.norm(pooled))
        return out


class VisionEncoder(nn.Module):
    """Patches of any number of images to visual tokens."""

    def __init__(self, config: VisionConfig, forms: Forms) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = nn.Linear(config.patch_dim, config.embed_dim, bias=config.patch_bias)
        if config.num_position_embeddings is not None:
            self.pos_embed = nn.Embedding(config.num_position_embeddings, config.embed_dim)
        self.blocks = [VisionBlock(config, forms) for _ in range(config.depth)]
        if config.final_norm:
            self.post_norm = _norm(config, config.embed_dim)
        self.merger = Merger(config, forms) if config.merger == "mlp" else PoolMerger(config)
        if config.deepstack_blocks:
            self.deepstack = [Merger(config, forms, "token") for _ in config.deepstack_blocks]

    def __call__(self, patches: mx.array, grids: Sequence[ImageGrid]) -> tuple[mx.array, ...]:
        """Encode images.

        Args:
            patches: ``[N, channels * time * size * size]``, image after image, each ordered
                frame by frame and merge block by merge block.
            grids: one per image.

        Returns:
            ``[N / merge_size**2, hidden]`` each, in the order of the patches: visual tokens, then
            what is added to them after each of the first decoder layers.
        """
        config = self.config
        layout = vision_layout(
            grids, merge_size=config.spatial_merge_size, window_tokens=_window_tokens(config)
        )
        x = self.patch_embed(patches)
        if layout.token_order is not None:
            unit = config.spatial_merge_size**2
            blocks = x.reshape(-1, unit, config.embed_dim)
            x = blocks[mx.array(layout.token_order)].reshape(-1, config.embed_dim)
        if config.num_position_embeddings is not None:
            side = math.isqrt(config.num_position_embeddings)
            corners = resample_grid(layout.coordinates, grids, side)
            near = self.pos_embed(mx.array(corners.places)) * mx.array(corners.weights)[..., None]
            x = x + near.sum(axis=1).astype(x.dtype)
        angles = None
        if config.rope_theta is not None:
            frequencies = inverse_frequencies(
                config.embed_dim // config.num_heads // 2, config.rope_theta
            )
            turns = mx.array(layout.coordinates)[:, :, None].astype(mx.float32) * frequencies
            angles = rotation(turns.reshape(x.shape[0], 1, 1, -1), dtype=x.dtype)
        outputs: list[mx.array] = []
        for index, block in enumerate(self.blocks):
            full = config.window_size is None or index in config.full_attention_blocks
            x = block(x, angles, layout.frames if full else layout.windows)
            if index in config.deepstack_blocks:
                outputs.append(self.deepstack[len(outputs)](x))
        outputs.insert(0, self.merger(self.post_norm(x) if config.final_norm else x))
        if layout.token_order is not None:
            places = mx.array(layout.token_order.argsort())
            outputs = [tokens[places] for tokens in outputs]
        return tuple(outputs)


def _window_tokens(config: VisionConfig) -> int | None:
    if config.window_size is None:
        return None
    return config.window_size // config.spatial_merge_size // config.patch_size
