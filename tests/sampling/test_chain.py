"""Chains: composition, state, and the short path against the plain one."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from pydantic import TypeAdapter, ValidationError

from tests.effort import scaled
from tests.sampling.contract import CONTRACT, VOCAB_SIZE, build_chain, build_stage
from tests.sampling.strategies import histories, logits
from vlmkit.contracts.stages import SamplerStage
from vlmkit.errors import VlmkitError
from vlmkit.sampling import (
    FrequencyPenalty,
    Greedy,
    LogitBias,
    MinP,
    MirostatV1,
    MirostatV2,
    RepetitionPenalty,
    SamplerConfig,
    Temperature,
    TopK,
    TopP,
    Xtc,
    chain,
    join_states,
)

ALL = [config for row in CONTRACT.values() for config in row.configs]
configs_lists = st.lists(st.sampled_from(ALL), max_size=5)


def started(sampler, prompts, steps=()):
    state = sampler.init(prompts, VOCAB_SIZE)
    for tokens in steps:
        state = sampler.update(state, mx.array(tokens))
    return state


def numbers(sampler, rows, seed=0):
    shape = (rows, 1 + sampler.num_random)
    return mx.array(np.random.default_rng(seed).random(shape), dtype=mx.float32)


@settings(max_examples=scaled(25))
@given(values=logits())
def test_the_empty_chain_leaves_the_logits(values):
    sampler = chain([])
    u = mx.zeros((len(values), 1))
    np.testing.assert_array_equal(np.array(sampler.apply((), mx.array(values), u)), values)
    assert (sampler.num_random, sampler.is_greedy) == (0, False)


@settings(max_examples=scaled(40))
@given(data=st.data(), configs=configs_lists, cut=st.integers(0, 5))
def test_a_chain_is_its_parts_in_order(data, configs, cut):
    """Associativity: (a then b) equals a's result fed to b."""
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    whole, first, second = (build_chain(part) for part in (configs, configs[:cut], configs[cut:]))
    u = numbers(whole, len(values))
    at_once = whole.apply(started(whole, prompts, steps), mx.array(values), u)
    columns = 1 + first.num_random
    middle = first.apply(started(first, prompts, steps), mx.array(values), u[:, :columns])
    rest = mx.concatenate([u[:, :1], u[:, columns:]], axis=-1)
    in_two = second.apply(started(second, prompts, steps), middle, rest)
    np.testing.assert_array_equal(np.array(at_once), np.array(in_two))


@settings(max_examples=scaled(60))
@given(data=st.data(), configs=configs_lists)
def test_sample_draws_from_what_apply_leaves(data, configs):
    values = data.draw(logits(size=VOCAB_SIZE))
    prompts, steps = data.draw(histories(len(values)))
    sampler = build_chain(configs)
    state = started(sampler, prompts, steps)
    u = numbers(sampler, len(values), data.draw(st.integers(0, 99)))
    shaped = np.array(sampler.apply(state, mx.array(values), u))
    _, drawn = sampler.sample(state, mx.array(values), u)
    drawn = np.array(drawn)
    left = np.isfinite(shaped).any(-1)
    assert (drawn[~left] == -1).all()
    assert np.isfinite(shaped[left, drawn[left]]).all()


@settings(max_examples=scaled(60))
@given(data=st.data(), configs=configs_lists)
def test_sample_is_draw_after_run_with_the_same_state(data, configs):
    """On every path: what a stage observes before it applies is part of both."""
    values = data.draw(logits(size=VOCAB_SIZE))
    prompts, steps = data.draw(histories(len(values)))
    configs = [*configs, *data.draw(st.sampled_from([[], [MirostatV1()], [MirostatV2()]]))]
    sampler = build_chain(configs)
    state = started(sampler, prompts, steps)
    u = numbers(sampler, len(values), data.draw(st.integers(0, 99)))
    after, drawn = sampler.sample(state, mx.array(values), u)
    ran, left = sampler.run(state, mx.array(values), u)
    assert drawn.tolist() == sampler.draw(left, u).tolist()
    stages = sampler.trace(state, mx.array(values), u)
    if stages:
        np.testing.assert_array_equal(np.array(stages[-1]), np.array(left))
    ours, theirs = tree_flatten(after), tree_flatten(ran)
    assert len(ours) == len(theirs)
    for (_, one), (_, two) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(two))


