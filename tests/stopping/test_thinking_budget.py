"""The thinking budget: exactly N tokens, whole markers, and everything that may come between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stopping.simulate import simulate
from tests.stopping.thinking import (
    END,
    EOS_ID,
    MARKER_LENGTHS,
    START,
    WAIT,
    A,
    B,
    C,
    criterion,
    think,
)
from vlmkit.contracts.stages import StoppingCriterion


@pytest.mark.parametrize(("num_start", "num_end"), MARKER_LENGTHS)
@pytest.mark.parametrize("budget", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("where", ["open", "closed_then_open", "generated"])
def test_exactly_n_thinking_tokens(num_start: int, num_end: int, budget: int, where: str) -> None:
    start, end, before, after = START[:num_start], END[:num_end], (70, 71), (72,)
    prompts = {
        "open": [C, *start],
        "closed_then_open": [*start, A, *end, C, *start],
        "generated": [C, *start, *end],
    }
    opening = [B, *start] if where == "generated" else []
    run = think(
        opening + [A] * 30,
        prompts[where],
        budget=budget,
        start=start,
        end=end,
        before=before,
        after=after,
    )
    expected = [*opening, *[A] * budget, *before, *end, *after]
    assert list(run.token_ids) == expected + [A] * (len(run.token_ids) - len(expected))
    forced = [place for place, flag in enumerate(run.forced) if flag]
    first = len(opening) + budget
    assert forced == list(range(first, first + len((*before, *end, *after))))


@pytest.mark.parametrize(("num_start", "num_end"), MARKER_LENGTHS)
def test_a_closed_block_in_the_prompt_does_not_count(num_start: int, num_end: int) -> None:
    start, end = START[:num_start], END[:num_end]
    run = think([A] * 9, [*start, B, *end, C], budget=2, start=start, end=end)
    assert run.token_ids == (A,) * 9


def reference(
    prompt: list[int],
    draws: list[int],
    budget: int,
    start: tuple[int, ...],
    end: tuple[int, ...],
    closing: tuple[int, ...],
) -> list[int]:
    """Look at the whole row anew for every token, without any state but what is left to force."""
    tokens: list[int] = []
    queue: list[int] = []
    for drawn in draws:
        row = prompt + tokens
        place, opened = 0, None
        while place < len(row):
            if opened is not None and tuple(row[place : place + len(end)]) == end:
                place, opened = place + len(end), None
            elif tuple(row[place : place + len(start)]) == start and (
                opened is None or place + len(start) <= len(prompt)
            ):
                place = opened = place + len(start)
            else:
                place += 1
        token = drawn
        if queue:
            token = queue.pop(0)
        elif opened is not None:
            used = len(row) - max(opened, len(prompt))
            inside = tuple(row[opened:])
            begun = max(k for k in range(len(end)) if inside[len(inside) - k :] == end[:k])
            if used > budget and begun:
                token = end[begun]
            elif used >= budget and not (begun and drawn == end[begun]):
                token, queue = closing[0], list(closing[1:])
        tokens.append(token)
    return tokens


@given(data=st.data(), lengths=st.sampled_from(MARKER_LENGTHS), budget=st.integers(0, 6))
def test_equals_the_rescanning_reference(
    data: st.DataObject, lengths: tuple[int, int], budget: int
) -> None:
    start, end = START[: lengths[0]], END[: lengths[1]]
    pieces = st.sampled_from([(A,), (B,), start, end, start[:-1] or (A,), end[:-1] or (B,)])
    rows = st.lists(pieces, max_size=12).map(lambda parts: [i for part in parts for i in part])
    prompt, draws = data.draw(rows), data.draw(rows)
    before = data.draw(st.sampled_from([(), (70,), (70, 71)]))
    after = data.draw(st.sampled_from([(), (72,)]))
    run = think(draws, prompt, budget=budget, start=start, end=end, before=before, after=after)
    assert list(run.token_ids) == reference(
        prompt, draws, budget, start, end, (*before, *end, *after)
    )


@given(
    draws=st.lists(st.sampled_from([A, 60, 61]), max_size=25),
    end=st.sampled_from([(60, 60), (60, 61, 60), (60, 60, 61)]),
    budget=st.integers(0, 5),
)
def test_markers_that_overlap_themselves_are_found_where_they_first_stand(
    draws: list[int], end: tuple[int, ...], budget: int
) -> None:
    run = think(draws, [50], budget=budget, end=end)
    row = run.token_ids
    stands = [p for p in range(len(row)) if row[p : p + len(end)] == end]
    assert all(place <= budget for place in stands[:1])
    assert stands or len(row) < budget + len(end)


def test_a_model_that_closes_in_time_is_left_alone() -> None:
    draws = [A, B, *END, C, C, C, C]
    for budget in (2, 3, 4, 5, 9):
        run = think(draws, [50], budget=budget, end=END)
        assert run.token_ids == tuple(draws), budget
    assert not any(think(draws, [50], budget=9, end=END).forced)


def test_a_begun_end_marker_that_turns_out_to_be_text_is_thinking() -> None:
    run = think([A, 60, B, B, B, B], [50], budget=2, end=END)
    assert run.token_ids == (A, 60, *END, B)


def test_reopened_blocks() -> None:
    draws = [A, A, A, 50, B, B, B, 50, C, C, C]
    fresh = think(draws, [50], budget=2)
    assert fresh.token_ids == (A, A, 60, 50, B, B, 60, 50, C, C, 60)
    shared = think(draws, [50], budget=3, scope="total")
    assert shared.token_ids == (A, A, A, 60, B, B, B, 50, 60, C, C)
    left = think([A, 60, 50, A, A, A, A, A], [50], budget=3, scope="total")
    assert left.token_ids == (A, 60, 50, A, A, 60, A, A)


def test_thinking_tokens_in_the_prompt() -> None:
    prompt = [50, A, A, 60, 50, B]
    assert think([C] * 6, prompt, budget=3).token_ids == (C, C, C, 60, C, C)
    counted = think([C] * 6, prompt, budget=3, count_prompt=True)
    assert counted.token_ids == (C, C, 60, C, C, C)
    total = think([C] * 6, prompt, budget=3, count_prompt=True, scope="total")
    assert total.token_ids == (60, C, C, C, C, C)
    over = think([C] * 5, [50, A, A, A], budget=2, count_prompt=True, before=(70,))
    assert over.token_ids == (70, 60, C, C, C)
    left = think([C] * 6, prompt, budget=4, count_prompt=True, scope="total")
    assert left.token_ids == (C, 60, C, C, C, C)  # the end marker in the prompt is no thinking


def test_a_marker_may_begin_in_the_prompt() -> None:
    run = think([51, A, A, A], [C, 50], budget=1, start=(50, 51))
    assert run.token_ids == (51, A, 60, A)
    run = think([61, A, A, A], [50, B, 60], budget=1, end=(60, 61))
    assert run.token_ids == (61, A, A, A)


def test_a_second_start_marker_does_not_renew_the_budget() -> None:
    assert think([A, 50, A, A, A], [50], budget=3).token_ids == (A, 50, A, 60, A)


def test_eos_inside_closes_the_block() -> None:
    run = think([A, EOS_ID, B, B, B, EOS_ID], [50], budget=9, before=(70, 71))
    assert run.token_ids == (A, 70, 71, 60, B, EOS_ID)
    assert run.forced == (False, True, True, True, False, False)


def test_the_first_id_of_the_closing_sequence_may_be_drawn_as_text() -> None:
    run = think([A, 70, B, B, 60], [50], budget=9, before=(70, 71))
    assert run.token_ids == (A, 70, B, B, 60)


def test_eos_inside_may_stop() -> None:
    run = think([A, EOS_ID, B], [50], budget=9, eos_inside="stop")
    assert run.token_ids == (A, EOS_ID, B)  # the eos criterion's business


def test_an_end_marker_that_ends_sequences_too_is_left_alone() -> None:
    assert think([A, EOS_ID, B], [50], budget=9, end=(EOS_ID,), before=(70,)).token_ids == (
        A,
        EOS_ID,
        B,
    )


def test_an_eos_text_inside_closes_the_block() -> None:
    run = think([A, 7, 8, B, B, B], [50], budget=9, eos_texts=("7 8",), before=(70,))
    assert run.token_ids == (A, 7, 8, 70, 60, B)
    outside = think([A, 7, 8, B, 50, 8, B], budget=9, eos_texts=("7 8", "7 8 2 50 8"))
    assert outside.token_ids == (A, 7, 8, B, 50, 8, B)


def test_an_eos_that_slipped_in_closes_the_block() -> None:
    rules = criterion(9)
    forcing = StoppingCriterion(
        "other", rules.init, lambda state, event: _without_offer(rules, state, event)
    )
    run = simulate(forcing, [A, EOS_ID, B, B], str, [50])
    assert run.token_ids == (A, EOS_ID, 60, B)
    rules = criterion(3, min_tokens=3)
    early = forcing._replace(init=rules.init)
    run = simulate(early, [A, EOS_ID, B, B, B], str, [50])
    assert run.token_ids == (A, EOS_ID, 80, 60, B)  # what waits is thinking too


def _without_offer(rules: StoppingCriterion, state: Any, event: Any) -> Any:
    state, decision = rules.step(state, event)
    return state, decision._replace(overrides=())


def test_an_end_marker_that_comes_too_early_becomes_wait() -> None:
    run = think([A, 60, B, 60, B, B, 60, C], [50], budget=None, min_tokens=4)
    assert run.token_ids == (A, *WAIT, 80, 81, B, 60, C)
    run = think([A, *END, B, *END, C], [50], budget=None, min_tokens=5, end=END)
    assert run.token_ids == (A, 60, 61, *WAIT, *END, C)
    run = think([A, *END, B], [50], budget=None, min_tokens=2, end=END)
    assert run.token_ids == (A, 60, 61, *WAIT)


def test_an_eos_that_comes_too_early_becomes_wait() -> None:
    run = think([A, EOS_ID, B, EOS_ID, C], [50], budget=9, min_tokens=2)
    assert run.token_ids == (A, *WAIT, 60, C)


def test_the_budget_is_exact_also_while_waiting() -> None:
    run = think([A, 60, B, B, B], [50], budget=2, min_tokens=2)
    assert run.token_ids == (A, 80, 60, B, B)


@given(
    draws=st.lists(st.sampled_from([A, 60, EOS_ID]), max_size=30),
    minimum=st.integers(0, 5),
    extra=st.integers(0, 5),
)
def test_thinking_lies_between_minimum_and_budget(
    draws: list[int], minimum: int, extra: int
) -> None:
    run = think(draws, [50], budget=minimum + extra, min_tokens=minimum)
    if 60 in run.token_ids:
        assert minimum <= run.token_ids.index(60) <= minimum + extra
        assert EOS_ID not in run.token_ids[: run.token_ids.index(60)]
    else:
        assert len(run.token_ids) <= minimum + extra


def test_no_budget_never_closes() -> None:
    assert think([A] * 40, [50], budget=None).token_ids == (A,) * 40


def test_defect_6_budget_n_is_n_tokens_and_zero_is_none() -> None:
    for budget in range(6):
        run = think([A] * 12, [50], budget=budget)
        assert run.token_ids.index(60) == budget


def test_defect_6_the_whole_end_marker_counts_and_reopened_blocks_live() -> None:
    run = think([A, 62, 61, A, *START, B, B, B, B], START, budget=4, start=START, end=END)
    assert run.token_ids[:7] == (A, 62, 61, A, *END)
    run = think([*END, *START, B, B, B, B], START, budget=3, start=START, end=END)
    assert run.token_ids == (*END, *START, B, B, B, 60)
