"""A layer of linear attention: a short causal convolution, then the gated delta rule.

Reference: Yang, Kautz and Hatamizadeh (2024), "Gated Delta Networks: Improving Mamba2 with Delta
Rule", arXiv:2412.06464, as Qwen3-Next and Qwen3.5 have it: the gate multiplies behind the norm.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.forms import Forms
from vlmkit.contracts.interface import Pytree, RecurrentSpec, Span, StateArray
from vlmkit.models.gated_delta import gated_delta
from vlmkit.models.text_config import DeltaNetConfig, TextConfig

_NORM_EPS = 1e-6  # of the lengths of queries and keys


class Padding(NamedTuple):
    """Where a forward pass ends in each row; None in its place means: nowhere before its width."""

    lengths: mx.array  # int32 [B]
    valid: mx.array  # bool [B, L]


def find_padding(span: Span) -> Padding | None:
    """Return what of a forward pass is padding, if any of it is."""
    if all(length == span.width for length in span.lengths):
        return None
    lengths = mx.array(span.lengths, mx.int32)
    return Padding(lengths, mx.arange(span.width) < lengths[:, None])


class ShortConvolution(nn.Module):
    """A causal convolution of each channel over its last few tokens."""

    def __init__(self, config: DeltaNetConfig) -> None:
        super().__init__()
        self.weight = mx.zeros((config.conv_dim, config.conv_size))  # the last is the present

    def __call__(
        self, x: mx.array, window: mx.array, padding: Padding | None
    ) -> tuple[mx.array, mx.array]:
        """Convolve L tokens.

        Args:
            x: ``[B, L, C]``.
            window: ``[B, size - 1, C]``, the tokens before.
            padding: where the rows end.

        Returns:
            float32 ``[B, L, C]``, and each row's last ``size - 1`` valid tokens.
        """
        length, held = x.shape[1], window.shape[1]
        seen = mx.concatenate([window, x], axis=1)
        taps = self.weight.T.astype(mx.float32)
        if length == 1:
            out = mx.sum(seen * taps, axis=1, keepdims=True)
        else:
            out = seen[:, :length] * taps[0]
            for place in range(1, held + 1):
                out = out + seen[:, place : place + length] * taps[place]
        if padding is None:
            return out, mx.contiguous(seen[:, length:])
        places = padding.lengths[:, None] + mx.arange(held)
        return out, mx.take_along_axis(seen, places[..., None], axis=1)


class GatedDeltaNet(nn.Module):
    """Linear attention whose state is one matrix per head."""

    def __init__(self, config: TextConfig, forms: Forms) -> None:
        super().__init__()
        self.silu, self.fused = forms.silu, forms.fused_delta
        sizes = config.delta_net
        assert sizes is not None
        hidden, heads = config.hidden_size, sizes.num_value_heads
        self.sizes = (sizes.num_key_heads, sizes.key_dim, heads, sizes.value_dim)
        self.in_proj_qkv = nn.Linear(hidden, sizes.conv_dim, bias=False)
        self.in_proj_z = nn.Linear(hidden, heads * sizes.value_dim, bias=False)
        self.in_proj_b = nn.Linear(hidden, heads, bias=False)
        self.in_proj_a = nn.Linear(hidden, heads, bias=False)
        self.conv1d = ShortConvolution(sizes)
        self.dt_bias = mx.ones((heads,))
        self.A_log = mx.zeros((heads,))
        self.norm = nn.RMSNorm(sizes.value_dim, eps=config.rms_norm_eps)
        self.out_proj = nn.Linear(heads * sizes.value_dim, hidden, bias=False)

    @property
    def spec(self) -> RecurrentSpec:
        """What the layer stores: the convolution's window, and the matrices."""
        _, key_dim, heads, value_dim = self.sizes
        channels, size = self.conv1d.weight.shape
        return RecurrentSpec(
            (
                StateArray("window", (size - 1, channels)),
                StateArray("memory", (heads, value_dim, key_dim), mx.float32),
            )
        )

    def __call__(
        self, x: mx.array, shape: tuple[int, int], state: Pytree, padding: Padding | None
    ) -> tuple[mx.array, Pytree]:
        """Map ``[B * L, hidden]`` to the same; return the new state with it.

        Args:
            x: the tokens.
            shape: B and L.
            state: window and memory.
            padding: what leaves no trace in the state.
        """
        key_heads, key_dim, heads, value_dim = self.sizes
        window, memory = state
        mixed, window = self.conv1d(self.in_proj_qkv(x).reshape(*shape, -1), window, padding)
        keys = key_heads * key_dim
        q, k, v = mx.split(self.silu(mixed), [keys, 2 * keys], axis=-1)
        qk = mx.stack([part.reshape(*shape, key_heads, key_dim) for part in (q, k)])
        q, k = qk * mx.rsqrt(mx.sum(qk * qk, axis=-1, keepdims=True) + _NORM_EPS)
        beta = mx.sigmoid(self.in_proj_b(x).astype(mx.float32)).reshape(*shape, heads)
        step = mx.logaddexp(self.in_proj_a(x).astype(mx.float32) + self.dt_bias, 0.0)
        log_decay = (-mx.exp(self.A_log.astype(mx.float32)) * step).reshape(*shape, heads)
        if padding is not None:
            valid = padding.valid[..., None]
            beta, log_decay = mx.where(valid, beta, 0.0), mx.where(valid, log_decay, 0.0)
        v = v.reshape(*shape, heads, value_dim)
        q = q * key_dim**-0.5
        out, memory = gated_delta(q, k, v, log_decay, beta, memory, fused=self.fused)
        gate = self.silu(self.in_proj_z(x).astype(mx.float32)).reshape(out.shape)
        out = (self.norm(out) * gate).astype(x.dtype)
        return self.out_proj(out.reshape(x.shape[0], -1)), (window, memory)
