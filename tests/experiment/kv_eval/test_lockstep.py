"""Policies on given tokens: what their own caches say, compared step by step."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import entropy

from vlmkit.cache import (
    AffineConfig,
    CacheConfig,
    DenseConfig,
    RotatingConfig,
    build_cache,
    cache_num_bytes,
)
from vlmkit.cache.compose import num_slots
from vlmkit.config.tree import DEFAULT, to_node
from vlmkit.contracts.interface import PromptShape
from vlmkit.experiment.kv_eval.applied import applied
from vlmkit.experiment.kv_eval.lockstep import Measured, Row, run_lockstep
from vlmkit.experiment.kv_eval.planning import load_kv_eval
from vlmkit.experiment.kv_eval.sensitivity import layers_alone, sensitivity, sides_alone
from vlmkit.experiment.kv_eval.streams import NewCache, Variant
from vlmkit.experiment.loaded import Loaded, load_group
from vlmkit.experiment.plan import make_plan
from vlmkit.experiment.prompting import prepare_sample
from vlmkit.passes.decode import decode_step
from vlmkit.passes.embed import encode_media
from vlmkit.passes.prefill import prefill

LENGTHS = (9, 1, 5, 3)
DENSE = DenseConfig()
WINDOW = RotatingConfig(max_size=24, keep=2)


def affine(bits: int) -> AffineConfig:
    return AffineConfig.model_validate({"bits": bits, "group_size": 32})


class Case(NamedTuple):
    loaded: Loaded
    rows: list[Row]

    def caches(self, config: CacheConfig) -> NewCache:
        model = self.loaded.model
        attention = model.backend.forms.attention
        return lambda batch: build_cache(
            config, model.layer_specs, batch, model.dtype, attention=attention
        )

    def layers_alone(self, config: CacheConfig) -> list[NewCache]:
        return layers_alone(self.loaded.model, self.caches(DENSE), self.caches(config))

    def sensitivity(self, caches: list[NewCache]) -> list[list[float]] | None:
        return sensitivity(self.loaded.model, self.rows, self.caches(DENSE), caches, step_size=16)

    def run(self, *configs: CacheConfig, batches: int = 1) -> list[list[Measured]]:
        variants = [Variant(self.caches(config), batches) for config in configs]
        found = run_lockstep(
            self.loaded.model, self.rows, self.caches(DENSE), variants, step_size=16
        )
        assert found is not None
        return found


@pytest.fixture(scope="module")
def case() -> Case:
    data = {"kind": "shapes", "num_samples": len(LENGTHS)}
    study = load_kv_eval(
        to_node({"dataset": data, "policies": {"w": {"kind": "rotating", "max_size": 9}}}, DEFAULT)
    )
    plan = make_plan(study)
    loaded = load_group(plan.groups[0], study.arms, study.seeds)
    tokens = np.random.default_rng(1).integers(0, 600, (len(LENGTHS), max(LENGTHS)))
    rows = [
        Row(
            prepare_sample(loaded.model, loaded.processor, study.arms[0], sample).inputs,
            tokens[place, : LENGTHS[place]].tolist(),
        )
        for place, sample in enumerate(plan.samples)
    ]
    return Case(loaded, rows)


def plain_logits(case: Case, config: CacheConfig) -> np.ndarray:
    """Logits [tokens, B, V] of all rows: their prompts, then a decode step for each token."""
    model, inputs = case.loaded.model, [row.inputs for row in case.rows]
    embeddings = model.embed(inputs, encode_media(model, inputs))
    state, logits = prefill(model, embeddings, case.caches(config)(len(inputs)), step_size=16)
    found = [logits]
    for fed in np.array([row.token_ids[:-1] for row in case.rows]).T:
        state, logits = decode_step(model, state, mx.array(fed))
        found.append(logits)
    return np.array(mx.stack(found)).astype(np.float64)


@pytest.mark.parametrize(
    "config", [affine(8), affine(2), WINDOW], ids=["8 bits", "2 bits", "window"]
)
def test_what_is_compared_is_what_a_plain_forward_says(case: Case, config: CacheConfig) -> None:
    # Rows of one length stay together; in other company rounding may turn a code over.
    token_ids = np.random.default_rng(2).integers(0, 600, (len(case.rows), 6))
    rows = [
        row._replace(token_ids=ids.tolist()) for row, ids in zip(case.rows, token_ids, strict=True)
    ]
    case = case._replace(rows=rows)
    (found,) = case.run(config)
    reference, variant = (log_softmax(plain_logits(case, one), axis=2) for one in (DENSE, config))
    for row, measured in enumerate(found):
        ours, theirs = reference[:, row], variant[:, row]
        expected = entropy(np.exp(ours), np.exp(theirs), axis=1)
        np.testing.assert_allclose(measured.kl, expected, rtol=1e-3, atol=1e-9)
        delta = (theirs - ours)[np.arange(6), token_ids[row]]
        np.testing.assert_allclose(measured.delta_logprobs, delta, atol=2e-5)
        assert measured.agrees == (ours.argmax(1) == theirs.argmax(1)).tolist()
        assert len(measured.prompt_kl) == len(rows[row].inputs.token_ids) - 1


def test_dense_against_dense_is_exactly_zero(case: Case) -> None:
    (found,) = case.run(DENSE)
    for measured, length in zip(found, LENGTHS, strict=True):
        assert measured.kl == [0.0] * length
        assert measured.delta_logprobs == [0.0] * length
        assert measured.agrees == [True] * length
        assert set(measured.prompt_kl) == {0.0}
        assert measured.attention_error == ([0.0] * 4 if length > 1 else [])


def test_fewer_bits_are_further_away(case: Case) -> None:
    by_bits = case.run(affine(8), affine(4), affine(2))
    means = [np.mean([x for one in found for x in one.kl]) for found in by_bits]
    prompts = [np.mean([x for one in found for x in one.prompt_kl]) for found in by_bits]
    errors = [np.mean([one.attention_error for one in found if one.attention_error], axis=0)
              for found in by_bits]  # fmt: skip
    assert means == sorted(means)
    assert prompts == sorted(prompts)
    assert (np.diff(np.array(errors), axis=0) > 0).all()


def test_other_batches_give_the_same_but_for_rounding(case: Case) -> None:
    (one,), (other,) = case.run(WINDOW), case.run(WINDOW, batches=3)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first.kl, second.kl, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(
            first.attention_error, second.attention_error, rtol=1e-3, atol=1e-6
        )


def test_a_layer_alone_hurts_less_than_all(case: Case) -> None:
    alone = case.sensitivity(case.layers_alone(affine(2)))
    assert alone is not None
    (whole,) = case.run(affine(2))
    assert np.array(alone).shape == (len(LENGTHS), 4)
    mean = np.mean([np.mean(one.kl) for one in whole])
    assert (np.mean(alone, axis=0) < mean).all()
    assert (np.array(alone).mean(axis=0) > 0).all()
    none = case.sensitivity(case.layers_alone(DENSE))
    assert np.array(none).max() == 0


def test_keys_and_values_alone_are_codecs_of_such_bits(case: Case) -> None:
    def alone(config: CacheConfig) -> np.ndarray:
        model, baseline, policy = case.loaded.model, case.caches(DENSE), case.caches(config)
        return np.array(case.sensitivity(sides_alone(model, case.rows, baseline, policy)))

    sides = alone(affine(2))
    assert sides.shape == (len(LENGTHS), 2)
    assert (sides.mean(axis=0) > 0).all()
    # What is 8 bits beside the half in question is nearly the baseline.
    halves = [AffineConfig(key_bits=2, value_bits=8, group_size=32),
              AffineConfig(key_bits=8, value_bits=2, group_size=32)]  # fmt: skip
    for side, found in zip(sides.T, case.run(*halves), strict=True):
        means = [np.mean(one.kl) for one in found]
        assert side.mean() == pytest.approx(np.mean(means), rel=0.2)
    assert alone(DENSE).max() == 0
    assert alone(WINDOW).size == 0  # other tokens than the baseline's


def test_it_stops_when_it_is_told(case: Case) -> None:
    asked: list[int] = []

    def is_over() -> bool:
        asked.append(1)
        return len(asked) == 4

    variants = [Variant(case.caches(DENSE))]
    found = run_lockstep(
        case.loaded.model,
        case.rows,
        case.caches(DENSE),
        variants,
        step_size=16,
        is_over=is_over,
    )
    assert (found, len(asked)) == (None, 4)


@pytest.mark.parametrize("config", [DENSE, affine(4), WINDOW], ids=["dense", "affine", "window"])
def test_bytes_are_those_of_the_arrays(case: Case, config: CacheConfig) -> None:
    model, (inputs, _) = case.loaded.model, case.rows[0]
    embeddings = model.embed([inputs], encode_media(model, [inputs]))
    state, _ = prefill(model, embeddings, case.caches(config)(1), step_size=16)
    state, _ = decode_step(model, state, mx.array([1]))
    num_prompt = len(inputs.token_ids)
    facts = applied(
        state.cache.kinds,
        model.layer_specs,
        model.dtype,
        prompt=PromptShape(num_prompt),
        num_tokens=num_prompt + 1,
    )
    counters = 4 * len(model.layer_specs)  # one int32 per layer says how long the row is
    share = facts.held_tokens / num_slots(state.cache.layers[0])
    assert facts.held_bytes == (cache_num_bytes(state.cache) - counters) * share
    assert facts.layers == ([] if config is DENSE else [0, 1, 2, 3])
    assert facts.num_layers == 4
