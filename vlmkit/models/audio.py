"""The audio encoder: log-mel frames to tokens of the decoder's width.

Two convolutions, the second of stride 2, learned positions, transformer blocks whose attention
stays within a window of sound, an average over pairs, and a projection.

Reference: Radford et al. (2022), "Robust Speech Recognition via Large-Scale Weak Supervision",
arXiv:2212.04356; Chu et al. (2024), "Qwen2-Audio Technical Report", arXiv:2407.10759 (the average).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.forms import Forms

KERNEL = 3  # frames that a convolution sees


@dataclass(frozen=True)
class AudioConfig:
    """The audio encoder."""

    depth: int
    embed_dim: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int  # the decoder's hidden size
    hidden_act: str
    num_mel_bins: int
    max_positions: int  # of a window, behind the convolutions
    norm_eps: float = 1e-5

    @property
    def max_frames(self) -> int:
        """Frames of a window."""
        return 2 * self.max_positions


def num_positions(frames: int) -> int:
    """Return how many positions the convolutions make of so many frames.

    Example:
        >>> num_positions(3000), num_positions(5)
        (1500, 3)
    """
    return (frames - 1) // 2 + 1


def num_audio_tokens(frames: int) -> int:
    """Return how many tokens a window with so many frames of sound becomes.

    Example:
        >>> num_audio_tokens(3000), num_audio_tokens(2)
        (750, 0)
    """
    return num_positions(frames) // 2


def num_rows(frames: int, max_frames: int) -> int:
    """Return how many rows are read of a window: those of the sound, and what convolutions see.

    Example:
        >>> num_rows(10, 3000), num_rows(2999, 3000)
        (12, 3000)
    """
    return min(frames + 2, max_frames)


class AudioAttention(nn.Module):
    """Self-attention within a window; keys have no bias."""

    def __init__(self, config: AudioConfig, forms: Forms) -> None:
        super().__init__()
        self.attention, self.num_heads = forms.attention, config.num_heads
        width = config.embed_dim
        self.scale = (width // config.num_heads) ** -0.5
        self.q_proj = nn.Linear(width, width, bias=True)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=True)
        self.out_proj = nn.Linear(width, width, bias=True)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[B, N, embed]`` to ``[B, N, embed]``."""
        batch, count, width = x.shape
        heads = (batch, count, self.num_heads, -1)
        q, k, v = (
            part(x).reshape(heads).transpose(0, 2, 1, 3)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = self.attention(q, k, v, None, self.scale).transpose(0, 2, 1, 3)
        projected: mx.array = self.out_proj(out.reshape(batch, count, width))
        return projected


class AudioBlock(nn.Module):
    """One block: attention, then ``fc2(act(fc1(x)))``, a LayerNorm before each."""

    def __init__(self, config: AudioConfig, forms: Forms) -> None:
        super().__init__()
        width = config.embed_dim
        self.act = forms.activations[config.hidden_act]
        self.norm1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.attn = AudioAttention(config, forms)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.fc1 = nn.Linear(width, config.intermediate_size, bias=True)
        self.fc2 = nn.Linear(config.intermediate_size, width, bias=True)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[B, N, embed]`` to ``[B, N, embed]``."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class AudioEncoder(nn.Module):
    """Windows of any number of clips to tokens."""

    def __init__(self, config: AudioConfig, forms: Forms) -> None:
        super().__init__()
        self.config, self.act = config, forms.gelu
        width = config.embed_dim
        self.conv1 = nn.Linear(KERNEL * config.num_mel_bins, width, bias=True)
        self.conv2 = nn.Linear(KERNEL * width, width, bias=True)
        self.pos_embed = nn.Embedding(config.max_positions, width)
        self.blocks = [AudioBlock(config, forms) for _ in range(config.depth)]
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.projector = nn.Linear(width, config.out_hidden_size, bias=True)

    def __call__(self, rows: mx.array, frames: Sequence[int]) -> mx.array:
        """Encode windows; those of equal length run together.

        Args:
            rows: ``[sum of num_rows, mel bins]``, window after window.
            frames: those that have sound, per window.

        Returns:
            ``[sum of num_audio_tokens, hidden]``, in the order of the windows.
        """
        sizes = [num_rows(count, self.config.max_frames) for count in frames]
        ends = list(accumulate(sizes))
        windows = [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        found: dict[int, mx.array] = {}
        for count in dict.fromkeys(frames):
            alike = [place for place, other in enumerate(frames) if other == count]
            tokens = self._encode(mx.stack([windows[place] for place in alike]), count)
            found |= {place: tokens[row] for row, place in enumerate(alike)}
        return mx.concatenate([found[place] for place in range(len(frames))])

    def _encode(self, x: mx.array, frames: int) -> mx.array:
        """Map ``[B, rows, mel bins]`` to ``[B, tokens, hidden]``."""
        count, pairs = num_positions(frames), num_audio_tokens(frames)
        x = self.act(self.conv1(_neighbours(x, 1)))
        x = self.act(self.conv2(_neighbours(x, 2)))[:, :count]
        x = x + self.pos_embed.weight[:count].astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        x = x[:, : 2 * pairs].reshape(x.shape[0], pairs, 2, -1).mean(axis=2)
        tokens: mx.array = self.projector(self.norm(x))
        return tokens


def _neighbours(x: mx.array, stride: int) -> mx.array:
    """Put each frame's neighbours beside it, ``[B, N, C]`` to ``[B, ceil(N / stride), 3 * C]``."""
    padded = mx.pad(x, [(0, 0), (1, 1), (0, 0)])
    parts = [padded[:, start : start + x.shape[1] : stride] for start in range(KERNEL)]
    return mx.concatenate(parts, axis=-1)
