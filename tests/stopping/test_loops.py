"""all_of and the loop detector."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.stopping.simulate import simulate
from vlmkit.contracts.stages import Finish
from vlmkit.stopping.all_of import all_of
from vlmkit.stopping.max_tokens import MaxTokensConfig, max_tokens
from vlmkit.stopping.repetition_loop import RepetitionLoopConfig, repetition_loop
from vlmkit.stopping.stop_sequences import StopSequencesConfig, stop_sequences


def test_all_of_ends_where_every_criterion_would() -> None:
    late = max_tokens(MaxTokensConfig(max_tokens=3))
    stop = stop_sequences(StopSequencesConfig(sequences=(".",)))
    run = simulate(all_of([late, stop]), [0, 1, 0, 0, 1, 0], "a.".__getitem__)
    assert run.text == "a.aa"
    assert run.finish == Finish("stop", "stop_sequences", ".", 4)
    assert "".join(run.segments) == run.text
    with pytest.raises(ValueError, match="at least one"):
        all_of([])


@settings(max_examples=scaled(300))
@given(
    tokens=st.integers(0, 40).flatmap(
        lambda n: st.lists(st.integers(0, 2), min_size=n, max_size=n)
    ),
    max_period=st.integers(1, 5),
    num_repeats=st.integers(2, 4),
    min_tokens=st.integers(1, 12),
)
def test_loops_are_those_of_the_definition(
    tokens: list[int], max_period: int, num_repeats: int, min_tokens: int
) -> None:
    config = RepetitionLoopConfig(
        max_period=max_period, num_repeats=num_repeats, min_tokens=min_tokens
    )
    run = simulate(repetition_loop(config), tokens)

    def loop(row: list[int]) -> int | None:
        for period in range(1, max_period + 1):
            size = max(num_repeats * period, min_tokens, period + 1)
            tail = row[-size:]
            if len(row) >= size and tail[period:] == tail[:-period]:
                return period
        return None

    ends = [end for end in range(1, len(tokens) + 1) if loop(tokens[:end]) is not None]
    assert (run.finish is None) == (not ends)
    if run.finish is not None:
        assert len(run.token_ids) == ends[0]
        assert run.finish.matched == loop(tokens[: ends[0]])