def test_a_stage_that_reads_what_it_observes_gives_the_same_on_every_path():
    stage = SamplerStage(
        "above_mean",
        lambda prompts, size: mx.zeros((len(prompts),)),
        lambda state, logits, uniform: mx.where(logits >= state[:, None], logits, -mx.inf),
        lambda state, ids: state,
        observe=lambda state, logits: mx.mean(logits, axis=-1),
    )
    sampler = chain([stage])
    state = sampler.init([np.array([1])], 4)
    values = mx.array([[0.0, 4.0, 1.0, 3.0]])
    u = mx.array([[0.0]])
    _, drawn = sampler.sample(state, values, u)
    assert drawn.item() == 1
    expected = [-np.inf, 4.0, -np.inf, 3.0]
    assert sampler.apply(state, values, u)[0].tolist() == expected
    assert sampler.trace(state, values, u)[0][0].tolist() == expected
    assert sampler.run(state, values, u)[0][0].tolist() == [2.0]


def test_the_short_path_draws_the_same_tokens():
    rng = np.random.default_rng(4)
    size, rows = 20_000, 64
    values = mx.array((rng.normal(size=(rows, size)) * 4).astype(np.float32))
    prompts = list(rng.integers(0, size, (rows, 30)).astype(np.int32))
    for configs in (
        [RepetitionPenalty(penalty=1.2), TopK(k=50), TopP(p=0.9), MinP(p=0.05)],
        [TopP(p=0.8), Temperature(temperature=0.7)],
        [TopK(k=40), LogitBias(bias={3: 1.0}), TopK(k=5)],
        [TopK(k=9), Greedy()],
    ):
        sampler = build_chain(configs)
        state = sampler.init(prompts, size)
        u = numbers(sampler, rows)
        _, drawn = sampler.sample(state, values, u)
        plain = sampler.draw(sampler.apply(state, values, u), u)
        assert drawn.tolist() == plain.tolist()


def test_order_matters_where_it_should():
    values = mx.log(mx.array([[0.5, 0.3, 0.2]]))

    def support(*configs: SamplerConfig) -> list[bool]:
        sampler = build_chain(configs)
        state = sampler.init([[]], 3)
        return mx.isfinite(sampler.apply(state, values, None))[0].tolist()

    hot, nucleus = Temperature(temperature=100.0), TopP(p=0.6)
    assert support(hot, nucleus) == [True, True, False]
    assert support(nucleus, Temperature(temperature=0.01)) == [True, True, False]
    assert support(Temperature(temperature=0.01), nucleus) == [True, False, False]
    assert support(TopK(k=2), hot) == support(hot, TopK(k=2))


STATEFUL = [
    RepetitionPenalty(penalty=1.5, context_size=3),
    FrequencyPenalty(penalty=0.5),
    TopK(k=6),
    Temperature(temperature=0.9),
]


def run_rows(samples, num_steps=12):
    """Generate with a fixed table of logits: row r is (sample number, prompt)."""
    table = mx.array(np.random.default_rng(0).normal(size=(VOCAB_SIZE, VOCAB_SIZE)) * 2)
    table = table.astype(mx.float32)
    sampler = build_chain(STATEFUL)
    state = sampler.init([prompt for _, prompt in samples], VOCAB_SIZE)
    tokens = mx.array([int(prompt[-1]) for _, prompt in samples])
    out = []
    for step in range(num_steps):
        u = mx.concatenate([numbers(sampler, 1, 100 * sample + step) for sample, _ in samples])
        state, tokens = sampler.sample(state, table[tokens], u)
        state = sampler.update(state, tokens)
        out.append(tokens.tolist())
    return np.array(out).T.tolist()


def test_batch_equals_single():
    samples = [(i, np.arange(1, 2 + i, dtype=np.int32)) for i in range(6)]
    together = run_rows(samples)
    assert together == [run_rows([sample])[0] for sample in samples]
    assert run_rows(samples[::-1]) == together[::-1]


