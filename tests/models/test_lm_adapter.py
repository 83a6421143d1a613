"""Text-only architectures of mlx-lm through our caches, against mlx-lm with its own cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

from tests.models.text_models import (
    ARCHITECTURES,
    FULL,
    RECURRENT,
    SLIDING,
    VOCABULARY,
    WINDOW,
    config,
    random_lm,
)
from tests.models.tiny import decode, empty_cache, prefill
from vlmkit.cache import join_rows, select_rows
from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.contracts.interface import Cache, KVSpec, RecurrentSpec, Span, StateArray
from vlmkit.errors import VlmkitError
from vlmkit.models.lm_adapter import _MASKED, LmModel
from vlmkit.models.lm_build import build_lm
from vlmkit.passes.embed import embed_prompts

LENGTHS = (5, 17, 1)  # shorter and longer than the window
NUM_STEPS = 8  # more than the window
STATEFUL = ["llama_sliding", "gpt_oss", "lfm2", "qwen3_next", "nemotron_h", "recurrent_gemma"]
each_stateful = pytest.mark.parametrize("name", STATEFUL)


def prompts(lengths: Sequence[int] = LENGTHS, seed: int = 2) -> list[Inputs]:
    rng = np.random.default_rng(seed)
    return [Inputs.of(rng.integers(0, VOCABULARY, n).astype(np.int32)) for n in lengths]


def tokens(batch: int, seed: int = 3) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, (batch, NUM_STEPS)).astype(np.int32)


def by_mlx_lm(
    model: LmModel, ids: NDArray[np.int32], following: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of one prompt, and of the tokens behind it one by one, with mlx-lm's own cache."""
    peer = make_prompt_cache(model.lm)
    prompt = np.array(model.lm(mx.array(ids)[None], cache=peer)[0])
    steps = [np.array(model.lm(mx.array([[int(t)]]), cache=peer)[0, 0]) for t in following]
    return prompt, np.stack(steps)


def assert_close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert np.abs(expected).max() > 0.05
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


def run(model: LmModel, batch: Sequence[Inputs], chunk: int | None) -> tuple[mx.array, Cache]:
    return prefill(model, embed_prompts(model, batch), empty_cache(model, len(batch)), chunk=chunk)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batch_of_unequal_lengths_equals_mlx_lm_one_by_one(name: str) -> None:
    model, batch, following = random_lm(name), prompts(), tokens(len(LENGTHS))
    logits, cache = run(model, batch, chunk=4)
    steps = decode(model, cache, LENGTHS, following)
    for row, inputs in enumerate(batch):
        prompt, after = by_mlx_lm(model, inputs.token_ids, following[row])
        assert_close(np.array(logits[row, : LENGTHS[row]]), prompt)
        assert_close(steps[row], after)


@each_stateful
def test_any_chunk_size_gives_the_whole_prefill(name: str) -> None:
    model, batch = random_lm(name), prompts()
    whole, states = run(model, batch, chunk=None)
    for chunk in (1, 3, WINDOW, 16):
        logits, cache = run(model, batch, chunk)
        for row, length in enumerate(LENGTHS):
            assert_close(np.array(logits[row, :length]), np.array(whole[row, :length]))
        for spec, one, two in zip(model.layer_specs, cache.layers, states.layers, strict=True):
            if isinstance(spec, RecurrentSpec):
                for x, y in zip(one, two, strict=True):
                    np.testing.assert_allclose(np.array(x), np.array(y), atol=1e-5, rtol=1e-4)


@each_stateful
def test_branches_and_joins_go_on_as_fresh_runs(name: str) -> None:
    model, batch = random_lm(name), prompts()
    halves = [run(model, batch[:2], chunk=5)[1], run(model, batch[2:], chunk=None)[1]]
    order = [2, 0, 1, 0]
    cache = select_rows(join_rows(halves), order)
    following = tokens(len(order))
    for _ in range(2):  # the state that was branched from stays as it was
        steps = decode(model, cache, cache.lengths, following)
        for place, row in enumerate(order):
            expected = by_mlx_lm(model, batch[row].token_ids, following[place])[1]
            assert_close(steps[place], expected)


@each_stateful
def test_rows_that_begin_join_rows_that_run(name: str) -> None:
    model, batch = random_lm(name), prompts((7, 9))
    _, running = run(model, batch[:1], chunk=None)
    cache = join_rows([running, empty_cache(model, 1)])
    embeddings = embed_prompts(model, [batch[1], batch[1]])
    logits, cache = prefill(model, embeddings, cache, chunk=4)
    assert cache.lengths == (16, 9)
    both = np.concatenate([batch[0].token_ids, batch[1].token_ids])
    following = tokens(2)
    for row, (ids, start) in enumerate([(both, 7), (batch[1].token_ids, 0)]):
        prompt, _ = by_mlx_lm(model, ids, following[row])
        assert_close(np.array(logits[row]), prompt[start:])


@each_stateful
def test_padding_leaves_no_trace(name: str) -> None:
    model, results = random_lm(name), []
    embeddings = embed_prompts(model, prompts())
    valid = mx.arange(max(LENGTHS)) < mx.array(LENGTHS)[:, None]
    for padding in (0, 7):
        hidden = mx.where(valid[..., None], embeddings.piece.hidden, padding)
        padded = embeddings._replace(piece=embeddings.piece._replace(hidden=hidden))
        logits, cache = prefill(model, padded, empty_cache(model, len(LENGTHS)), chunk=6)
        steps = decode(model, cache, LENGTHS, tokens(len(LENGTHS)))
        results.append([np.array(mx.where(valid[..., None], logits, 0)), steps])
    assert all(np.array_equal(one, two) for one, two in zip(*results, strict=True))


