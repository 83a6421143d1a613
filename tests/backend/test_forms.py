"""Activations, softmax and attention: every form within 1e-5 of MLX's plain result."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import scipy.special

from vlmkit.backend import polynomials
from vlmkit.backend.attention import fused_attention, softmax
from vlmkit.backend.forms import BLOCK, MIN_EXPONENTS, Forms, make_forms
from vlmkit.backend.host_exponentials import MIN_NUMBERS, host_softmax

FORMS = {
    f"{activations}{'_compiled' if compiled else ''}": make_forms(
        attention="matmul", activations=activations, on_gpu=on_gpu, compiled=compiled, metal=False
    )
    for activations, on_gpu, compiled in (
        ("polynomial", False, False),
        ("polynomial", False, True),
        ("native", False, False),
        ("native", True, False),
    )
}
PLAIN: dict[str, Any] = {
    "silu": lambda x: x * mx.sigmoid(x),
    "quick_gelu": lambda x: x * mx.sigmoid(1.702 * x),
    "gelu": lambda x: x * (1 + mx.erf(x / np.sqrt(2))) / 2,
    "gelu_pytorch_tanh": lambda x: (
        0.5 * x * (1 + mx.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    ),
}


def error_of(found: mx.array, expected: mx.array) -> float:
    """Return the largest difference, relative to the largest value."""
    difference = mx.abs(found.astype(mx.float32) - expected.astype(mx.float32))
    return float(mx.max(difference) / mx.max(mx.abs(expected)))


def numbers(shape: tuple[int, ...], scale: float, seed: int = 0) -> mx.array:
    rng = np.random.default_rng(seed)
    return mx.array(scale * rng.standard_normal(shape, np.float32))


@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", PLAIN)
def test_activations(name: str, forms: Forms) -> None:
    for shape in ((7,), (3, BLOCK // 2)):  # the second is more than one block
        x = numbers(shape, 4.0)
        found = forms.activations[name](x)
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        assert error_of(found, PLAIN[name](x)) < 1e-5
    ends = mx.array([-3e38, -200.0, -30.0, 0.0, 30.0, 3e4])
    assert np.allclose(forms.activations[name](ends), [0, 0, 0, 0, 30, 3e4], atol=1e-5)
    assert np.isnan(forms.activations[name](mx.array([np.nan]))).all()


@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)
def test_the_gate_of_an_mlp(forms: Forms) -> None:
    for shape in ((1, 5), (2, 3, BLOCK // 4)):
        gate, up = numbers(shape, 3.0), numbers(shape, 1.0, seed=1)
        assert error_of(forms.swiglu(gate, up), PLAIN["silu"](gate) * up) < 1e-5
    half = forms.swiglu(gate.astype(mx.bfloat16), up.astype(mx.bfloat16))
    assert half.dtype == mx.bfloat16
    assert error_of(half, PLAIN["silu"](gate) * up) < 0.02


@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_attention_in_prefill_and_decode(kv_heads: int, forms: Forms) -> None:
    for length, num_keys in ((1, 30), (1, 1 + MIN_EXPONENTS // 6), (40, 90)):
        queries = numbers((2, 6, length, 16), 2.0)
        keys, values = (numbers((2, kv_heads, num_keys, 16), 2.0, seed) for seed in (1, 2))
        seen = mx.arange(num_keys) <= mx.arange(length)[:, None] + num_keys - length
        rows = mx.stack([seen, seen & (mx.arange(num_keys) < num_keys - length)])[:, None]
        for mask in (None, seen[None, None], rows):
            expected = fused_attention(queries, keys, values, mask, 0.25)
            assert error_of(forms.attention(queries, keys, values, mask, 0.25), expected) < 1e-5


@pytest.mark.parametrize("forms", FORMS.values(), ids=FORMS)
def test_what_is_masked_has_no_weight(forms: Forms) -> None:
    num_keys = MIN_EXPONENTS + 1
    values = mx.concatenate([mx.ones((1, 1, 1, 4)), mx.full((1, 1, num_keys - 1, 4), 3e38)], axis=2)
    mask = mx.arange(num_keys)[None, None, None] < 1
    queries, keys = mx.ones((1, 1, 1, 4)), mx.ones((1, 1, num_keys, 4))
    assert forms.attention(queries, keys, values, mask, 0.5).tolist() == [[[[1.0] * 4]]]


@pytest.mark.parametrize(
    ("function", "exact", "bound"),
    [
        (polynomials.exp, np.exp, 88.0),
        (polynomials.tanh, np.tanh, 20.0),
        (polynomials.erf, scipy.special.erf, 8.0),
        (polynomials.sigmoid, scipy.special.expit, 40.0),
    ],
)
def test_against_float64(function: Any, exact: Any, bound: float) -> None:
    x = np.linspace(-bound, bound, 200_001).astype(np.float32)
    found, expected = np.array(function(mx.array(x)), np.float64), exact(x.astype(np.float64))
    error = np.abs(found - expected)
    if function is polynomials.exp:
        is_normal = x > -87.3
        error, found = (error / expected)[is_normal], found[~is_normal]
        assert (found == 0).any()
        assert ((found == 0) | (found > 8e-39)).all()  # half a power of two at most
    assert error.max() < 5e-7


def test_infinities() -> None:
    ends = mx.array([-np.inf, np.inf])
    assert polynomials.exp(ends)[0].item() == 0.0
    assert np.allclose(polynomials.tanh(ends), [-1, 1], atol=1e-6)
    assert np.allclose(polynomials.erf(ends), [-1, 1], atol=1e-6)


def test_nothing_is_traced_again_as_keys_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    split = polynomials.split_exp

    def counted(x: mx.array) -> tuple[mx.array, mx.array]:
        traced.append(x.shape)
        return split(x)

    monkeypatch.setattr(polynomials, "split_exp", counted)
    attention = make_forms.__wrapped__(
        attention="matmul", activations="polynomial", on_gpu=False, compiled=True, metal=False
    ).attention
    for num_keys in (MIN_EXPONENTS, MIN_EXPONENTS + 1, MIN_EXPONENTS + 2):
        keys = numbers((1, 1, num_keys, 4), 1.0)
        mx.eval(attention(numbers((1, 1, 1, 4), 1.0), keys, keys, None, 0.5))
    assert len(traced) == 1


def test_numpy_takes_many_scores_and_leaves_what_it_is_given() -> None:
    taken: list[int] = []

    def few(scores: mx.array) -> mx.array:
        taken.append(scores.size)
        return softmax(scores)

    weights = host_softmax(few)
    for shape in ((2, 1, 2**16), (2, 16, 2**10), (2, 32, 2**10), (1, 64, 2**12)):
        scores = numbers(shape, 30.0)
        scores[..., 5] = -mx.inf
        before = np.array(scores)
        found = weights(scores)
        assert np.array_equal(before, np.array(scores))
        assert error_of(found, mx.softmax(scores, axis=-1, precise=True)) < 1e-5
        assert found[..., 5].max().item() == 0
        assert mx.array_equal(weights(scores), found).item()
    assert set(taken) == {2**17, 2**15}, "one query, and few scores"


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_numpy_takes_the_activations_of_many_numbers(name: str, dtype: mx.Dtype) -> None:
    forms = make_forms(
        attention="matmul",
        activations="polynomial",
        on_gpu=False,
        compiled=False,
        metal=False,
        vector_exp=True,
    )
    x = numbers((2, MIN_NUMBERS // 2), 4.0)
    x[0, :3] = mx.array([-3e38, -200.0, 3e4])
    x, before = x.astype(dtype), np.array(x.astype(dtype).astype(mx.float32))
    found = forms.activations[name](x)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert np.array_equal(np.array(x.astype(mx.float32)), before)
    exact = PLAIN[name](x.astype(mx.float32)[:, 3:])
    assert error_of(found[:, 3:], exact) < (1e-5 if dtype == mx.float32 else 2**-8)
    assert np.allclose(found[0, :2].astype(mx.float32), 0)
    gate, up = numbers((4, MIN_NUMBERS // 4), 4.0), numbers((4, MIN_NUMBERS // 4), 1.0, seed=1)
    assert error_of(forms.swiglu(gate, up), PLAIN["silu"](gate) * up) < 1e-5
    assert np.isnan(forms.activations[name](mx.full((MIN_NUMBERS,), np.nan))).all()


def test_a_padded_row_is_the_row_alone() -> None:
    """Keys behind a row's end, which its mask hides, change nothing: not in the last bit."""
    weights = host_softmax(softmax)
    scores = numbers((1, 64, 1500), 5.0)
    padded = mx.concatenate([scores, mx.full((1, 64, 700), -mx.inf)], axis=-1)
    assert mx.array_equal(weights(padded)[..., :1500], weights(scores)).item()
