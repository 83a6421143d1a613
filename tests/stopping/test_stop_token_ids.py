"""Stops given as sequences of token ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stopping.simulate import simulate
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.stopping import StopTokenIdsConfig, ThinkingBudgetConfig, build_stopping
from vlmkit.stopping.stop_token_ids import stop_token_ids

IDS = st.integers(0, 2)
SEQUENCES = st.lists(st.lists(IDS, min_size=1, max_size=4), min_size=1, max_size=3)
PIECES = ("a", "bc", "")  # one has no text


def piece(token_id: int) -> str:
    return PIECES[token_id]


@given(SEQUENCES, st.lists(IDS, max_size=14), st.booleans())
def test_the_row_ends_where_the_first_sequence_is_complete(
    sequences: list[list[int]], draws: list[int], include: bool
) -> None:
    criterion = stop_token_ids(StopTokenIdsConfig(sequences=sequences, include=include))
    run = simulate(criterion, draws, piece, prompt=[0, 1, 2, 0])
    complete = [
        (end, -len(ids))
        for ids in sequences
        for end in range(len(ids), len(draws) + 1)
        if draws[end - len(ids) : end] == ids
    ]
    if not complete:
        assert run.finish is None
        assert run.token_ids == tuple(draws)
        return
    end, length = min(complete)
    assert run.token_ids == tuple(draws[:end])
    assert run.finish is not None
    assert run.finish.matched == tuple(draws[end + length : end])
    kept = draws[:end] if include else draws[: end + length]
    assert run.text == "".join(map(piece, kept))
    assert "".join(run.segments) == run.text, "text was given out and then taken back"


def test_no_sequence_begins_in_thinking_that_ignores_stops() -> None:
    pieces = {1: "<think>", 2: "</think>", 5: "x", 6: "y"}
    vocabulary = {text: [token_id] for token_id, text in pieces.items()}
    stop = StopTokenIdsConfig(sequences=((5, 6),))
    draws = [1, 5, 6, 5, 2, 6, 5, 6, 5]
    for inside, num_taken in (("ignore", 8), ("honor", 3)):
        thinking = ThinkingBudgetConfig(budget=None, stop_inside=inside)
        criterion = build_stopping([stop, thinking], vocabulary.__getitem__, frozenset())
        run = simulate(criterion, draws, pieces.__getitem__)
        assert run.token_ids == tuple(draws[:num_taken])


def test_a_sequence_that_could_never_count_is_refused() -> None:
    vocabulary = {"<think>": [1], "</think>": [2, 3], "Wait": [9]}
    stop = StopTokenIdsConfig(sequences=((7, 2, 3),))
    thinking = ThinkingBudgetConfig(budget=4, end="</think>")
    with pytest.raises(VlmkitError, match=r"stop_token_ids: \(7, 2, 3\) holds the end marker"):
        build_stopping([stop, thinking], vocabulary.__getitem__, frozenset())


@pytest.mark.parametrize("sequences", [[], [[]], [[-1]], [[1.5]], [[""]], [""], [[True]], [3]])
def test_what_is_no_sequence_of_ids_is_refused(sequences: Any) -> None:
    with pytest.raises(VlmkitError):
        StopTokenIdsConfig.model_validate({"sequences": sequences})


def test_end_to_end_streamed_text_is_never_taken_back() -> None:
    model, processor = load("shapes")
    bias = {"kind": "logit_bias", "bias": dict.fromkeys(processor.eos_token_ids, -1e9)}
    limit = {"kind": "max_tokens", "max_tokens": 20}
    sampling = [bias, {"kind": "temperature", "temperature": 2.0}]
    free = PipelineConfig(sampling=sampling, stopping=[limit], seed=3)
    plain = collect(stream_pipeline(model, processor, Request("Hello"), free))
    wanted = plain.token_ids[9:12]
    stop = {"kind": "stop_token_ids", "sequences": [wanted, [*plain.token_ids[3:5], 0]]}
    stopped = free.model_copy(update={"stopping": PipelineConfig(stopping=[limit, stop]).stopping})
    chunks = list(stream_pipeline(model, processor, Request("Hello"), stopped))
    assert [chunk.token for chunk in chunks] == plain.token_ids[:12]
    assert chunks[-1].matched_stop == tuple(wanted)
    assert "".join(chunk.text for chunk in chunks) == processor.decode(plain.token_ids[:9])