def test_architectures_that_are_masked_are_compared() -> None:
    assert {config(name)["model_type"] for name in RECURRENT} >= _MASKED


def test_code_that_takes_the_name_of_a_masked_one_is_not_trusted_to_mask() -> None:
    model = LmModel(random_lm("mamba").lm, config("mamba", model_type="lfm2"))
    batch, following = prompts(), tokens(len(LENGTHS))
    _, cache = run(model, batch, chunk=4)
    steps = decode(model, cache, LENGTHS, following)
    for row, inputs in enumerate(batch):
        assert_close(steps[row], by_mlx_lm(model, inputs.token_ids, following[row])[1])


def test_layer_specs_come_from_the_graph() -> None:
    plain = KVSpec(2, 8, 8)
    assert random_lm("qwen3").layer_specs == (plain, plain)
    sliding = KVSpec(2, 8, 8, WINDOW)
    assert random_lm("llama_sliding").layer_specs == (sliding, plain, sliding)
    assert random_lm("deepseek_v2").layer_specs == (KVSpec(4, 10, 7),) * 2
    assert random_lm("kimi_linear").layer_specs[1] == KVSpec(1, 16, 4)
    conv = RecurrentSpec((StateArray("array_0", (2, 32), mx.float32),))
    assert random_lm("lfm2").layer_specs == (conv, plain, conv)
    values = config("gpt_neox", rotary_emb_base=10000, rotary_pct=0.25, hidden_act="gelu")
    assert LmModel(build_lm(values), values).layer_specs == (KVSpec(4, 8, 8),) * 2


def test_dtypes_are_those_that_a_running_model_keeps() -> None:
    model = random_lm("qwen3_next")
    model.lm.set_dtype(mx.bfloat16)
    model = LmModel(model.lm, config("qwen3_next"))
    assert model.dtype == mx.bfloat16
    recurrent = model.layer_specs[0]
    assert isinstance(recurrent, RecurrentSpec)
    assert [array.dtype for array in recurrent.arrays] == [mx.bfloat16, mx.float32]
    _, cache = run(model, prompts(), chunk=4)
    for layer, spec in zip(cache.layers, model.layer_specs, strict=True):
        if isinstance(spec, RecurrentSpec):
            assert [x.dtype for x in layer] == [array.dtype for array in spec.arrays]


@pytest.mark.parametrize(("name", "width"), [("qwen3_5", 32), ("gemma3", 32), ("mamba", 32)])
def test_the_hidden_state_is_what_the_head_takes(name: str, width: int) -> None:
    model = random_lm(name)
    embeddings = embed_prompts(model, prompts((4,)))
    output = model.forward(embeddings.piece, empty_cache(model, 1), Span((0,), (4,), 4))
    assert output.hidden.shape == (1, 4, width)
    assert model.logits(output.hidden).shape == (1, 4, VOCABULARY)


GEMMA3N: dict[str, Any] = {
    **config("gemma3n"),
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": [SLIDING, FULL, SLIDING, FULL],
    "sliding_window": WINDOW,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "rope_local_base_freq": 10000.0,
    "final_logit_softcapping": 30.0,
    "activation_sparsity_pattern": [0.0] * 4,
    "altup_num_inputs": 2,
    "altup_coef_clip": 120.0,
    "altup_correct_scale": True,
    "altup_active_idx": 0,
    "laurel_rank": 4,
}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("falcon_h1", {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}, "keeps CacheList"),
    ("plamo3", {"window_size": 6, "sliding_window_pattern": 2}, r"different sizes \(6 and 7\)"),
    ("llama", {"layer_types": [SLIDING, FULL]}, "its sliding window is None"),
    ("llama", {"layer_types": [SLIDING, FULL], "sliding_window": 0}, "sliding window is 0"),
    ("llama", {"layer_types": [SLIDING, FULL], "sliding_window": "many"}, "window is 'many'"),
    ("gemma3n", {"text_config": GEMMA3N}, "its layers share keys and values"),
    ("mamba", {"conv_kernel": 1}, "arrays change their size with the tokens"),
]


@pytest.mark.parametrize(("name", "changes", "said"), REFUSED)
def test_other_memories_are_refused_by_name(name: str, changes: dict[str, Any], said: str) -> None:
    values = config(name, **changes)
    with pytest.raises(VlmkitError, match=f"'{name}' is not supported: .*{said}") as caught:
        LmModel(build_lm(values), values)
    assert "\n" not in str(caught.value)


def test_unknown_architecture_lists_what_is_supported() -> None:
    with pytest.raises(VlmkitError, match="the nearest that are: qwen2_vl, "):
        build_lm(config("qwen2_vll"))


def test_bad_inputs() -> None:
    model = random_lm("llama")
    image = Inputs.of(
        np.array([1], np.int32),
        [Media.of("image", np.zeros((4, 3), np.float32), (1, 2, 2), (0, 1))],
    )
    with pytest.raises(VlmkitError, match="text-only"):
        embed_prompts(model, [image])
    with pytest.raises(VlmkitError, match="token id 60 is outside the vocabulary of 60"):
        embed_prompts(model, [Inputs.of(np.array([1, 60], np.int32))])
    with pytest.raises(VlmkitError, match="empty"):
        embed_prompts(model, [Inputs.of(np.array([], np.int32))])
