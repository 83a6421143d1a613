"""Matching token sequences: the incremental matcher against the definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlmkit.tokens.sequences import advance, token_sequence


@given(
    ids=st.lists(st.integers(0, 1), min_size=1, max_size=7),
    tokens=st.lists(st.integers(0, 1), max_size=60),
)
def test_equals_the_longest_prefix_that_ends_the_tokens(ids: list[int], tokens: list[int]) -> None:
    sequence, matched, seen = token_sequence(ids), 0, list[int]()
    for token_id in tokens:
        matched = advance(sequence, matched, token_id)
        seen.append(token_id)
        lengths = range(min(len(ids), len(seen)) + 1)
        assert matched == max(k for k in lengths if seen[len(seen) - k :] == ids[:k])
        if matched == len(ids):
            matched, seen = 0, []
