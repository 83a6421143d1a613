"""Token sequences found in growing rows, and what a list of criteria says about its length."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from vlmkit.errors import VlmkitError
from vlmkit.stopping import (
    AllOfConfig,
    AnyOfConfig,
    EntropyStop,
    EosConfig,
    MaxTokensConfig,
    ThinkingBudgetConfig,
    token_limit,
)
from vlmkit.tokens.sequences import advance, token_sequence

BIT = st.integers(0, 1)


@settings(max_examples=scaled(300))
@given(
    ids=st.lists(BIT, min_size=1, max_size=7),
    tokens=st.lists(BIT, min_size=30, max_size=30),
)
def test_a_sequence_is_followed_as_by_looking_at_all_tokens(
    ids: list[int], tokens: list[int]
) -> None:
    sequence, matched, start = token_sequence(ids), 0, 0
    for end, token_id in enumerate(tokens, 1):
        matched = advance(sequence, matched, token_id)
        row = tokens[start:end]
        fits = [k for k in range(min(len(ids), len(row)) + 1) if row[len(row) - k :] == ids[:k]]
        assert matched == max(fits)
        if matched == len(ids):
            matched, start = 0, end


def test_the_number_of_tokens_that_ends_a_row_for_sure() -> None:
    short, long = MaxTokensConfig(max_tokens=3), MaxTokensConfig(max_tokens=8)
    assert token_limit([long, short]) == 3
    assert token_limit([AllOfConfig(criteria=(short, long))]) == 8
    assert token_limit([AllOfConfig(criteria=(short, EosConfig()))]) is None
    assert token_limit([EosConfig()]) is None


def test_all_of_refuses_only_what_never_ends() -> None:
    budget = ThinkingBudgetConfig(budget=2)
    AllOfConfig(criteria=(AnyOfConfig(criteria=(budget, EosConfig())), EosConfig()))
    for never in (
        budget,
        AnyOfConfig(criteria=(budget,)),
        EntropyStop(below=0.5, action="close_thinking"),
    ):
        with pytest.raises(VlmkitError, match="never ends a row"):
            AllOfConfig(criteria=(never, EosConfig()))
