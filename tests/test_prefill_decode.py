"""Prefill and decode step on a tiny attention model, under every kind of cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.effort import scaled
from vlmkit.cache import (
    AffineConfig,
    DenseConfig,
    KVarNConfig,
    QuantizedConfig,
    RotatingConfig,
    build_cache,
    cache_num_bytes,
    join_rows,
    select_rows,
)
from vlmkit.contracts.inputs import Embeddings, Inputs, Media, Piece
from vlmkit.contracts.interface import Cache, DecodeState, Features, Forwarded, KVSpec, Span
from vlmkit.errors import VlmkitError
from vlmkit.passes.decode import decode_step
from vlmkit.passes.embed import embed_prompts
from vlmkit.passes.prefill import PrefillConfig, prefill

VOCABULARY, WIDTH, NUM_LAYERS = 50, 64, 2

CONFIGS: dict[str, Any] = {
    "dense": DenseConfig(),
    "rotating": RotatingConfig(max_size=10, keep=2),
    "affine": AffineConfig(bits=4, group_size=32),
    "affine_rotating": AffineConfig(key_bits=8, value_bits=4, group_size=32, max_size=10, keep=2),
    "turboquant": QuantizedConfig(
        keys={"kind": "turboquant", "bits": 3.5}, values={"kind": "turboquant"}
    ),
    "kvarn": KVarNConfig(block_size=8),
}
every_kind = pytest.mark.parametrize("name", CONFIGS)


class TinyModel:
    """Two attention layers with additive positions; it notes the shapes it is called with."""

    config = None
    layer_specs = (KVSpec(1, 32, 32),) * NUM_LAYERS
    dtype = mx.float32

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.table = mx.array(rng.standard_normal((VOCABULARY, WIDTH), np.float32))
        self.weights = [
            [mx.array(rng.standard_normal((WIDTH, n), np.float32)) / 8 for n in (64, 32, 32)]
            for _ in range(NUM_LAYERS)
        ]
        self.widths: list[int] = []
        self.positions: list[NDArray[np.int32]] = []
        self.logits_shapes: list[tuple[int, ...]] = []

    def encode(self, media: Sequence[Media]) -> tuple[Features, ...]:
        raise AssertionError("no prompt has media")

    def embed(
        self, batch: Sequence[Inputs], features: Any, starts: Sequence[int] | None = None
    ) -> Embeddings:
        starts = starts or [0] * len(batch)
        rows = [one.token_ids[start:] for one, start in zip(batch, starts, strict=True)]
        lengths = tuple(map(len, rows))
        ends = tuple(len(one.token_ids) for one in batch)
        ids = np.zeros((len(batch), max(lengths)), np.int32)
        for row, own in enumerate(rows):
            ids[row, : lengths[row]] = own
        counts = np.array(starts, np.int32)[:, None] + np.arange(ids.shape[1], dtype=np.int32)
        positions = np.broadcast_to(counts, (3, *ids.shape))
        piece = Piece(self.embed_tokens(mx.array(ids)), mx.array(positions))
        return Embeddings(piece, lengths, ends)

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        return self.table[token_ids]

    def forward(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        hidden, positions = piece.hidden, piece.positions
        assert span.starts == cache.lengths
        assert hidden.shape[:2] == positions.shape[1:] == (len(span.starts), span.width)
        self.widths.append(span.width)
        self.positions.append(np.array(positions))
        hidden = hidden + mx.sin(3 * positions[0][..., None] * mx.arange(1, WIDTH + 1) / 40)
        plan = cache.kinds[0].plan(cache.layers[0], span)
        layers = []
        for kind, state, (wq, wk, wv) in zip(cache.kinds, cache.layers, self.weights, strict=True):
            queries, keys, values = (
                (hidden @ w).reshape(*hidden.shape[:2], -1, 32).swapaxes(1, 2) for w in (wq, wk, wv)
            )
            state = kind.append(state, keys, values, plan)
            output = kind.attend(state, queries, plan, 32**-0.5)
            hidden = hidden + output.swapaxes(1, 2).reshape(hidden.shape)
            layers.append(state)
        return Forwarded(hidden, (), Cache(cache.kinds, tuple(layers), span.ends))

    def logits(self, hidden: mx.array) -> mx.array:
        self.logits_shapes.append(hidden.shape)
        return hidden @ self.table.T


def prompt(length: int, seed: int = 0) -> Inputs:
    rng = np.random.default_rng([seed, length])
    return Inputs.of(rng.integers(0, VOCABULARY, length, dtype=np.int32))


def run(
    model: TinyModel, name: str, prompts: Sequence[Inputs], step_size: int, decode: int = 6
) -> NDArray[np.float32]:
    """Return the logits [1 + decode, B, V] of prefill and of fixed tokens after it."""
    cache = build_cache(CONFIGS[name], model.layer_specs, len(prompts), model.dtype)
    state, logits = prefill(model, embed_prompts(model, prompts), cache, step_size=step_size)
    return np.array([np.array(logits), *go_on(model, state, decode)])


def go_on(model: TinyModel, state: DecodeState, count: int) -> list[NDArray[np.float32]]:
    results = []
    for token in range(count):
        ids = mx.full((len(state.next_positions),), token, mx.int32)
        state, logits = decode_step(model, state, ids)
        results.append(np.array(logits))
    return results


def assert_close(actual: Any, desired: Any) -> None:
    np.testing.assert_allclose(actual, desired, atol=2e-5, rtol=2e-6)  # logits up to 60


@every_kind
@settings(max_examples=scaled(6))
@given(lengths=st.lists(st.integers(1, 25), min_size=1, max_size=3), step_size=st.integers(1, 30))
def test_logits_do_not_depend_on_step_size(name: str, lengths: list[int], step_size: int) -> None:
    prompts = [prompt(length, row) for row, length in enumerate(lengths)]
    whole = run(TinyModel(), name, prompts, step_size=2048)
    assert_close(run(TinyModel(), name, prompts, step_size=step_size), whole)


@every_kind
def test_defect_9_batch_and_single_rows_run_the_same_policy(name: str) -> None:
    prompts = [prompt(17), prompt(3), prompt(24)]
    batched = run(TinyModel(), name, prompts, step_size=7)
    for row, one in enumerate(prompts):
        assert_close(batched[:, row], run(TinyModel(), name, [one], step_size=100)[:, 0])


def test_defect_9_quantization_acts_from_the_first_token_with_its_own_bits() -> None:
    model, results, sizes = TinyModel(), {}, {}
    for bits in [(2, 2), (2, 8), (8, 2), (8, 8)]:
        config = AffineConfig(key_bits=bits[0], value_bits=bits[1], group_size=32)
        cache = build_cache(config, model.layer_specs, 1, model.dtype)
        state, logits = prefill(model, embed_prompts(model, [prompt(5)]), cache, step_size=2048)
        results[bits], sizes[bits] = np.array(logits), cache_num_bytes(state.cache)
    exact = run(model, "dense", [prompt(5)], step_size=2048, decode=0)[0]
    errors = {bits: float(np.abs(result - exact).max()) for bits, result in results.items()}
    assert errors[8, 8] > 0
    assert len(set(errors.values())) == 4
    assert errors[8, 8] < min(errors[2, 8], errors[8, 2])
    assert sizes[2, 2] < sizes[2, 8] == sizes[8, 2] < sizes[8, 8]


@pytest.mark.parametrize("name", ["rotating", "affine_rotating"])
def test_defect_10_max_size_bounds_every_layer(name: str) -> None:
    model, max_size = TinyModel(), CONFIGS[name].max_size
    cache = build_cache(CONFIGS[name], model.layer_specs, 2, model.dtype)
    state, _ = prefill(model, embed_prompts(model, [prompt(40), prompt(5)]), cache, step_size=8)
    for _ in range(8):
        state, _ = decode_step(model, state, mx.array([1, 2]))
        assert [layer.keys[0].shape[2] for layer in state.cache.layers] == [max_size] * NUM_LAYERS
    assert state.cache.lengths == (48, 13)
    dense = run(TinyModel(), "dense", [prompt(40)], step_size=8, decode=0)
    assert np.abs(run(TinyModel(), name, [prompt(40)], step_size=8, decode=0) - dense).max() > 0.1


@every_kind
def test_only_the_last_token_of_each_row_becomes_logits(name: str) -> None:
    model = TinyModel()
    run(model, name, [prompt(17), prompt(3)], step_size=7, decode=1)
    assert model.widths == [7, 7, 3, 1]
    assert model.logits_shapes == [(2, WIDTH), (2, WIDTH)]


@every_kind
def test_a_prefix_can_be_continued(name: str) -> None:
    model, prompts, cuts = TinyModel(), [prompt(20, 1), prompt(14, 2)], (12, 3)
    whole = run(model, name, prompts, step_size=2048)
    heads = [Inputs.of(one.token_ids[:cut]) for one, cut in zip(prompts, cuts, strict=True)]
    cache = build_cache(CONFIGS[name], model.layer_specs, 2, model.dtype)
    state, _ = prefill(model, embed_prompts(model, heads), cache, step_size=5)
    embeddings = embed_prompts(model, prompts, cuts)
    for step_size in (4, 100):  # the same prefix serves twice
        ended, logits = prefill(model, embeddings, state.cache, step_size=step_size)
        assert ended.cache.lengths == (20, 14)
        assert_close(np.array(logits), whole[0])
        assert_close(go_on(model, ended, 6), whole[1:])


def test_generated_tokens_take_the_next_position() -> None:
    model = TinyModel()
    cache = build_cache(DenseConfig(), model.layer_specs, 2, model.dtype)
    embeddings = embed_prompts(model, [prompt(6), prompt(4)])._replace(next_positions=(3, 40))
    state, _ = prefill(model, embeddings, cache, step_size=100)
    assert state.next_positions == (3, 40)
    for step in range(2):
        state, _ = decode_step(model, state, mx.array([1, 2]))
        assert model.positions[-1].tolist() == [[[3 + step], [40 + step]]]
    assert state.next_positions == (5, 42)
    assert state.cache.lengths == (8, 6)


@every_kind
def test_rows_that_join_and_leave_go_on_as_alone(name: str) -> None:
    model, prompts = TinyModel(), [prompt(18, 1), prompt(7, 2), prompt(30, 3)]
    states = []
    for steps, one in enumerate(prompts):
        cache = build_cache(CONFIGS[name], model.layer_specs, 1, model.dtype)
        state, _ = prefill(model, embed_prompts(model, [one]), cache, step_size=11)
        for token in range(steps):
            state, _ = decode_step(model, state, mx.array([token]))
        states.append(state)
    joined = DecodeState(
        join_rows([state.cache for state in states]),
        tuple(position for state in states for position in state.next_positions),
    )
    keep = [2, 0]
    picked = DecodeState(
        select_rows(joined.cache, keep), tuple(joined.next_positions[row] for row in keep)
    )
    together = go_on(model, picked, 5)
    for place, row in enumerate(keep):
        alone = go_on(model, states[row], 5)
        assert_close([logits[place] for logits in together], [logits[0] for logits in alone])


def test_an_empty_prompt_is_refused() -> None:
    model = TinyModel()
    cache = build_cache(DenseConfig(), model.layer_specs, 2, model.dtype)
    embeddings = embed_prompts(model, [prompt(3), prompt(2)])._replace(lengths=(3, 0))
    with pytest.raises(VlmkitError, match="prompt 1 has no tokens"):
        prefill(model, embeddings, cache, step_size=8)


def test_step_size_is_at_least_one() -> None:
    assert PrefillConfig().step_size == 2048
    for bad in (0, -1, True, 1.5):
        with pytest.raises(VlmkitError, match="step_size"):
            PrefillConfig.model_validate({"step_size": bad})


def test_peak_memory_is_that_of_one_chunk() -> None:
    model, peaks = TinyModel(), {}
    embeddings = embed_prompts(model, [prompt(1024)])
    mx.eval(embeddings.piece.hidden, embeddings.piece.positions)
    for step_size in (1024, 64):
        cache = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        _, logits = prefill(model, embeddings, cache, step_size=step_size)
        mx.eval(logits)
        peaks[step_size] = mx.get_peak_memory() - before
    assert peaks[64] < peaks[1024] / 4