def test_a_branch_equals_a_replay():
    sampler = build_chain(STATEFUL)
    prompt = [np.array([3, 3, 1], np.int32)]
    state = started(sampler, prompt, [[5], [7]])
    values = mx.array(np.random.default_rng(3).normal(size=(1, VOCAB_SIZE)).astype(np.float32))
    branches = {}
    for token in (2, 9):
        branches[token] = np.array(
            sampler.apply(sampler.update(state, mx.array([token])), values, numbers(sampler, 1))
        )
    for token, branch in branches.items():
        replay = started(sampler, prompt, [[5], [7], [token]])
        again = sampler.apply(replay, values, numbers(sampler, 1))
        np.testing.assert_array_equal(np.array(again), branch)


def test_half_precision_logits_are_widened():
    sampler = build_chain([Temperature(temperature=0.5)])
    state = sampler.init([[]], 3)
    shaped = sampler.apply(state, mx.array([[1.0, 2.0, 3.0]], dtype=mx.bfloat16), None)
    assert shaped.dtype == mx.float32
    rng = np.random.default_rng(0)
    half = mx.array(rng.normal(size=(200, 400)).astype(np.float32)).astype(mx.bfloat16)
    u = mx.array(rng.random((200, 1)).astype(np.float32))
    for configs in ([], [Temperature(temperature=0.9)], [TopK(k=40)]):
        sampler = build_chain(configs)
        state = sampler.init([[]] * 200, 400)
        both = [sampler.sample(state, z, u)[1].tolist() for z in (half, half.astype(mx.float32))]
        assert both[0] == both[1]


def test_a_state_of_another_chain_is_refused():
    state = build_chain([TopK(k=2)]).init([[]], 4)
    sampler = build_chain([TopK(k=2), Temperature(temperature=2.0)])
    with pytest.raises(ValueError, match="zip"):
        sampler.apply(state, mx.zeros((1, 4)), mx.zeros((1, 1)))


def test_missing_uniforms_are_named():
    random = build_chain([Xtc(probability=0.5, threshold=0.1)])
    with pytest.raises(ValueError, match=r"\[B, 2\].*not \(1, 1\)"):
        random.apply(random.init([[]], 4), mx.zeros((1, 4)), mx.zeros((1, 1)))
    sampler = build_chain([])
    with pytest.raises(ValueError, match="uniforms"):
        sampler.sample(sampler.init([[]], 4), mx.zeros((1, 4)), None)
    greedy = build_chain([Greedy()])
    assert greedy.sample(greedy.init([[]], 4), mx.zeros((1, 4)), None)[1].item() == 0


def test_yaml_values_become_a_chain():
    adapter = TypeAdapter(list[SamplerConfig])
    configs = adapter.validate_python([{"kind": "top_k", "k": 3}, {"kind": "min_p", "p": 0.1}])
    assert [stage.name for stage in build_chain(configs).stages] == ["top_k", "min_p"]
    with pytest.raises(ValidationError, match="top_kk"):
        adapter.validate_python([{"kind": "top_kk", "k": 3}])


@pytest.mark.parametrize("token_id", [24, 1_000_000])
def test_a_bias_outside_the_vocabulary(token_id):
    stage = build_stage(LogitBias(bias={token_id: 1.0}))
    with pytest.raises(VlmkitError, match=f"{token_id}.*0 to 23"):
        stage.init([[]], VOCAB_SIZE)
    with pytest.raises(VlmkitError):
        LogitBias(bias={-1: 1.0})


def test_joined_rows_keep_their_histories():
    sampler = build_chain(STATEFUL)
    first = started(sampler, [np.array([1, 1], np.int32)], [[4], [4], [2]])
    second = started(sampler, [np.array([9], np.int32)])
    joined = join_states([first, second])
    values = mx.broadcast_to(mx.arange(VOCAB_SIZE) * 0.1, (2, VOCAB_SIZE))
    both = np.array(sampler.apply(joined, values, numbers(sampler, 2)))
    for row, state in enumerate((first, second)):
        alone = np.array(sampler.apply(state, values[:1], numbers(sampler, 1)))
        np.testing.assert_array_equal(both[row], alone[0])
