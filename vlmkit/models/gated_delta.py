"""The gated delta rule: a matrix per head that each token decays and corrects.

With a decay ``a_t`` in (0, 1], a rate ``b_t``, a key, a value and a query per token and head:

    S_t = a_t S_{t-1} + b_t (v_t - a_t S_{t-1} k_t) k_t^T
    o_t = S_t q_t

A token with a_t = 1 and b_t = 0 changes nothing; that is how padding leaves no trace.

Reference: Yang, Kautz and Hatamizadeh (2024), "Gated Delta Networks: Improving Mamba2 with Delta
Rule", arXiv:2412.06464; Yang et al. (2024), "Parallelizing Linear Transformers with the Delta Rule
over Sequence Length", arXiv:2406.06484 (chunks).
"""

from __future__ import annotations

import mlx.core as mx

CHUNK = 32
"""Tokens that are computed at once; more means fewer steps, each of them longer."""


def gated_delta(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
    beta: mx.array,
    state: mx.array,
    *,
    fused: bool = False,
) -> tuple[mx.array, mx.array]:
    """Run the gated delta rule over L tokens.

    One token is one step, and several are computed in chunks with matrix products; fused, the
    kernel of mlx-lm for Metal runs where D_k allows it.

    Args:
        q, k: float32 ``[B, L, H_k, D_k]``.
        v: float32 ``[B, L, H_v, D_v]``; H_v is a multiple of H_k.
        log_decay: float32 ``[B, L, H_v]``, <= 0.
        beta: float32 ``[B, L, H_v]``.
        state: float32 ``[B, H_v, D_v, D_k]``.
        fused: the kernel is there.

    Returns:
        What the queries read, ``[B, L, H_v, D_v]``, and the state after the last token.

    Example:
        >>> one = mx.ones((1, 1, 1, 1))
        >>> nothing, rate = mx.zeros((1, 1, 1)), mx.full((1, 1, 1), 0.5)
        >>> out, state = gated_delta(one, one, one, nothing, rate, mx.zeros((1, 1, 1, 1)))
        >>> out.item(), gated_delta(one, one, one, nothing, rate, state)[0].item()
        (0.5, 0.75)
    """
    if fused and k.shape[-1] % 32 == 0:
        from mlx_lm.models.gated_delta import gated_delta_kernel

        found: tuple[mx.array, mx.array] = gated_delta_kernel(
            q, k, v, mx.exp(log_decay), beta, state
        )
        return found
    repeats = v.shape[2] // k.shape[2]
    if repeats > 1:
        q, k = mx.repeat(q, repeats, axis=2), mx.repeat(k, repeats, axis=2)
    run = _one_step if q.shape[1] == 1 else _in_chunks
    return run(q, k, v, log_decay, beta, state)


def _one_step(
    q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array
) -> tuple[mx.array, mx.array]:
    state = state * mx.exp(log_decay[:, 0, :, None, None])
    key, query = k[:, 0, :, None], q[:, 0, :, None]  # [B, H, 1, D_k]
    held = mx.sum(state * key, axis=-1, keepdims=True)
    state = state + (v[:, 0, :, :, None] - held) * beta[:, 0, :, None, None] * key
    return mx.sum(state * query, axis=-1)[:, None], state


def _in_chunks(
    q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, beta: mx.array, state: mx.array
) -> tuple[mx.array, mx.array]:
    length = q.shape[1]
    size = min(CHUNK, 1 << (length - 1).bit_length())
    q, k, v = (_chunks(x, size) for x in (q, k, v))  # [B, H, N, C, D]
    beta = _chunks(beta[..., None], size)  # [B, H, N, C, 1]
    log_decay = _chunks(log_decay[..., None], size)
    # What is left of token j at token i is the decay of those between: summed up from each j,
    # since differences of sums from the start would cancel. Above the diagonal there is nothing.
    between = mx.cumsum(mx.where(mx.tri(size, k=-1, dtype=mx.bool_), log_decay, 0.0), axis=3)
    left = mx.where(mx.tri(size, dtype=mx.bool_), mx.exp(between), 0.0)
    grown = mx.exp(mx.cumsum(log_decay, axis=3))
    keys = k.swapaxes(3, 4)
    inverse = invert_unit_lower((beta * k) @ keys * left)
    values = inverse @ (beta * v)
    from_state = inverse @ (beta * grown * k)
    within, q = (q @ keys) * left, q * grown
    k, decay = k * left[..., -1, :, None], grown[..., -1:, :]
    outputs = []
    for n in range(q.shape[2]):
        held = state.swapaxes(2, 3)  # [B, H, D_k, D_v]
        new = values[:, :, n] - from_state[:, :, n] @ held
        outputs.append(q[:, :, n] @ held + within[:, :, n] @ new)
        state = state * decay[:, :, n] + new.swapaxes(2, 3) @ k[:, :, n]
    out = mx.concatenate(outputs, axis=2)[:, :, :length]
    return out.swapaxes(1, 2), state


def _chunks(x: mx.array, size: int) -> mx.array:
    """Return ``[B, L, H, D]`` as ``[B, H, N, size, D]``, with tokens of zeros at the end."""
    batch, length, heads, dim = x.shape
    missing = -length % size
    if missing:
        x = mx.pad(x, [(0, 0), (0, missing), (0, 0), (0, 0)])
    return x.swapaxes(1, 2).reshape(batch, heads, -1, size, dim)


def invert_unit_lower(x: mx.array) -> mx.array:
    """Return the inverse of I + the part of x strictly below its diagonal.

    Blocks of twice the size follow from their halves, which is matrix products alone:
    ``[[A, 0], [C, B]]^-1 = [[A^-1, 0], [-B^-1 C A^-1, B^-1]]``.

    Args:
        x: ``[..., n, n]``; n is a power of two.

    Example:
        >>> invert_unit_lower(mx.array([[7.0, 7.0], [2.0, 7.0]])).tolist()
        [[1.0, 0.0], [-2.0, 1.0]]
    """
    lead, size = x.shape[:-2], x.shape[-1]
    inverse = mx.ones((*lead, size, 1, 1), x.dtype)
    half = 1
    while half < size:
        count = size // (2 * half)
        tiles = x.reshape(*lead, count, 2, half, count, 2, half)
        corner = mx.moveaxis(mx.diagonal(tiles[..., 1, :, :, 0, :], axis1=-4, axis2=-2), -1, -3)
        halves = inverse.reshape(*lead, count, 2, half, half)
        first, second = halves[..., 0, :, :], halves[..., 1, :, :]
        below = -(second @ corner @ first)
        top = mx.concatenate([first, mx.zeros_like(first)], axis=-1)
        inverse = mx.concatenate([top, mx.concatenate([below, second], axis=-1)], axis=-2)
        half *= 2
    return inverse.reshape(x.shape)
