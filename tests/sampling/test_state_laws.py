"""States as values, over all registered stages: replay, branches, other names of the tokens."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map
from numpy.typing import NDArray

from tests.effort import scaled
from tests.sampling.contract import CONTRACT, VOCAB_SIZE, build_stage, case_id, cases
from tests.sampling.strategies import histories, logits
from tests.sampling.test_laws import assert_same_distribution, no_knife_edge, run

LAW = settings(max_examples=scaled(8))
every_config = pytest.mark.parametrize("config", cases(), ids=case_id)
HISTORY = ("repetition_penalty", "presence_penalty", "frequency_penalty", "dry", "no_repeat_ngram")

GROWING = [  # a state as wide as the longest history in its batch
    config for config in cases() if config.kind in HISTORY[3:] and config.context_size is None
]


def take(stage: Any, state: Any, values: mx.array, tokens: Any) -> Any:
    """One whole step: see the logits, cut them, take a token."""
    seen = state if stage.observe is None else stage.observe(state, values)
    stage.apply(seen, values, mx.full((len(values),), 0.4))
    return stage.update(seen, mx.array(tokens))


def leaves(state: Any) -> list[NDArray[Any]]:
    return [np.array(leaf) for _, leaf in tree_flatten(state)]


@every_config
@LAW
@given(data=st.data())
def test_a_branch_equals_a_replay(config: Any, data: st.DataObject) -> None:
    """Going on from a kept state is the same as starting anew, and leaves that state alone."""
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    stage, device_values = build_stage(config), mx.array(values)
    start = stage.init(prompts, VOCAB_SIZE)
    fork = start
    for tokens in steps:
        fork = take(stage, fork, device_values, tokens)
    before = leaves(fork)
    for token_id in (3, 8):
        branch = take(stage, fork, device_values, [token_id] * len(values))
        replay = stage.init(prompts, VOCAB_SIZE)
        for tokens in (*steps, [token_id] * len(values)):
            replay = take(stage, replay, device_values, tokens)
        for one, other in zip(leaves(branch), leaves(replay), strict=True):
            np.testing.assert_array_equal(one, other)
    for old, new in zip(before, leaves(fork), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(leaves(stage.init(prompts, VOCAB_SIZE)), leaves(start), strict=True):
        np.testing.assert_array_equal(old, new)


@every_config
def test_a_step_without_a_token_leaves_the_next_result_alone(config: Any) -> None:
    stage = build_stage(config)
    values = mx.array(np.linspace(-1, 1, VOCAB_SIZE, dtype=np.float32)[None])
    state = stage.init([np.array([1, 2, 1], np.int32)], VOCAB_SIZE)
    after = take(stage, state, values, [-1])
    number = mx.array([0.4])
    np.testing.assert_array_equal(
        np.array(stage.apply(after, values, number)), np.array(stage.apply(state, values, number))
    )
    if config.kind.startswith("mirostat"):
        assert after.mu.item() == state.mu.item()


@pytest.mark.parametrize("kind", HISTORY)
@LAW
@given(data=st.data())
def test_ids_that_the_model_has_no_logit_for_are_no_history(kind: str, data: st.DataObject) -> None:
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    strange = data.draw(st.lists(st.sampled_from([-7, -1, VOCAB_SIZE, 10**6]), min_size=1))
    place = data.draw(st.integers(0, 12))
    longer = [np.insert(ids, min(place, len(ids)), strange).astype(np.int32) for ids in prompts]
    for config in CONTRACT[kind].configs:
        np.testing.assert_array_equal(
            run(config, values, longer, steps), run(config, values, prompts, steps)
        )


def relabelled(config: Any, names: NDArray[np.int64]) -> Any:
    """The same config with every token id replaced."""
    update: dict[str, Any] = {}
    for key, value in config:
        if key.endswith("_ids"):
            update[key] = tuple(int(names[token_id]) for token_id in value)
        elif key == "bias":
            update[key] = {int(names[token_id]): added for token_id, added in value.items()}
    return config.model_copy(update=update)


@pytest.mark.parametrize(
    "config", [config for config in cases() if config.kind != "grammar"], ids=case_id
)
@LAW
@given(data=st.data(), seed=st.integers(0, 999))
def test_other_names_for_the_tokens_rename_the_result(
    config: Any, data: st.DataObject, seed: int
) -> None:
    """Permuting the vocabulary in logits, history and config permutes the result."""
    values = data.draw(logits(only=("normal", "nearly flat")))
    prompts, steps = data.draw(histories(len(values)))
    for row in values:  # ties are broken by id
        finite = row[np.isfinite(row)]
        assume(len(np.unique(finite)) == len(finite))
    assume(no_knife_edge(config, values))
    names = np.random.default_rng(seed).permutation(VOCAB_SIZE)
    renamed = np.empty_like(values)
    renamed[:, names] = values
    out = run(
        relabelled(config, names),
        renamed,
        [names[ids].astype(np.int32) for ids in prompts],
        names[steps],
    )
    assert_same_distribution(out[:, names], run(config, values, prompts, steps))


@pytest.mark.parametrize("config", GROWING, ids=case_id)
@LAW
@given(data=st.data())
def test_padding_of_a_state_never_matters(config: Any, data: st.DataObject) -> None:
    """Empty places before the oldest ones, as a longer neighbour brings them, change nothing."""
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    stage = build_stage(config)
    state = stage.init(prompts, VOCAB_SIZE)
    wide = tree_map(lambda leaf: mx.pad(leaf, [(0, 0), (5, 0)], constant_values=-1), state)
    number = mx.full((len(values),), 0.4)
    for tokens in (*steps, np.full(len(values), 2)):
        both = [np.array(stage.apply(one, mx.array(values), number)) for one in (state, wide)]
        np.testing.assert_array_equal(*both)
        state, wide = (stage.update(one, mx.array(tokens)) for one in (state, wide))
