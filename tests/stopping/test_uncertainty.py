"""Entropy, confidence and the clock as reasons to end a row, or its thinking."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.stopping.simulate import Run, simulate
from vlmkit.contracts.stages import Finish
from vlmkit.errors import VlmkitError
from vlmkit.stopping import (
    ConfidenceStop,
    EntropyStop,
    StopSequencesConfig,
    ThinkingBudgetConfig,
    TimeLimitConfig,
    build_stopping,
)
from vlmkit.stopping.time_limit import time_limit
from vlmkit.stopping.uncertainty import confidence_stop, entropy_stop

# Token i has entropy i / 2 and confidence 1 / (1 + i), see `simulate.measured`.
PIECES = ["a", "b", "c", "d", "<think>", "</think>", "so ", "\n"]
THINK, CLOSE = 4, 5


def encode(text: str) -> list[int]:
    return [PIECES.index(text)] if text in PIECES else [PIECES.index(piece) for piece in text]


def run_configs(configs: list[Any], draws: list[int], *prompt: int) -> Run:
    return simulate(build_stopping(configs, encode, frozenset()), draws, PIECES.__getitem__, prompt)


def closer(**values: Any) -> EntropyStop:
    return EntropyStop.model_validate({"below": 0.75, "action": "close_thinking", **values})


def rows(size: int, largest: int) -> st.SearchStrategy[list[int]]:
    """Token rows of all lengths up to a size alike."""
    ids = st.integers(0, largest)
    return st.integers(0, size).flatmap(lambda n: st.lists(ids, min_size=n, max_size=n))


@settings(max_examples=scaled(200))
@given(
    tokens=rows(20, 6),
    bound=st.sampled_from([0.4, 1.0, 1.1, 2.6]),
    side=st.sampled_from(["above", "below"]),
    window=st.integers(1, 4),
    patience=st.integers(1, 4),
    min_tokens=st.integers(0, 8),
)
def test_entropy_ends_a_row_where_the_definition_says(
    tokens: list[int], bound: float, side: str, window: int, patience: int, min_tokens: int
) -> None:
    config = EntropyStop.model_validate(
        {side: bound, "window": window, "patience": patience, "min_tokens": min_tokens}
    )
    run = simulate(entropy_stop(config), tokens)

    def is_past(end: int) -> bool:
        values = [token_id / 2 for token_id in tokens[max(end - window, 0) : end]]
        mean = sum(values) / window  # halves: exact
        past = mean > bound if side == "above" else mean < bound
        return len(values) == window and past

    ends = [
        end
        for end in range(max(patience, min_tokens), len(tokens) + 1)
        if all(is_past(place) for place in range(end - patience + 1, end + 1))
    ]
    assert len(run.token_ids) == (ends[0] if ends else len(tokens))
    assert run.finish == (Finish("stop", "entropy_stop") if ends else None)
    assert run.text == run.full_text


def test_confidence_is_the_same_rule_on_the_largest_probability() -> None:
    sure = simulate(confidence_stop(ConfidenceStop(above=0.4, patience=2)), [0, 3, 0, 1, 0])
    assert (sure.token_ids, sure.finish) == ((0, 3, 0, 1), Finish("stop", "confidence_stop"))
    lost = simulate(confidence_stop(ConfidenceStop(below=0.5, window=2)), [0, 1, 3, 0])
    assert lost.token_ids == (0, 1, 3)


@pytest.mark.parametrize("kind", [EntropyStop, ConfidenceStop])
@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({}, "exactly one of above and below"),
        ({"above": 0.2, "below": 0.1}, "exactly one of above and below"),
        ({"below": 0.0}, "greater than 0"),
        ({"above": True}, "needs a number"),
        ({"above": 0.5, "window": 0}, "at least 1"),
        ({"above": 0.5, "patience": 0}, "at least 1"),
        ({"above": 0.5, "end": "</t>"}, "end needs action: close_thinking"),
    ],
)
def test_what_can_not_work_is_refused(kind: Any, values: dict[str, Any], match: str) -> None:
    with pytest.raises(VlmkitError, match=match):
        kind.model_validate(values)
    with pytest.raises(VlmkitError, match="less than"):
        ConfidenceStop(above=1.0)


def test_a_sure_model_stops_thinking_and_answers() -> None:
    run = run_configs([closer(patience=2)], [3, 1, 0, 3, 0, 0, 0], THINK)
    # 1 and 0 are two sure tokens in a row; outside the block nothing is measured
    assert run.token_ids == (3, 1, 0, CLOSE, 0, 0, 0)
    assert run.forced == (False, False, False, True, False, False, False)
    assert run.finish is None


def test_thinking_is_closed_with_the_whole_message_and_every_block_starts_afresh() -> None:
    stop = closer(transition="so ", window=2)
    run = run_configs([stop], [0, 1, 9, 9, 0, THINK, 1, 1, 9, 9, 0], THINK)
    assert run.token_ids == (0, 1, 6, CLOSE, 0, THINK, 1, 1, 6, CLOSE, 0)
    sure = run_configs([closer(transition="ab")], [1, 3, 3, 3, 3], THINK)
    assert sure.token_ids == (1, 0, 1, CLOSE, 3)  # what is forced is not measured
    late = run_configs([closer(transition="</think>so ")], [0, 3, 3, 3, 0], THINK)
    assert late.token_ids == (0, CLOSE, 6, 3, 0)


def test_a_model_that_closes_in_time_is_left_alone() -> None:
    early = run_configs([closer(min_tokens=3)], [0, 0, CLOSE, 0, 0], THINK)
    assert not any(early.forced)
    two = closer(start="<think>", end="ba")
    begun = run_configs([two], [3, 1, 0, 0, 0], THINK)  # sure while it writes the marker itself
    assert (begun.token_ids, any(begun.forced)) == ((3, 1, 0, 0, 0), False)
    other = run_configs([two], [3, 1, 1, 2, 0, 9, 9, 3], THINK)
    assert other.token_ids == (3, 1, 1, 2, 0, 1, 0, 3)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("transition", [None, "so "])
def test_a_budget_beside_it_closes_only_once(first: int, transition: str | None) -> None:
    budget = ThinkingBudgetConfig(budget=2, transition=transition)
    for other in (closer(window=2), closer(window=2, transition="\n")):
        configs = [budget, other] if first == 0 else [other, budget]
        run = run_configs(configs, [0, 1, *[3] * 8], THINK)
        assert run.token_ids.count(CLOSE) == 1
        assert run.token_ids[-4:] == (3, 3, 3, 3)


def test_stops_count_as_without_it() -> None:
    stop = StopSequencesConfig(sequences=("\n",))
    run = run_configs([stop, closer(), ThinkingBudgetConfig(budget=None)], [7, 0, 3, 3, 7], THINK)
    assert run.text == "\na</think>d"


def test_markers_that_the_tokenizer_lacks_name_the_kind() -> None:
    with pytest.raises(VlmkitError, match="confidence_stop: the tokenizer has no token '<think>'"):
        build_stopping(
            [ConfidenceStop(above=0.9, action="close_thinking")], lambda text: [1, 2], frozenset()
        )
    with pytest.raises(ValueError, match="needs the thinking markers"):
        entropy_stop(closer())


def test_the_clock_ends_a_row_at_the_token_that_passes_the_limit() -> None:
    run = simulate(time_limit(TimeLimitConfig(seconds=1.2)), [0] * 9)  # half a second each
    assert len(run.token_ids) == 3
    assert run.finish == Finish("length", "time_limit")
    assert len(simulate(time_limit(TimeLimitConfig(seconds=1.5)), [0] * 9).token_ids) == 3
    for seconds in (0, -1.0, True, float("inf")):
        with pytest.raises(VlmkitError):
            TimeLimitConfig(seconds=seconds)


@settings(max_examples=scaled(200))
@given(
    draws=rows(24, 7),
    window=st.integers(1, 3),
    min_tokens=st.integers(0, 4),
    transition=st.sampled_from([None, "so ", "</think>so "]),
    begins=st.booleans(),
)
def test_thinking_is_closed_exactly_where_the_definition_says(
    draws: list[int], window: int, min_tokens: int, transition: str | None, begins: bool
) -> None:
    stop = closer(window=window, min_tokens=min_tokens, transition=transition)
    run = run_configs([stop], draws, *([THINK] if begins else []))
    message = {None: [CLOSE], "so ": [6, CLOSE], "</think>so ": [CLOSE, 6]}[transition]
    inside, values, queue = begins, [], []
    for token_id, forced, drawn in zip(run.token_ids, run.forced, draws, strict=False):
        assert forced == bool(queue)
        assert token_id == (queue.pop(0) if forced else drawn)
        # a start marker inside a block is one of its tokens
        if forced or token_id == CLOSE or (token_id == THINK and not inside):
            inside, values = not forced and token_id == THINK, []
        elif inside:
            values.append(token_id / 2)
            mean = sum(values[-window:]) / window
            if len(values) >= max(window, min_tokens) and mean < 0.75:
                queue = list(message)
