"""Laws that every stage obeys, over the contract table."""

from __future__ import annotations

import itertools
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map

from tests.effort import scaled
from tests.sampling.contract import CONTRACT, KINDS, VOCAB_SIZE, build_stage, case_id, cases
from tests.sampling.strategies import histories, logits
from vlmkit.sampling import join_states

LAW = settings(max_examples=scaled(8))
every_config = pytest.mark.parametrize("config", cases(), ids=case_id)


def run(config: Any, values: np.ndarray, prompts: Any = None, steps: Any = (), u: Any = None):
    """Apply a stage after a history; return its logits."""
    stage = build_stage(config)
    prompts = [np.zeros(0, np.int32)] * len(values) if prompts is None else prompts
    state = stage.init(prompts, values.shape[1])
    for tokens in steps:
        state = stage.update(state, mx.array(tokens))
    uniform = mx.array(np.full(len(values), 0.4) if u is None else u, dtype=mx.float32)
    return np.array(stage.apply(state, mx.array(values), uniform))


def log_softmax(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def assert_same_distribution(first: np.ndarray, second: np.ndarray, atol: float = 1e-5) -> None:
    np.testing.assert_array_equal(np.isneginf(first), np.isneginf(second))
    drawable = ~np.isneginf(first).all(-1)
    first, second = first[drawable], second[drawable]
    np.testing.assert_allclose(
        np.exp(log_softmax(first)), np.exp(log_softmax(second)), rtol=0, atol=atol
    )


def no_knife_edge(config: Any, values: np.ndarray) -> bool:
    """True when no token lies within rounding of the cut: other cuts close by keep the same."""
    if not CONTRACT[config.kind].truncates:
        return True
    support = np.isneginf(run(config, values))
    floats = {key: value for key, value in config.model_dump().items() if type(value) is float}
    for factor in (1 - 1e-4, 1 + 1e-4):
        scaled = {key: min(value * factor, max(value, 0.999)) for key, value in floats.items()}
        other = config.model_copy(update=scaled)
        if not np.array_equal(np.isneginf(run(other, values)), support):
            return False
    return True


def test_the_table_has_every_stage():
    assert set(CONTRACT) == set(KINDS)


@every_config
@LAW
@given(data=st.data())
def test_shape_dtype_support_and_input(config, data):
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    given_values = mx.array(values)
    stage = build_stage(config)
    state = stage.init(prompts, VOCAB_SIZE)
    for tokens in steps:
        state = stage.update(state, mx.array(tokens))
    before = tree_map(np.array, state)
    result = stage.apply(state, given_values, mx.full((len(values),), 0.4))
    assert result.shape == given_values.shape
    assert result.dtype == mx.float32
    out = np.array(result)
    np.testing.assert_array_equal(np.array(given_values), values)
    for old, new in zip(tree_flatten(before), tree_flatten(state), strict=True):
        np.testing.assert_array_equal(old[1], np.array(new[1]))
        assert len(old[1]) == len(values)
    assert not np.isnan(out).any()
    if CONTRACT[config.kind].keeps_a_token:
        assert np.isfinite(out).any(-1).all(), "a row lost every token"
    assert not (np.isneginf(values) & ~np.isneginf(out)).any(), "a token came back"


@pytest.mark.parametrize("config", cases(lambda row: row.truncates), ids=case_id)
@LAW
@given(values=logits())
def test_truncations_keep_logits_as_they_are(config, values):
    out = run(config, values)
    kept = ~np.isneginf(out)
    np.testing.assert_array_equal(out[kept], values[kept])


@pytest.mark.parametrize("config", cases(lambda row: row.keeps_argmax), ids=case_id)
@LAW
@given(values=logits())
def test_the_argmax_stays(config, values):
    np.testing.assert_array_equal(run(config, values).argmax(-1), values.argmax(-1))


@pytest.mark.parametrize("config", cases(lambda row: row.shift_invariant), ids=case_id)
@LAW
@given(data=st.data(), shift=st.integers(-200, 200))
def test_shift_invariance(config, data, shift):
    values = data.draw(logits(exact=True))
    assume(no_knife_edge(config, values))
    history = data.draw(histories(len(values)))
    moved = run(config, values + np.float32(shift), *history)
    assert_same_distribution(run(config, values, *history), moved, atol=2e-4)


@pytest.mark.parametrize("config", [c for c in cases() if build_stage(c).by_value], ids=case_id)
@LAW
@given(values=logits(), seed=st.integers(0, 999))
def test_permuting_the_vocabulary_permutes_the_result(config, values, seed):
    order = np.random.default_rng(seed).permutation(values.shape[1])
    for row in values:  # ties are broken by id, so they are left out
        finite = row[np.isfinite(row)]
        assume(len(np.unique(finite)) == len(finite))
    assume(no_knife_edge(config, values))
    assert_same_distribution(run(config, values)[:, order], run(config, values[:, order]))


WITH_TIES = [config for config in cases() if "ties" in type(config).model_fields]


@pytest.mark.parametrize("config", [c for c in WITH_TIES if c.ties == "all"], ids=case_id)
@settings(max_examples=scaled(25))
@given(values=logits(only=("ties", "flat", "normal", "one finite")), seed=st.integers(0, 999))
def test_ties_all_never_looks_at_ids(config, values, seed):
    """Equal logits share their fate, and permuting the vocabulary permutes the result."""
    if "protected_ids" in type(config).model_fields:
        config = config.model_copy(update={"protected_ids": ()})
    out = run(config, values)
    for row, kept in zip(values, ~np.isneginf(out), strict=True):
        for value in np.unique(row):
            assert len(set(kept[row == value])) == 1
    if no_knife_edge(config, values):
        order = np.random.default_rng(seed).permutation(values.shape[1])
        np.testing.assert_array_equal(run(config, values[:, order]), out[:, order])


@pytest.mark.parametrize("config", WITH_TIES, ids=case_id)
@settings(max_examples=scaled(25))
@given(values=logits())
def test_the_rule_for_ties_decides_on_ties_only(config, values):
    exact = ~np.isneginf(run(config.model_copy(update={"ties": "exact"}), values))
    every = ~np.isneginf(run(config.model_copy(update={"ties": "all"}), values))
    assert not (exact & ~every).any()
    for row, few, many in zip(values, exact, every, strict=True):
        # typical_p ties what is equally far from the entropy: up to two values.
        assert len(np.unique(row[many & ~few])) <= (2 if config.kind == "typical_p" else 1)
        finite = row[np.isfinite(row)]
        if len(np.unique(finite)) == len(finite) and config.kind != "typical_p":
            np.testing.assert_array_equal(few, many)


@every_config
@LAW
@given(data=st.data())
def test_rows_are_independent(config, data):
    values = data.draw(logits())
    prompts, steps = data.draw(histories(len(values)))
    numbers = np.linspace(0, 0.99, len(values))
    together = run(config, values, prompts, steps, numbers)
    for row in range(len(values)):
        one = slice(row, row + 1)
        alone = run(config, values[one], prompts[one], steps[:, one], numbers[one])
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("kind", [kind for kind, row in CONTRACT.items() if row.neutral])
@LAW
@given(data=st.data())
def test_neutral_parameters_are_the_identity(kind, data):
    values = data.draw(logits())
    out = run(CONTRACT[kind].neutral, values, *data.draw(histories(len(values))))
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize("config", cases(lambda row: row.idempotent), ids=case_id)
@LAW
@given(values=logits())
def test_idempotence(config, values):
    once = run(config, values)
    np.testing.assert_array_equal(run(config, once), once)


@pytest.mark.parametrize("kind", [kind for kind, row in CONTRACT.items() if row.monotone])
@LAW
@given(values=logits())
def test_monotonicity(kind, values):
    supports = [~np.isneginf(run(config, values)) for config in CONTRACT[kind].monotone]
    for wider, narrower in itertools.pairwise(supports):
        assert not (narrower & ~wider).any()


@every_config
@LAW
@given(data=st.data())
def test_states_are_joined_and_selected_by_row(config, data):
    values = np.concatenate([data.draw(logits()), data.draw(logits())])
    prompts, steps = data.draw(histories(len(values)))
    stage = build_stage(config)
    parts = []
    for row in range(len(values)):  # every row on its own, with its own length of history
        state = stage.init([prompts[row]], VOCAB_SIZE)
        for tokens in steps[: row + 1, row : row + 1]:
            state = stage.update(state, mx.array(tokens))
        parts.append(state)
    order = list(range(len(values)))[::-1]
    joined = join_states(parts)
    joined = tree_map(lambda leaf: leaf[mx.array(order)], joined)
    numbers = np.full(len(values), 0.4)
    out = np.array(stage.apply(joined, mx.array(values[order]), mx.array(numbers)))
    for place, row in enumerate(order):
        alone = run(config, values[row : row + 1], [prompts[row]], steps[: row + 1, row : row + 1])
        np.testing.assert_array_equal(out[place], alone[0])


@every_config
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_row_stays_broken(config, bad):
    values = np.zeros((2, VOCAB_SIZE), np.float32)
    values[0, 9] = bad
    out = run(config, values)
    assert not np.isfinite(out[0].max())
    assert np.isfinite(out[1].max())


@every_config
def test_a_row_without_a_token_is_no_history(config):
    stage = build_stage(config)
    state = stage.init([np.array([1, 2], np.int32)], VOCAB_SIZE)
    after = stage.update(state, mx.array([-1]))
    # where all of the history counts, an empty place may be all that is new
    both = join_states([state, after])
    for _, leaf in tree_flatten(both):
        np.testing.assert_array_equal(np.array(leaf[0]), np.array(leaf[1]))


@every_config
def test_equal_configs_have_equal_hashes_and_survive_json(config):
    again = type(config).model_validate_json(config.model_dump_json())
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keys_and_booleans_are_refused(kind):
    config = CONTRACT[kind].configs[0]
    values = config.model_dump()
    with pytest.raises(ValueError, match="tempo"):
        type(config)(**values, tempo=1)
    numbers = [key for key, value in values.items() if isinstance(value, int | float)]
    for key in numbers:
        if isinstance(values[key], bool):
            continue
        with pytest.raises(ValueError, match=key):
            type(config)(**{**values, key: True})
