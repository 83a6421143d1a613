"""The gated delta rule: one token at a time, in chunks, and as mlx-lm has it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from vlmkit.models.gated_delta import CHUNK, gated_delta, invert_unit_lower

BATCH, KEY_HEADS, HEADS, KEY, VALUE = 2, 2, 4, 6, 5
Arguments = tuple[mx.array, ...]


def arguments(length: int, seed: int, rate: float = 1.0) -> Arguments:
    """Unit keys, decays from almost none to almost all, rates up to ``rate``; a state."""
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((2, BATCH, length, KEY_HEADS, KEY))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    v = rng.standard_normal((BATCH, length, HEADS, VALUE))
    log_decay = -np.exp(rng.uniform(-6, 3, (BATCH, length, HEADS)))
    beta = rng.uniform(0, rate, (BATCH, length, HEADS))
    state = rng.standard_normal((BATCH, HEADS, VALUE, KEY))
    return tuple(mx.array(x.astype(np.float32)) for x in (q, k, v, log_decay, beta, state))


def step_by_step(*given: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64."""
    q, k, v, log_decay, beta, state = (np.array(x, np.float64) for x in given)
    q, k = (np.repeat(x, HEADS // KEY_HEADS, axis=2) for x in (q, k))
    outputs = []
    for t in range(q.shape[1]):
        state = state * np.exp(log_decay[:, t])[..., None, None]
        wrong = v[:, t] - np.einsum("bhvk,bhk->bhv", state, k[:, t])
        state = state + np.einsum("bhv,bhk->bhvk", beta[:, t, :, None] * wrong, k[:, t])
        outputs.append(np.einsum("bhvk,bhk->bhv", state, q[:, t]))
    return np.stack(outputs, axis=1), state


@pytest.mark.parametrize("length", [1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_any_length_is_the_definition(length: int) -> None:
    given = arguments(length, seed=length)
    out, state = gated_delta(*given)
    expected, last = step_by_step(*given)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    np.testing.assert_allclose(state, last, atol=2e-5)


def test_mlx_lm_computes_the_same() -> None:
    from mlx_lm.models.gated_delta import gated_delta_ops

    q, k, v, log_decay, beta, state = arguments(CHUNK + 7, seed=1)
    out, last = gated_delta(q, k, v, log_decay, beta, state)
    mx.disable_compile()  # a second of a C++ compiler
    expected, expected_last = gated_delta_ops(q, k, v, mx.exp(log_decay), beta, state)
    mx.enable_compile()
    np.testing.assert_allclose(out, expected, atol=2e-5)
    np.testing.assert_allclose(last, expected_last, atol=2e-5)


@given(cut=st.integers(1, 2 * CHUNK), seed=st.integers(0, 99))
@settings(max_examples=scaled(12))
def test_two_parts_are_the_whole(cut: int, seed: int) -> None:
    *tokens, state = arguments(2 * CHUNK + 1, seed)
    whole, last = gated_delta(*tokens, state)
    first, middle = gated_delta(*(x[:, :cut] for x in tokens), state)
    second, end = gated_delta(*(x[:, cut:] for x in tokens), middle)
    np.testing.assert_allclose(mx.concatenate([first, second], axis=1), whole, atol=2e-5)
    np.testing.assert_allclose(end, last, atol=2e-5)


@pytest.mark.parametrize("length", [1, 5, CHUNK + 3])
def test_a_token_without_decay_and_rate_leaves_no_trace(length: int) -> None:
    q, k, v, _, _, state = arguments(length, seed=2)
    nothing = mx.zeros((BATCH, length, HEADS))
    assert mx.array_equal(gated_delta(q, k, 1e6 * v, nothing, nothing, state)[1], state)


def test_equal_keys_do_not_grow() -> None:
    # Powers of the triangle would reach 1e8 here, and cancel to nothing left of float32.
    q, k, v, _, _, state = arguments(CHUNK, seed=3)
    k = mx.broadcast_to(k[:, :1], k.shape)
    none, all_of_it = mx.zeros((BATCH, CHUNK, HEADS)), mx.ones((BATCH, CHUNK, HEADS))
    out, _ = gated_delta(q, k, v, none, all_of_it, state)
    expected, _ = step_by_step(q, k, v, none, all_of_it, state)
    np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_inverse_of_a_triangle(size: int) -> None:
    x = np.random.default_rng(size).uniform(-1, 1, (3, size, size)).astype(np.float32)
    lower = np.tril(x / max(size, 1), -1) + np.eye(size)
    np.testing.assert_allclose(
        invert_unit_lower(mx.array(x / max(size, 1))), np.linalg.inv(lower), atol=1e-6
    )
