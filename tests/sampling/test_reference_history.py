"""DRY, n-grams and token sets against a search through the history."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.contract import VOCAB_SIZE
from tests.sampling.strategies import logits
from tests.sampling.test_laws import run
from vlmkit.errors import VlmkitError
from vlmkit.sampling import (
    AllowedTokens,
    Dry,
    MinNewTokens,
    NoRepeatNgram,
    SuppressTokens,
    build_stage,
)

LAW = settings(max_examples=scaled(100))


@st.composite
def repetitive(draw):
    """Draw one row's prompt and answer over few ids, so that sequences do repeat."""
    ids = st.integers(0, 3)
    num_prompt, num_answer = draw(st.integers(0, 25)), draw(st.integers(0, 12))
    prompt = draw(st.lists(ids, min_size=num_prompt, max_size=num_prompt))
    answer = draw(st.lists(ids, min_size=num_answer, max_size=num_answer))
    return np.array(prompt, np.int32).reshape(-1), np.array(answer, np.int32).reshape(-1, 1)


def history(prompt, steps, excluded_ids, size):
    ids = [*prompt.tolist(), *steps[:, 0].tolist()]
    return [token_id for token_id in ids if token_id not in excluded_ids][-(size or 0) :]


@LAW
@given(
    data=repetitive(),
    n=st.integers(2, 4),
    size=st.none() | st.integers(2, 40),
    excluded_ids=st.sampled_from([(), (1,)]),
)
def test_no_repeat_ngram(data, n, size, excluded_ids):
    prompt, steps = data
    ids = history(prompt, steps, excluded_ids, size)
    tail = ids[len(ids) - n + 1 :]
    banned = set()
    if len(ids) >= n:
        banned = {ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == tail}
    config = NoRepeatNgram(n=n, context_size=size, excluded_ids=excluded_ids)
    out = run(config, np.zeros((1, VOCAB_SIZE), np.float32), [prompt], steps)
    assert set(np.flatnonzero(np.isneginf(out[0]))) == banned


@LAW
@given(
    data=repetitive(),
    allowed_length=st.integers(1, 4),
    size=st.none() | st.integers(2, 40),
    breaker_ids=st.sampled_from([(), (2,), (0, 3)]),
    excluded_ids=st.sampled_from([(), (1,)]),
)
def test_dry(data, allowed_length, size, breaker_ids, excluded_ids):
    prompt, steps = data
    ids = history(prompt, steps, excluded_ids, size)
    longest: dict[int, int] = {}
    for place in range(len(ids) - 1):  # the token at place + 1 followed a match of this length
        length = 0
        while (
            length <= place
            and ids[place - length] == ids[len(ids) - 1 - length]
            and ids[place - length] not in breaker_ids
        ):
            length += 1
        longest[ids[place + 1]] = max(longest.get(ids[place + 1], 0), length)
    expected = np.zeros(VOCAB_SIZE)
    for token_id, length in longest.items():
        if length >= allowed_length and token_id not in breaker_ids:
            expected[token_id] = -0.7 * 1.5 ** (length - allowed_length)
    config = Dry(
        multiplier=0.7,
        base=1.5,
        allowed_length=allowed_length,
        breaker_ids=breaker_ids,
        context_size=size,
        excluded_ids=excluded_ids,
    )
    out = run(config, np.zeros((1, VOCAB_SIZE), np.float32), [prompt], steps)
    np.testing.assert_allclose(out[0], expected, rtol=1e-4)


@LAW
@given(values=logits(), ids=st.sets(st.integers(0, VOCAB_SIZE - 1), min_size=1))
def test_suppressed_and_allowed_tokens_are_complements(values, ids):
    others = tuple(set(range(VOCAB_SIZE)) - ids)
    suppressed = run(SuppressTokens(token_ids=tuple(ids)), values)
    expected = values.copy()
    expected[:, list(ids)] = -np.inf
    np.testing.assert_array_equal(suppressed, expected)
    if others:
        np.testing.assert_array_equal(run(AllowedTokens(token_ids=others), values), expected)


@pytest.mark.parametrize("num_tokens", [0, 1, 3])
def test_min_new_tokens(num_tokens):
    stage = build_stage(MinNewTokens(num_tokens=num_tokens, token_ids=(4,)))
    state = stage.init([np.arange(9, dtype=np.int32)], VOCAB_SIZE)  # the prompt doesn't count
    for step in range(5):
        out = stage.apply(state, mx.zeros((1, VOCAB_SIZE)), None)
        assert np.isneginf(np.array(out)[0, 4]) == (step < num_tokens)
        state = stage.update(state, mx.array([4]))


@pytest.mark.parametrize(
    "config",
    [
        SuppressTokens(token_ids=(99,)),
        AllowedTokens(token_ids=(1, 99)),
        MinNewTokens(num_tokens=2, token_ids=(99,)),
    ],
    ids=lambda config: config.kind,
)
def test_ids_outside_the_vocabulary_are_named(config):
    with pytest.raises(VlmkitError, match=f"{config.kind}: token id 99"):
        build_stage(config).init([[]], VOCAB_SIZE)
